"""Some of the shared data, as a data folder of its own: what a check trains on for a moment, or a site holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["take_cases"]


def take_cases(data: Path, target: Path, shares: Mapping[str, tuple[int, int]]) -> Path:
    """Copy cases number ``first`` to before ``last`` of each split into a data folder, which is returned."""
    whole = json.loads((data / "datalist.json").read_text())
    mine = {split: whole[split][first:last] for split, (first, last) in shares.items()}
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True)
    for cases in mine.values():
        for case in cases:
            for key in ("image", "label"):
                shutil.copy(data / case[key], target / case[key])
    (target / "datalist.json").write_text(json.dumps({**whole, **mine}))
    return target
