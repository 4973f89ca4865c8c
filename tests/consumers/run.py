"""Run our bundles and losses in the tools that consume them, each in its own environment.

``python tests/consumers/run.py [CONSUMER ...]``, or ``make test-consumers``. A folder beside this file is a consumer:
``requirements.txt`` pins what its environment holds (its first line names the Python), and ``check.py`` runs there and
tells line by line what it found (``telling.py``). Environments are made and deleted one at a time. A consumer that
could not be run is a failure. Results go to ``runs/consumers.json``, and with ``--page`` to ``docs/consumers.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from interpreter import interpreter
from shared import make_shared
from table import page

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
CONSUMERS = sorted(path.parent.name for path in HERE.glob("*/check.py"))


def make_environment(name: str, folder: Path) -> Path:
    """A virtual environment with what ``NAME/requirements.txt`` pins, and this package. Returns its Python."""
    requirements = HERE / name / "requirements.txt"
    version = requirements.read_text().splitlines()[0].split()[-1]  # "# python 3.11"
    subprocess.run([interpreter(version), "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    torch = next(line for line in requirements.read_text().splitlines() if line.startswith("torch=="))
    subprocess.run([*pip, torch], check=True)  # first: what depends on it then finds it there
    subprocess.run([*pip, "-r", requirements], check=True)
    if "# without monai_calib" not in requirements.read_text():
        subprocess.run([*pip, "--no-deps", REPOSITORY], check=True)
    return python


def run(name: str, shared: Path, work: Path) -> dict[str, object]:
    """Make the environment of a consumer, run its check there, and delete both."""
    started = time.monotonic()
    told: list[dict[str, object]] = []
    versions: dict[str, str] = {}
    failed = None
    try:
        python = make_environment(name, work / "env")
        (work / "work").mkdir()
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        path = f"{python.parent}{os.pathsep}{environment['PATH']}"
        environment |= {"PATH": path, "VIRTUAL_ENV": str(work / "env"), "PYTHONPATH": str(HERE)}
        process = subprocess.Popen(
            [python, HERE / name / "check.py", shared, work / "work"],
            env=environment, cwd=work / "work", stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            print(f"  {line}", end="", flush=True)
            if line.startswith("VERSIONS "):
                versions = json.loads(line.removeprefix("VERSIONS "))
            elif line.startswith("TOLD "):
                told.append(json.loads(line.removeprefix("TOLD ")))
        if process.wait() != 0:
            failed = f"check.py ended with {process.returncode}"
        elif not told:
            failed = "check.py told nothing"
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        failed = f"not run: {error}"
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if failed:
        told.append({"what": "the whole check", "result": failed, "ok": False})
    return {
        "versions": versions,
        "date": date.today().isoformat(),
        "seconds": round(time.monotonic() - started),
        "checks": told,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Run what we ship in the tools that consume it.")
    parser.add_argument("consumers", nargs="*", metavar="CONSUMER", help=f"of {', '.join(CONSUMERS)} (default: all)")
    parser.add_argument(
        "--results", type=Path, default=REPOSITORY / "runs" / "consumers.json", help="(default: %(default)s)"
    )
    parser.add_argument("--page", type=Path, help="write the table of all results to this file, say docs/consumers.md")
    parser.add_argument("--shared", type=Path, help="folder with the small trained run; made if it is not there")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.consumers) - set(CONSUMERS)):
        parser.error(f"{', '.join(unknown)}: expected one of {', '.join(CONSUMERS)}")
    with tempfile.TemporaryDirectory(prefix="consumers-") as temporary:
        shared = (arguments.shared or Path(temporary) / "shared").absolute()
        if not (shared / "direct").is_dir():
            make_shared(shared)
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        bad = 0
        for name in arguments.consumers or CONSUMERS:
            print(name, flush=True)
            found = run(name, shared, Path(temporary) / name)
            results = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
            arguments.results.write_text(json.dumps({**results, name: found}, indent=1) + "\n")
            bad += sum(not check["ok"] for check in found["checks"])  # type: ignore[attr-defined]
            print(f"{name}: {len(found['checks'])} checks, {found['seconds']} s, versions {found['versions']}")  # type: ignore[arg-type]
    if arguments.page:
        arguments.page.write_text(page(json.loads(arguments.results.read_text())))
    print(f"{bad} checks failed" if bad else "all checks passed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
