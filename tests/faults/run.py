"""Kill commands and damage inputs: ``python tests/faults/run.py --minutes 25 --kills 6 --inputs 8``.

``--parts pairs disks users`` starts them twice at once, on full disks, and as a user without home and rights.

Prints its seed, adds every outcome to ``docs/reliability.json`` and writes ``docs/reliability.md`` from it.
"""

from __future__ import annotations

import argparse
import datetime
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from commands import commands, make_shared
from disks import may_mount, run_disks
from hostile import Prepared, Read, read_all
from kills import Outcome, kill_all
from pairs import run_pairs
from readers import readers
from tally import REPOSITORY, WORDS, Tally
from users import may_become_foreign, run_foreign

PARTS = ("inputs", "kills", "pairs", "disks", "users")


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill commands, damage inputs, and add it all to a tally.")
    parser.add_argument("--minutes", type=float, default=25, help="when to stop (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=6, help="of each command (default: %(default)s)")
    parser.add_argument("--times", type=int, default=1, help="pairs and disks of each command (default: %(default)s)")
    parser.add_argument("--inputs", type=int, default=8, help="of each reader (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the moments and mutations (default: a new one)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS[:2]), help="(default: inputs kills)")
    parser.add_argument("--commands", nargs="+", default=[], help="to kill (default: all)")
    parser.add_argument("--kinds", nargs="+", default=[], help="of files to damage (default: all)")
    parser.add_argument(
        "--again", action="store_true", help="read the inputs that were wrong once more, and nothing else"
    )
    parser.add_argument("--add", type=Path, help="add another tally, write the page, and nothing else")
    parser.add_argument("--page", action="store_true", help="write the page from the tally, and nothing else")
    parser.add_argument("--tally", type=Path, default=REPOSITORY / "docs" / "reliability.json")
    parser.add_argument("--keep", type=Path, default=None, help="folder for the work; failures stay there")
    arguments = parser.parse_args()
    tally = Tally(arguments.tally)
    if arguments.add:
        tally.merge(Tally(arguments.add))
        tally.save()
    if arguments.page or arguments.add:
        write_page(tally)
        return 0
    workplace = arguments.keep or Path(tempfile.mkdtemp(prefix="faults-"))
    workplace.mkdir(parents=True, exist_ok=True)
    try:
        if arguments.again:
            return read_again(tally, workplace)
        return run(arguments, tally, workplace)
    finally:
        if arguments.keep is None:
            shutil.rmtree(workplace, ignore_errors=True)


def run(arguments: argparse.Namespace, tally: Tally, workplace: Path) -> int:
    """The chosen parts in turn; inputs get a third of the time at most, kills the rest."""
    seed = random.SystemRandom().randrange(2**31) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    tally.runs.append({"seed": seed, "date": datetime.date.today().isoformat(), "commit": _commit()})
    begin = time.monotonic()
    deadline = begin + 60 * arguments.minutes
    alone = arguments.parts == ["inputs"]
    before = len(tally.faults)
    if "inputs" in arguments.parts:
        chosen = [reader for reader in readers() if not arguments.kinds or reader.kind in arguments.kinds]
        prepared = [Prepared(reader, workplace) for reader in chosen]
        until = deadline if alone else begin + 20 * arguments.minutes
        for read in read_all(prepared, seed, until, arguments.inputs):
            _add_read(tally, read)
    if set(arguments.parts) - {"inputs"}:
        shared = workplace / "shared"
        if not (shared / "evaluated").is_dir():
            shutil.rmtree(shared, ignore_errors=True)
            make_shared(shared)
        victims = [command for command in commands(shared) if command.name in (arguments.commands or [command.name])]
        times = arguments.times
        parts: dict[str, Callable[[], Iterable[Outcome]]] = {
            "kills": lambda: kill_all(victims, workplace, seed, deadline, arguments.kills),
            "pairs": lambda: run_pairs(victims, workplace, seed, times, deadline),
            "disks": lambda: run_disks(victims, workplace, seed, times, deadline),
            "users": lambda: run_foreign(victims, workplace, deadline),
        }
        for part in [part for part in parts if part in arguments.parts]:
            if (part == "disks" and not may_mount(workplace)) or (part == "users" and not may_become_foreign()):
                print(f"{part}: not tried; needs the rights of root, and an interpreter that others may read")
            else:
                _add_all(tally, part.removesuffix("s"), parts[part]())
    tally.save()
    if arguments.tally == REPOSITORY / "docs" / "reliability.json":
        write_page(tally)
    found = len(tally.faults) - before
    print(f"{found} outcomes were wrong" if found else "nothing was wrong")
    return 1 if found else 0


def _add_read(tally: Tally, read: Read) -> None:
    what = f"input · {read.kind} · {read.reader}"
    evidence = (
        None if read.good else {"reader": read.reader, "kind": read.kind, "mutation": read.mutation, "seed": read.seed}
    )
    tally.add(what, read.outcome, evidence)
    if not read.good:
        print(f"{what}, {read.mutation}, seed {read.seed}: {read.outcome}\n{read.told[-1500:]}", flush=True)
    if sum(map(sum, (of.values() for of in tally.counts.values()))) % 20 == 0:
        tally.save()


def _add_all(tally: Tally, sort: str, outcomes: Iterable[Outcome]) -> None:
    for one in outcomes:
        told = f"after {one.seconds:.1f} of {one.of_seconds:.1f} s"
        tally.add(f"{sort} · {one.command}", one.outcome, None if one.outcome in WORDS else {"mutation": told})
        tally.save()
        print(f"{sort}: {one.command} {told}: {one.outcome}", flush=True)


def read_again(tally: Tally, workplace: Path) -> int:
    """Read what was wrong once more, each with its seed; a right outcome is noted as mended."""
    known = {(reader.kind, reader.name): reader for reader in readers()}
    prepared: dict[tuple[str, str], Prepared] = {}
    wrong = 0
    for fault in tally.faults:
        key = (fault.get("kind", ""), fault.get("reader", ""))
        if fault.get("mended") or key not in known:
            continue
        prepared[key] = prepared.get(key) or Prepared(known[key], workplace)
        read = prepared[key].read(fault["seed"], fault["mutation"])
        if read.good:
            fault["mended"] = read.outcome
        else:
            wrong += 1
            print(
                f"{fault['what']}, {read.mutation}, seed {read.seed}: {read.outcome}\n{read.told[-1500:]}", flush=True
            )
    tally.save()
    write_page(tally)
    print(f"{wrong} are still wrong")
    return 1 if wrong else 0


def write_page(tally: Tally) -> None:
    """Write ``docs/reliability.md`` beside the tally."""
    tally.path.with_suffix(".md").write_text(tally.page())


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
