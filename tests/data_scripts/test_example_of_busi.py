"""CONTRIBUTING.md shows what a data set takes by the diff of BUSI: the entry and the script as they are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_diff_in_contributing_is_what_the_files_hold():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    added = text.split("```diff\n")[1].split("```")[0]
    shown = dict(part.split("\n", 1) for part in added.split("+++ ")[1:])
    assert set(shown) == {"monai_calib/bundling/datasets.yaml", "data_scripts/busi.py"}
    for name, lines in shown.items():
        assert all(line.startswith("+") for line in lines.splitlines())
        content = "".join(f"{line[1:]}\n" for line in lines.splitlines())
        assert content in (ROOT / name).read_text(encoding="utf-8"), f"CONTRIBUTING.md shows another {name}"
