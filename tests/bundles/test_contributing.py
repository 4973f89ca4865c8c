"""The example in CONTRIBUTING.md is what the repository holds."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_shown_entry_and_script_are_the_real_ones() -> None:
    shown = re.findall(r"^```diff\n--- (\S+)\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
    assert [name for name, _ in shown] == ["bundles/datasets.yaml", "data_scripts/busi.py"]
    for name, lines in shown:
        text = "\n".join(line.removeprefix("+") for line in lines.splitlines())
        present = (ROOT / name).read_text().rstrip()
        if name.endswith(".py"):
            assert text == present, f"CONTRIBUTING.md shows another {name}: copy the file into the example"
        else:
            entries = re.split(r"\n\n(?=\w+:\n)", present)
            assert text in entries, (
                f"CONTRIBUTING.md shows an entry that {name} does not hold: copy it into the example"
            )
