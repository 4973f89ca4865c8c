"""A step that finds no space left says so by its exit status, since its log may have no room for a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from monai_calib.experiments.bundle_process import NO_SPACE

FULL = Path("/dev/full")
STEP = """
import errno, runpy, sys
from monai_calib.experiments import bundle_process

def run_module(*arguments, **settings):
    print("epoch 1")
    try:
        raise OSError({number}, "a disk")
    except OSError as error:
        raise RuntimeError("MONAI's own words") from error

runpy.run_module = run_module
bundle_process.main()
"""


@pytest.mark.parametrize(("number", "status"), [("errno.ENOSPC", NO_SPACE), ("errno.EACCES", 1)])
def test_the_status_tells_of_a_full_disk(tmp_path: Path, number: str, status: int) -> None:
    call = [sys.executable, "-c", STEP.format(number=number), str(tmp_path)]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as step:
        assert step.stdout is not None
        said = step.stdout.read().decode()
    assert step.returncode == status
    assert "MONAI's own words" in said


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_also_where_the_log_lies_on_it(tmp_path: Path) -> None:
    call = [sys.executable, "-c", STEP.format(number="errno.ENOSPC").replace('print("epoch 1")', "pass"), str(tmp_path)]
    with FULL.open("w") as log, subprocess.Popen(call, stdin=subprocess.PIPE, stdout=log, stderr=log) as step:
        assert step.wait(60) == NO_SPACE
