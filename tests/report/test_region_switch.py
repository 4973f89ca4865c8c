"""One region at a time: overlap once, a switch over the regions, and one line for those without a voxel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import write_run
from test_page import Page

from monai_calib.metrics.protocols import PROTOCOLS
from monai_calib.report import write_report
from monai_calib.report.comparison import compare
from monai_calib.report.runs import Run, read_runs
from monai_calib.report.sections import part_of

REGIONS = sum(len(PROTOCOLS[name].regions) for name in ("paper", "by_region"))


@pytest.fixture(scope="module")
def path(run_folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(run_folders, tmp_path_factory.mktemp("page") / "report.html")


def test_every_region_has_a_labelled_choice_and_the_whole_volume_is_the_first(path: Path) -> None:
    page = Page(path)
    boxes = [box for box in page.all("input") if box.get("type") == "radio"]
    sections = {section["id"] for section in page.all("section") if section.get("class") == "region"}
    assert {box["value"] for box in boxes} == sections | {""}
    assert len(sections) == REGIONS
    assert len({box["name"] for box in boxes}) == 1, "one group, which the arrow keys go through"
    (checked,) = [box["value"] for box in boxes if "checked" in box]
    text = path.read_text()
    assert f'value="{checked}" checked>by_region: whole volume</label>' in text
    assert "Calibration in" in page.text


def test_without_a_script_and_in_print_all_regions_stand(path: Path) -> None:
    """Only the script hides a region, by a class that only screens heed."""
    page = Page(path)
    assert all("hidden" not in section for section in page.all("section"))
    assert all("hidden" in fieldset for fieldset in page.all("fieldset") if fieldset.get("class") == "regions")
    assert "@media screen { .region.away { display: none; } }" in path.read_text()
    assert path.read_text().count(".away") == path.read_text().count(".region.away")


def test_overlap_stands_in_one_table_of_results_and_in_every_file(path: Path) -> None:
    text = path.read_text()
    tables = text.split('<table class="results sortable">')[1:]
    heads = [table[: table.index("</thead>")] for table in tables]
    assert ["DSC" in head for head in heads] == [True, *[False] * (len(heads) - 1)]
    assert text.count("Highest DSC:") == 1
    latex = [file.read_text() for file in (path.parent / "report_tables").glob("*.tex")]
    assert len(latex) == len(heads)
    assert all("DSC" in content for content in latex)


def test_a_region_without_a_voxel_is_one_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"loss_name": "ce", "seed": 1}, [0, 1])
    (run,) = read_runs([tmp_path])
    gone = {name for name, metric in run.metrics.items() if metric.region == "predicted"}
    values = {name: np.full_like(of, np.nan) if name in gone else of for name, of in run.values.items()}
    bins = {place: np.zeros_like(of) if place[0] == "predicted" else of for place, of in run.bins.items()}
    summary = {name: np.nan if "_predicted" in name else value for name, value in run.summary.items()}
    empty = Run(**{**vars(run), "values": values, "bins": bins, "summary": summary})
    part = part_of(compare([empty])[0])
    assert part.empty == ("Protocol by_region: predicted foreground",)
    assert len(part.regions) == REGIONS - 1
    assert part_of(compare([run])[0]).empty == ()
