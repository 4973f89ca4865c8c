"""Kill commands at random moments and tally what happened: ``python tests/faults/run.py --minutes 25 --kills 6``."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from commands import commands, make_shared
from kills import kill_all

TALLY = Path(__file__).parents[2] / "runs" / "faults.json"


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill commands at random moments and add what happened to a tally.")
    parser.add_argument("--minutes", type=float, default=25, help="when to stop (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=6, help="of each command (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the moments and mutations (default: a new one)")
    parser.add_argument("--commands", nargs="+", default=[], help="(default: all)")
    parser.add_argument("--tally", type=Path, default=TALLY, help="(default: %(default)s)")
    parser.add_argument("--keep", type=Path, default=None, help="folder for the work; failures stay there")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**31) if arguments.seed is None else arguments.seed
    print(f"seed {seed}")
    deadline = time.monotonic() + 60 * arguments.minutes
    workplace = arguments.keep or Path(tempfile.mkdtemp(prefix="faults-"))
    if not (workplace / "shared" / "evaluated").is_dir():
        make_shared(workplace / "shared")
    chosen = [c for c in commands(workplace / "shared") if not arguments.commands or c.name in arguments.commands]
    tally = json.loads(arguments.tally.read_text()) if arguments.tally.is_file() else {"kills": []}
    bad = 0
    for outcome in kill_all(chosen, workplace, seed, deadline, arguments.kills):
        tally["kills"].append({"seed": seed, **outcome.to_json()})
        arguments.tally.parent.mkdir(parents=True, exist_ok=True)
        arguments.tally.write_text(json.dumps(tally, indent=1) + "\n")
        bad += outcome.outcome != "equal"
        print(f"{outcome.command} killed after {outcome.seconds:.1f} of {outcome.of_seconds:.1f} s: {outcome.outcome}")
    counts = Counter((kill["command"], kill["outcome"] == "equal") for kill in tally["kills"])
    for name in sorted({name for name, _ in counts}):
        print(f"{name}: {counts[name, True]} equal, {counts[name, False]} not")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
