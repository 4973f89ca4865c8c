"""What NACL's neighbourhood does: its size, its prior and the distance to it.

    python studies/neighbourhood.py "NAME=OUT/runs" ...   # read the comparisons, keep their runs, write the page
    python studies/neighbourhood.py                       # write the page from neighbourhood.json

Runs are kept, and added to, as :mod:`parts` says.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import write_page
from parts import COLUMNS, draw, read_parts
from results import change_table, figure, figure_table

__all__ = ["figure", "tables"]

FIGURES = Path(__file__).with_suffix(".json")
PICTURE = FIGURES.with_name("figures") / "neighbourhood.svg"


def tables(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """All tables of the page by name."""
    made = {}
    for part in parts:
        of = part["part"]
        made[of] = figure_table(part, COLUMNS)
        made[f"change, {of}"] = change_table(part, "`nacl`", COLUMNS[:5])
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="What NACL's neighbourhood does.")
    parser.add_argument("comparisons", nargs="*", metavar="NAME=OUT/runs")
    draw(read_parts(FIGURES, parser.parse_args().comparisons, ("nacl",)), PICTURE)
    write_page("neighbourhood")


if __name__ == "__main__":
    main()
