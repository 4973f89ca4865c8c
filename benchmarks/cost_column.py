"""Writes the cost column of docs/losses.md from docs/benchmarks/losses.json, which `benchmarks/losses.py` measures.

python benchmarks/losses.py --output docs/benchmarks/losses.json && python benchmarks/cost_column.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
SHAPE = "3D 4x96^3"
_COST = 4
_CELLS = re.compile(r"(?<!\\)\|")


def fill(page: str, ratios: Mapping[str, float]) -> str:
    """``page`` with the ratio of each loss in the column ``cost`` of its row; raises ``KeyError`` for a row without."""
    return "\n".join(_filled(line, ratios) for line in page.split("\n"))


def _filled(line: str, ratios: Mapping[str, float]) -> str:
    cells = _CELLS.split(line)
    name = cells[1].strip(" `") if len(cells) == 8 and cells[1].startswith(" `") else None
    if name is None:
        return line
    cells[_COST + 1] = f" {ratios[name]:.1f} "
    return "|".join(cells)


def kept_ratios(path: Path = DOCS / "benchmarks" / "losses.json") -> dict[str, float]:
    """Time of each loss over that of ``F.cross_entropy``, as measured."""
    rows = json.loads(path.read_text(encoding="utf-8"))["shapes"][SHAPE]
    return {name: row["ratio"] for name, row in rows.items()}


if __name__ == "__main__":
    losses = DOCS / "losses.md"
    losses.write_text(fill(losses.read_text(encoding="utf-8"), kept_ratios()), encoding="utf-8")
