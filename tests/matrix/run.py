"""Run the suite with the lowest, the pinned and the highest versions, and with MONAI's weekly build.

``python tests/matrix/run.py [PAIR ...]``, or ``make test-matrix``. Each pair of a Python and a set of versions
(``pins.py``) gets an environment of its own, made and deleted one at a time: up to 8 GB where PyPI's torch is the CUDA
build. A pair whose environment cannot be made, or in which no test passes, is a failure. Results go to
``runs/matrix.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from matrix_results import counts, table, well
from pins import PAIRS, REPOSITORY, Pair

sys.path.insert(0, str(REPOSITORY / "tests" / "consumers"))
from interpreter import interpreter


def make_environment(pair: Pair, folder: Path) -> Path:
    """A virtual environment with this package and all that its tests need. Returns its Python."""
    subprocess.run([interpreter(pair.python), "-m", "venv", folder / "env"], check=True)
    python, pins = folder / "env" / "bin" / "python", folder / "pins.txt"
    pins.write_text(pair.pins())
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--upgrade", "pip"], check=True)
    subprocess.run([*pip, "install", "--quiet", "-c", pins, "torch"], check=True)  # first, as in the Makefile
    subprocess.run([*pip, "install", "--quiet", "-c", pins, "-e", f"{REPOSITORY}[dev]"], check=True)
    if pair.weekly:  # monai-weekly brings the same module under another name
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", "monai"], check=True)
        subprocess.run([*pip, "install", "--quiet", "--pre", "-c", pins, "monai-weekly"], check=True)
    return python


def run(pair: Pair, tests: list[str], parent: Path | None) -> dict[str, Any]:
    """Make the environment of a pair, run the tests there, and delete it."""
    started = time.monotonic()
    found: dict[str, Any] = {"python": pair.python, "date": date.today().isoformat(), "machine": platform.platform()}
    with tempfile.TemporaryDirectory(prefix="matrix-", dir=parent) as name:
        folder = Path(name)
        try:
            python = make_environment(pair, folder)
            listed = subprocess.run(
                [python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True, text=True
            )
            packages = {one["name"].lower(): one["version"] for one in json.loads(listed.stdout)}
            found["versions"] = packages | {"monai": packages.get("monai-weekly", packages.get("monai"))}
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            environment |= {"OMP_NUM_THREADS": "1", "PATH": f"{python.parent}{os.pathsep}{environment['PATH']}"}
            pytest = [python, "-m", "pytest", "--numprocesses", "2", "--dist", "loadfile", "--tb", "short"]
            began = time.monotonic()
            report = folder / "junit.xml"
            ended = subprocess.run([*pytest, f"--junitxml={report}", *tests], cwd=REPOSITORY, env=environment)
            found["tests"] = {
                "of": " ".join(tests) or "all",
                **(counts(report.read_text()) if report.is_file() else {"passed": 0, "failed": 0, "skipped": 0}),
                "exit": ended.returncode,
                "seconds": round(time.monotonic() - began),
            }
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            found["not_run"] = str(error)
    found["seconds"] = round(time.monotonic() - started)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run the suite with the lowest, pinned and highest versions, and with MONAI's weekly build.",
        epilog="example: python tests/matrix/run.py lowest --tests tests/losses tests/metrics",
    )
    parser.add_argument("pairs", nargs="*", metavar="PAIR", help=f"of {', '.join(PAIRS)} (default: all)")
    parser.add_argument("--tests", nargs="+", default=[], metavar="PATH", help="a part of the suite (default: all)")
    parser.add_argument(
        "--results", type=Path, default=REPOSITORY / "runs" / "matrix.json", help="(default: %(default)s)"
    )
    parser.add_argument("--environments", type=Path, help="folder to make environments in (default: the system's)")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.pairs) - set(PAIRS)):
        parser.error(f"{', '.join(unknown)}: expected one of {', '.join(PAIRS)}")
    bad = []
    for name in arguments.pairs or PAIRS:
        print(f"{name}: Python {PAIRS[name].python}", flush=True)
        found = run(PAIRS[name], arguments.tests, arguments.environments)
        results = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        arguments.results.write_text(json.dumps({**results, name: found}, indent=1) + "\n")
        print(table({name: found}), flush=True)
        if not well(found):
            bad.append(name)
    print(table(json.loads(arguments.results.read_text())))
    print(f"failed: {', '.join(bad)}" if bad else "all pairs passed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
