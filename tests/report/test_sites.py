"""One network on several data sets: figures side by side, and what becomes of a correction elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_runs import write_run

from monai_calib.report import write_report
from monai_calib.report.comparison import compare
from monai_calib.report.runs import read_runs
from monai_calib.report.sites import HOME, Sites, sites_of
from monai_calib.report.statistics import bootstrap_mean

RUN = {"bundle": "phantom_segmentation_3d", "loss_name": "ce", "network_name": "unet", "seed": 1, "split": "test"}
FITTED = {"posthoc": "temperature", "posthoc_region": "all"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that is over-confident at home, right at B and still more over-confident at C, and one temperature."""
    root = tmp_path_factory.mktemp("sites")
    for site, cases, before, after in (
        (None, range(8), 0.45, 0.9),
        ("B", range(20, 28), 1.0, 2.0),
        ("C", range(40, 48), 0.25, 0.5),
    ):
        place = {} if site is None else {"site": site}
        write_run(root / "trained" / str(site), {**RUN, **place}, cases, temperature=before)
        write_run(root / "calibrated" / str(site), {**RUN, **FITTED, **place}, cases, temperature=after)
    write_run(root / "validation", {**RUN, "split": "validation"}, range(60, 64), temperature=0.45)
    return root


@pytest.fixture(scope="module")
def sites(folder: Path) -> Sites:
    found = sites_of(compare(read_runs([folder])))
    assert found is not None
    return found


def test_each_method_has_a_line_a_data_set_home_first(sites: Sites) -> None:
    lines = [(row.method, row.site, row.cases) for row in sites.rows]
    assert [site for _, site, _ in lines] == [HOME, "B", "C"] * 2
    assert {cases for _, _, cases in lines} == {8}
    assert len({method for method, _, _ in lines}) == 2
    assert [column.metric.kind for column in sites.columns] == ["dice", "ece", "ece", "nll"]


def test_figures_and_changes_are_those_of_the_cases(folder: Path, sites: Sites) -> None:
    number = [column.metric.kind for column in sites.columns].index("nll")
    name = sites.columns[number].metric.name
    for place in ("None", "B"):
        before, after = (read_runs([folder / kind / place])[0] for kind in ("trained", "calibrated"))
        rows = [row for row in sites.rows if row.site == (HOME if place == "None" else place)]
        assert [row.cells[number].interval.value for row in rows] == pytest.approx(
            [before.values[name].mean(), after.values[name].mean()]
        )
        assert rows[0].changes[number] is None
        expected = bootstrap_mean(after.values[name] - before.values[name], before.subjects)
        assert rows[1].changes[number] == pytest.approx(expected)


def test_what_becomes_of_a_correction_is_said(sites: Sites) -> None:
    of_paper = [sentence for sentence in sites.readings if sites.columns[1].title in sentence]
    assert len(of_paper) == 2
    assert "and loses at B: -" in of_paper[0]
    assert "of that at C: " in of_paper[1]
    assert all("at home" in sentence for sentence in sites.readings)
    assert not any(sites.columns[0].title in sentence for sentence in sites.readings)  # a temperature moves no label


def test_without_a_site_there_is_no_such_section(folder: Path, tmp_path: Path) -> None:
    home = [folder / "trained" / "None", folder / "calibrated" / "None", folder / "validation"]
    assert sites_of(compare(read_runs(home))) is None
    assert 'id="sites"' not in write_report(home, tmp_path / "home.html").read_text()
    page = write_report([folder], tmp_path / "all.html").read_text()
    assert 'id="sites"' in page
    assert "phantom_segmentation_3d at B" in page
    assert "and loses at B" in page


def test_two_sites_whose_cases_have_the_same_names_stay_apart(tmp_path: Path) -> None:
    for site in ("A", "B"):
        write_run(tmp_path / site, {**RUN, "site": site}, range(4), temperature=1.0 if site == "A" else 0.4)
    found = sites_of(compare(read_runs([tmp_path])))
    assert found is not None
    assert [row.site for row in found.rows] == ["A", "B"]
    assert found.rows[0].cells != found.rows[1].cells
    assert found.readings == ()
