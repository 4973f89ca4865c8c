"""What the losses do on data other than the papers': hippocampus, ultrasound and cells; the heart is in :mod:`acdc`.

    python studies/other_data.py "NAME=OUT/runs" ...   # read the comparisons, keep their runs, write page and figure
    python studies/other_data.py                       # write page and figure from other_data.json

Runs are kept, and added to, as :mod:`parts` says. Numbers of the page may be of the heart too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import acdc
from pages import write_page
from parts import draw, read_parts, tables

__all__ = ["figure", "tables"]

FIGURES = Path(__file__).with_suffix(".json")
PICTURE = FIGURES.with_name("figures") / "other_data.svg"


def figure(parts: Sequence[Mapping[str, Any]], path: str) -> float:
    """As :func:`acdc.figure`, of a part of this page or of that."""
    return acdc.figure([*parts, *json.loads(acdc.FIGURES.read_text(encoding="utf-8"))], path)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the losses do on data other than the papers'.")
    parser.add_argument("comparisons", nargs="*", metavar="NAME=OUT/runs")
    parts = read_parts(FIGURES, parser.parse_args().comparisons)
    draw([part for part in parts if len(part["methods"]) > 2], PICTURE)
    write_page("other_data")


if __name__ == "__main__":
    main()
