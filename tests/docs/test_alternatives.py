"""README's table of other packages is what docs/alternatives.md gives evidence for; its results are the studies'."""

from __future__ import annotations

import re

from written_pages import ROOT

PAGE = ROOT / "docs" / "alternatives.md"
README = ROOT / "README.md"
OTHERS = ["MONAI 1.7", "nnU-Net", "torch-uncertainty", "MarginLoss", "ACL", "netcal", "torchmetrics"]
LINE = re.compile(r"^- (?P<mark>\S) (?P<package>[^:]+): (?P<evidence>.+)$", re.MULTILINE)


def _evidence(text: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Return mark and evidence by need and package."""
    parts = [part.partition("\n") for part in text.split("\n## ")[1:]]
    return {
        need: {match["package"]: (match["mark"], match["evidence"]) for match in LINE.finditer(body)}
        for need, _, body in parts
    }


def _table(text: str) -> dict[str, dict[str, str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    head, marks = rows[0], rows[2:]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in marks}


def test_every_cell_has_its_evidence() -> None:
    evidence = _evidence(PAGE.read_text(encoding="utf-8"))
    table = _table(README.read_text(encoding="utf-8").partition("## And the others?")[2])
    marks = {need: {name: mark for name, (mark, _) in cells.items()} for need, cells in evidence.items()}
    assert table == {need: marks[need] for need in table}
    assert len(table) >= 8
    for cells in evidence.values():
        assert list(cells) == ["monai_calib", *OTHERS]
        assert {mark for mark, _ in cells.values()} <= {"✓", "◐", "–"}


def test_others_do_some_things_better() -> None:
    table = _table(README.read_text(encoding="utf-8").partition("## And the others?")[2])
    better = {name for cells in table.values() for name in OTHERS if cells["monai_calib"] != "✓" and cells[name] == "✓"}
    assert {"nnU-Net", "torch-uncertainty", "netcal"} <= better


def test_what_is_said_of_this_package_names_files_that_exist() -> None:
    for cells in _evidence(PAGE.read_text(encoding="utf-8")).values():
        for path in re.findall(r"`([\w/]+\.py|[\w/]+/)`", cells["monai_calib"][1]):
            assert (ROOT / path).exists() or (ROOT / "monai_calib" / path).exists(), path


def test_versions_are_told() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    assert len(re.findall(r"\b\d+\.\d+\.(?:\d+|dev\d+)", text)) >= 5


def test_results_of_readme_stand_in_the_studies() -> None:
    text = README.read_text(encoding="utf-8").partition("## What we found\n")[2].partition("\n## ")[0].strip()
    assert len(text.splitlines()) <= 5
    for line in text.splitlines():
        pages = [ROOT / name for name in re.findall(r"\]\((studies/\w+\.md)\)", line)]
        assert pages
        told = " ".join(page.read_text(encoding="utf-8") for page in pages)
        for figure in re.findall(r"\d+ %|\d\.\d+", line):
            assert re.search(rf"(?<![\d.]){re.escape(figure.removeprefix('0'))}|{re.escape(figure)}", told), figure


def test_a_cell_without_evidence_is_seen() -> None:
    text = "# A\n\n## Need\n\n- ✓ monai_calib: here\n- – nnU-Net: none\n"
    assert _evidence(text) == {"Need": {"monai_calib": ("✓", "here"), "nnU-Net": ("–", "none")}}
    assert _table("| | monai_calib | nnU-Net |\n|---|:-:|:-:|\n| Need | ✓ | ✓ |\n") == {
        "Need": {"monai_calib": "✓", "nnU-Net": "✓"}
    }
