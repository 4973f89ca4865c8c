"""The page on a calibration, from the files that a real calibration left."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_page import HOSTILE, Page

from monai_calib.posthoc import METHODS, LogitCase, build_calibrator, fit
from monai_calib.report import calibration_page
from monai_calib.report.case_tables import RunError
from monai_calib.report.protocols import region_in_words


@pytest.fixture(scope="module")
def content(calibrated: Path) -> dict[str, Any]:
    return dict(json.loads((calibrated / "before_after.json").read_text()))


@pytest.fixture(scope="module")
def page(calibrated: Path) -> Page:
    path = calibration_page(calibrated)
    assert path == calibrated / "before_after.html"
    return Page(path)


def rewritten(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "before_after.json").write_text(json.dumps(content))
    return folder


def test_tables_have_every_figure_before_and_after(page: Page, content: dict[str, Any]) -> None:
    shown = [attributes["data-value"] for attributes in page.all("td") if "data-value" in attributes]
    for method in ("before", "temperature", "isotonic"):
        for name, value in content["summary"][method].items():
            assert f"{value:.6g}" in shown, (method, name)
    for method in ("temperature", "isotonic"):
        assert f"{content['change'][method]['nll_all'][0]:.6g}" in shown


def test_says_what_was_fitted_and_on_what(page: Page, content: dict[str, Any]) -> None:
    text = " ".join(page.text.split())
    weight = content["fits"]["temperature"]["state"]["weight"][0][0]
    assert f"temperature {1 / weight:.4g}" in text
    assert "loss name dice_ce" in text
    assert "Flattering." in text
    assert f"{content['fits']['temperature']['fit']['voxels']:,}" in text


def test_diagrams_of_every_region_hold_both_curves(page: Page, content: dict[str, Any]) -> None:
    diagrams = [figure for figure in page.figures if "yaxis2" in figure["plot"]["layout"]]
    assert len(diagrams) == len(content["bins"]["before"]) == 7
    for figure in diagrams:
        names = {trace["name"] for trace in figure["plot"]["data"]}
        assert names == {"perfect", "before", "temperature", "isotonic"}
        assert any(trace.get("fill") == "toself" for trace in figure["plot"]["data"]), "intervals"


def test_cases_that_changed_are_points(page: Page, content: dict[str, Any]) -> None:
    figure = next(f for f in page.figures if f["plot"]["layout"]["xaxis"]["title"]["text"] == "NLL after minus before")
    trace = next(trace for trace in figure["plot"]["data"] if trace["name"] == "temperature")
    for x, case, region in zip(trace["x"], trace["text"], trace["y"], strict=True):
        if region == region_in_words("all"):
            row = content["cases"][case]
            assert x == pytest.approx(row["temperature"]["nll_all"] - row["before"]["nll_all"], rel=1e-4)


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    assert all(str(link["href"]).startswith("#") for link in page.all("a"))
    assert page.all("img") == page.all("link") == []
    assert len(page.all("caption")) == len(page.all("table"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert {link["href"] for link in page.all("a")} <= {f"#{name}" for name in ids}


def test_fits_that_failed_are_warned_of_and_text_stays_text(content: dict[str, Any], tmp_path: Path) -> None:
    changed = json.loads(json.dumps(content))
    changed["fits"]["temperature"]["fit"] |= {"status": "at bound", "message": HOSTILE}
    changed["run"]["bundle"] = HOSTILE
    path = calibration_page(rewritten(tmp_path, changed))
    assert path is not None
    page = Page(path)
    assert "temperature: at bound." in page.text
    assert page.text.count(HOSTILE) >= 2
    assert not any("onerror" in attributes for _, attributes in page.elements)


def test_files_without_bins_give_a_page_without_diagrams(content: dict[str, Any], tmp_path: Path) -> None:
    older = {key: value for key, value in content.items() if key != "bins"}
    path = calibration_page(rewritten(tmp_path, older))
    assert path is not None
    assert not [figure for figure in Page(path).figures if "yaxis2" in figure["plot"]["layout"]]


def test_without_the_extra_the_page_is_left_out_and_a_line_says_so(
    calibrated: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    folder = rewritten(tmp_path, json.loads((calibrated / "before_after.json").read_text()))
    with caplog.at_level(logging.WARNING):
        assert calibration_page(folder) is None
    assert "pip install monai_calib[report]" in caplog.text
    assert [path.name for path in folder.iterdir()] == ["before_after.json"]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_what_any_method_has_fitted_is_said(content: dict[str, Any], tmp_path: Path, method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 8, 8, 8, generator=generator)
    label = torch.randint(0, 3, (8, 8, 8), generator=generator)
    calibrator = build_calibrator(method, 3, "all")
    fit([calibrator], [LogitCase("a", logits, label, image=logits[:1], spacing=(1.0, 1.0, 1.0))])
    fits = content["fits"] | {"temperature": {**content["fits"]["temperature"], **calibrator.to_json()}}
    path = calibration_page(rewritten(tmp_path, content | {"fits": fits}))
    assert path is not None
    assert calibrator.record.status in Page(path).text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "else"}, "expected format"),
        ({"summary": {}}, "key 'before' is missing"),
        ({"fits": {"temperature": {}}}, "is missing"),
        ({"protocols": 3}, "not a complete"),
    ],
)
def test_files_that_do_not_fit_are_named(
    content: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError, match=message) as caught:
        calibration_page(rewritten(tmp_path, content | change))
    assert "before_after.json" in str(caught.value)


def test_undefined_figures_are_dashes(content: dict[str, Any], tmp_path: Path) -> None:
    changed = json.loads(json.dumps(content))
    for method in changed["summary"]:
        changed["summary"][method]["nll_all_macro"] = None
    for method in changed["change"]:
        changed["change"][method]["nll_all"] = [None, None, None]
    for row in changed["cases"].values():
        for figures in row.values():
            figures["nll_all"] = None
    path = calibration_page(rewritten(tmp_path, changed))
    assert path is not None
    assert "nan" not in Page(path).text.lower().split()
