"""A small phantom, and one comparison that was killed in the middle and carried to its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_comparisons import Interrupted, bundle_process, is_alive, manifest, small_plan, start_benchmark, wait_for

from monai_calib.experiments import FolderInUseError, LocalWorkers, run_benchmark
from monai_calib.phantom import write_phantom


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Results are compared to the last digit, which depends on the number of threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(folder, cases=6, shape=(18, 25, 18), spacing=(2, 2, 2))
    return folder


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory: pytest.TempPathFactory, phantom: Path) -> Interrupted:
    output = tmp_path_factory.mktemp("comparison")
    losses = ("mbls:margin=5.0|10.0", "no_such_loss")
    plan = small_plan(output, phantom, *losses, settings={"epochs": 2})
    # The command refuses a loss that is not there; a run that fails is planned behind its back.
    options = ["--losses", losses[0], "--seeds", "1", "--set", "epochs=2", "--retries", "0"]
    first = plan.runs[0].folder
    command = start_benchmark(output, phantom, *options)
    try:
        wait_for((first / "models" / "training.json").is_file)
        child = bundle_process(first)
        assert child is not None
        os.kill(child, signal.SIGSTOP)  # so that it is in the middle of its training, however fast the machine
        with pytest.raises(FolderInUseError) as second_call:
            run_benchmark(plan, lambda: LocalWorkers(1))
    finally:
        os.killpg(command.pid, signal.SIGKILL)
        command.communicate()
    state = manifest(output)
    os.kill(child, signal.SIGCONT)
    wait_for(lambda: not is_alive(child))
    failed = run_benchmark(plan, lambda: LocalWorkers(2), retries=1)
    return Interrupted(output, phantom, plan, state, second_call.value, [run.key for run in failed])
