"""The sum over runs of the harness, in ``docs/reliability.json``, and the page written from it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
FORMAT = "monai_calib/faults/1"
WORDS = {
    "same": "as undamaged",
    "healed": "made again, the file named",
    "named": "refused, the file named",
    "other": "another valid input",
    "equal": "as unkilled",
    "one refused": "one, the other refused",
    "in turn": "both, one after the other",
}
"""Outcomes that are right, in the words of the page."""
_CIRCUMSTANCES = (
    (
        "pair",
        "Two processes on one folder",
        "The same call twice, the second up to a third of its time later. Right is one result, as of a single call; "
        "the other process is refused with a line that names the folder and the holder, or comes when the first is "
        "done.",
        ("one refused", "in turn"),
    ),
    (
        "disk",
        "Full disks",
        "A tmpfs with room for the inputs and a random share of what the command writes. Right is an error that names "
        "a path and the free space, and the whole result when the disk has grown and the command is called again.",
        ("named", "equal"),
    ),
    (
        "user",
        "A foreign user",
        "A user id without home, rights on the installation and entry in the list of users (`HOME=/nonexistent`; with "
        "`LOGNAME`, since MONAI cannot be imported by a user without a name).",
        ("equal",),
    ),
)


class Tally:
    """Numbers of what was tried and how it ended; every outcome that is not right, with its seed.

    Args:
        path: of the JSON file, read where it exists and written by :meth:`save`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = json.loads(path.read_text()) if path.is_file() else {"format": FORMAT}
        if content["format"] != FORMAT:
            raise ValueError(f"{path}: expected format {FORMAT}, got {content['format']!r}. Move it away.")
        self.runs: list[dict[str, Any]] = content.get("runs", [])
        self.counts: dict[str, dict[str, int]] = content.get("counts", {})
        self.faults: list[dict[str, Any]] = content.get("faults", [])

    def add(self, what: str, outcome: str, evidence: Mapping[str, Any] | None = None) -> None:
        """Count an outcome of ``"kill · train"``, ``"input · JSON · report"`` ...; a wrong one with its evidence."""
        known = outcome if outcome in WORDS or evidence is None else "fault"
        of = self.counts.setdefault(what, {})
        of[known] = of.get(known, 0) + 1
        if known == "fault":
            self.faults.append({"what": what, "outcome": outcome[:300], **(evidence or {})})

    def merge(self, other: Tally) -> None:
        """Add what another tally holds: runs side by side or elsewhere."""
        self.runs += other.runs
        self.faults += other.faults
        for what, outcomes in other.counts.items():
            self.counts[what] = dict(Counter(self.counts.get(what, {})) + Counter(outcomes))

    def save(self) -> None:
        """Write the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "format": FORMAT,
            "runs": self.runs,
            "counts": dict(sorted(self.counts.items())),
            "faults": self.faults,
        }
        self.path.write_text(json.dumps(content, indent=1, ensure_ascii=True) + "\n")

    def of(self, sort: str) -> dict[str, Counter[str]]:
        """Counts of a sort (``"kill"``, ``"input"`` ...) by what follows."""
        found: dict[str, Counter[str]] = {}
        for what, outcomes in self.counts.items():
            first, _, rest = what.partition(" · ")
            if first == sort:
                found[rest] = Counter(outcomes)
        return found

    def page(self) -> str:
        """The page, in Markdown."""
        kills, inputs = self.of("kill"), self.of("input")
        by_kind: dict[str, Counter[str]] = {}
        for what, outcomes in inputs.items():
            by_kind.setdefault(what.partition(" · ")[0], Counter()).update(outcomes)
        seeds = ", ".join(str(run["seed"]) for run in self.runs)
        lines = [
            "# Kills and hostile input: what was tried, and what happened",
            "",
            "Written by `tests/faults/run.py` (`make test-faults`) from `docs/reliability.json`, the sum over its "
            "runs. Every run draws new moments and new mutations from the seed that it prints. The generators of "
            "damage are in `tests/faults/mutations/`; a small part of all this is in `make test`.",
            "",
            f"{sum(map(_size, kills.values()))} kills of {len(kills)} commands, {sum(map(_size, inputs.values()))} "
            f"mutated inputs of {len(by_kind)} kinds, in {len(self.runs)} runs.",
            "",
            "## Killed with SIGKILL at a random moment, then called again",
            "",
            "Right is the result of an unkilled call, bit for bit but for times, with nothing left behind. Half of "
            "the kills fall into the last third of the time, where results are written.",
            "",
            *_table("command", kills, ("equal",)),
            "",
            *self._circumstances(),
            "## Mutated inputs",
            "",
            "Each is read in a process of its own with at most a minute and 3 GB. Right is the result of the whole "
            "file (*as undamaged*), a refusal that names the file in a line (or, where the damage is a contradiction, "
            "the other file of the contradiction), a damaged cache made again, or a result where the changed content "
            "is another valid input (other voxels, another name). Nothing may be run, written outside, or left behind.",
            "",
            *_table("kind of file", by_kind, ("same", "named", "healed", "other")),
            "",
            "By reader:",
            "",
            *_table("kind · reader", inputs, ("same", "named", "healed", "other")),
        ]
        lines += ["", "## What was wrong", "", *self._faults(), "", f"Seeds: {seeds}.", ""]
        return "\n".join(lines)

    def _circumstances(self) -> list[str]:
        lines = []
        for sort, title, text, outcomes in _CIRCUMSTANCES:
            if rows := self.of(sort):
                lines += [f"## {title}", "", text, "", *_table("command", rows, outcomes), ""]
        return lines

    def _faults(self) -> list[str]:
        if not self.faults:
            return ["Nothing."]
        mended = sum(1 for fault in self.faults if fault.get("mended"))
        lines = [
            f"{len(self.faults)} outcomes were wrong when they were met. {mended} of them are right since: an input "
            "was mutated with its seed and read again (`--again`), a command was killed again. A fault that is not "
            "told as mended stands.",
            "",
            "| what | mutation or moment | was | mended |",
            "|---|---|---|---|",
        ]
        groups = Counter(
            (fault["what"], fault.get("mutation", "a kill"), _short(fault["outcome"]), fault.get("mended") or "no")
            for fault in self.faults
        )
        lines += [
            f"| {what} | {mutation}{f' ({count} times)' * (count > 1)} | {outcome} | {mended} |"
            for (what, mutation, outcome, mended), count in sorted(groups.items())
        ]
        return lines


def _size(counter: Counter[str]) -> int:
    return sum(counter.values())


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line.replace("|", "/")[:90]


def _table(first: str, rows: Mapping[str, Counter[str]], outcomes: tuple[str, ...]) -> list[str]:
    header = [first, "times", *(WORDS[outcome] for outcome in outcomes), "wrong when met"]
    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    for name, found in sorted(rows.items()):
        wrong = sum(count for outcome, count in found.items() if outcome not in outcomes)
        cells = [name, _size(found), *(found[outcome] for outcome in outcomes), wrong]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines
