"""A provisioned federation on this machine: server and sites with certificates, a job sent by the admin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from nvflare.fuel.flare_api.flare_api import new_secure_session

ADMIN = "admin@nvidia.com"
PATIENCE = 120


def run_in_federation(job: Path, workspace: Path) -> None:
    """Provision, start, submit a job, wait for its end, stop. Raises ``RuntimeError`` unless it completed."""
    workspace.mkdir()
    home = workspace / "home"  # nvflare keeps a configuration there
    home.mkdir()
    environment = {**os.environ, "NVFLARE_POC_WORKSPACE": str(workspace / "poc"), "HOME": str(home)}
    poc = [str(Path(sys.executable).with_name("nvflare")), "poc"]
    with workspace.with_suffix(".log").open("w") as log:
        quiet: dict[str, Any] = {"env": environment, "stdout": log, "stderr": subprocess.STDOUT}
        subprocess.run([*poc, "prepare", "-n", "2"], check=True, **quiet)
        started = subprocess.Popen([*poc, "start", "-ex", ADMIN], start_new_session=True, **quiet)
        try:
            session = _session(next(workspace.glob(f"poc/**/{ADMIN}")))
            number = session.submit_job(str(job))
            session.monitor_job(number, timeout=600)
            status = session.get_job_meta(number)["status"]
            session.close()
        finally:
            subprocess.run([*poc, "stop"], **quiet)
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(started.pid, signal.SIGTERM)
    if status != "FINISHED:COMPLETED":
        raise RuntimeError(f"job {job.name}: expected to complete, got {status}. See {workspace}.log")


def _session(kit: Path) -> Any:
    """The admin's, as soon as the server listens and both sites have joined."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            session = new_secure_session(ADMIN, str(kit))
            if len(session.get_connected_client_list()) == 2:
                return session
            session.close()
            raise RuntimeError("two sites were expected")
        except Exception:  # of many kinds, while it starts
            if time.monotonic() > until:
                raise
            time.sleep(2)
