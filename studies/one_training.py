"""Whether one training can be calibrated without a correction: losses that know when to stop, on several data sets.

    python studies/one_training.py "NAME=OUT/runs" "NAME=OUT/runs=LOSS" ...   # read comparisons, then write the page
    python studies/one_training.py                                            # write the page from one_training.json

Runs are kept, and added to, as those of :mod:`other_data`; ``=LOSS`` names runs of a loss of one_training_losses.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from other_data import COLUMNS, figure, read_parts
from pages import write_page
from results import AGAINST, figure_table

__all__ = ["figure", "tables"]

FIGURES = Path(__file__).with_suffix(".json")


def tables(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """All tables of the page by name."""
    return {part["part"]: figure_table(part, COLUMNS).replace("2 mm", f"2 {part['unit']}") for part in parts}


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether one training can be calibrated without a correction.")
    parser.add_argument("comparisons", nargs="*", metavar="NAME=OUT/runs[=LOSS]")
    read_parts(FIGURES, parser.parse_args().comparisons, AGAINST)
    write_page("one_training")


if __name__ == "__main__":
    main()
