"""Carries runs out on a Ray cluster whose machines share the folders of data and results."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from typing import Any

from .perform import Children, Event, perform, run_environment
from .plan import Run

__all__ = ["RayWorkers"]


class RayWorkers:
    """Runs as Ray tasks; the cluster decides where, and how many at a time.

    Every machine needs this package, at the same version, and sees the bundle, the data set and OUT at the same path.
    A run whose machine or worker is lost is told as ``lost``; its folder holds how far it came.

    Args:
        address: ``auto`` for the cluster of this machine, or the address of its head.
        gpus_per_run: GPUs for a run, such as 0.5; by default 1 on a cluster that has any, else 0.
        cpus_per_run: cores for a run, which is also the number of its threads.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: there is no cluster.
        ValueError: no machine of the cluster has so much, now.
    """

    def __init__(self, address: str = "auto", gpus_per_run: float | None = None, cpus_per_run: int = 1) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError('Ray is not installed; try pip install "monai_calib[ray]"') from error
        self._ray: Any = ray
        _expect_answer(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        if gpus_per_run is None:
            gpus_per_run = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        self._cpus, self._gpus = cpus_per_run, gpus_per_run
        if not self.places:
            raise ValueError(
                f"no machine of the cluster has what a run asks for, cores: {cpus_per_run}, GPUs: {gpus_per_run:g}. "
                "Ask for fewer with --cpus_per_run and --gpus_per_run."
            )
        # A lost task is submitted again by the comparison, which counts it, and not by Ray.
        self._task = ray.remote(_carry_out).options(
            num_cpus=cpus_per_run, num_gpus=gpus_per_run, max_retries=0, scheduling_strategy="SPREAD"
        )
        self._under_way: dict[Any, str] = {}

    @property
    def places(self) -> int:
        """Runs that fit on the machines there are now."""
        return sum(self._fit(node["Resources"]) for node in self._ray.nodes() if node["Alive"])

    def submit(self, run: Run, trained: bool) -> None:
        self._under_way[self._task.remote(run, self._cpus, trained)] = run.key

    def next_event(self, timeout: float) -> tuple[str, Event] | None:
        ready, _ = self._ray.wait(list(self._under_way), timeout=timeout)
        if not ready:
            return None
        events = ready[0]
        try:
            event = self._ray.get(next(events))
        except StopIteration:  # ended without its last event
            event = Event("lost", lines=("its worker ended early",))
        except self._ray.exceptions.RayTaskError as error:  # an error in this package, not in the run
            event = Event("failed", lines=(str(error.cause or error),))
        except self._ray.exceptions.RayError as error:
            event = Event("lost", lines=(f"its worker was lost: {type(error).__name__}", *str(error).splitlines()[:5]))
        if event.kind in ("done", "failed", "lost"):
            return self._under_way.pop(events), event
        return self._under_way[events], event

    def stop(self) -> None:
        for events in self._under_way:
            self._ray.cancel(events, force=True)
        self._ray.shutdown()

    def _fit(self, resources: dict[str, float]) -> int:
        by_cores = resources.get("CPU", 0.0) / self._cpus
        by_gpus = resources.get("GPU", 0.0) / self._gpus if self._gpus else by_cores
        return int(min(by_cores, by_gpus))


def _expect_answer(address: str) -> None:
    """Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(f"no Ray cluster at {address}: {error}; 'ray start --head' starts one") from error


def _carry_out(run: Run, threads: int, trained: bool) -> Iterator[Event]:
    # The bundle's process ends with this worker, which Ray ends when the task is cancelled or its driver is gone.
    yield from perform(run, run_environment(threads), Children(), trained)
