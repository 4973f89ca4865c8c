"""The page, the row and the maps of a case."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_calib.clinical import ClinicalModel, TooFewSubjectsWarning
from monai_calib.report import ClinicalReportd
from monai_calib.report.case_page import case_page, case_row
from monai_calib.report.case_slices import outline, slice_views

NAMES = ["background", "liver", "<b>tumour</b>"]
SHAPE = (24, 20, 6)
AFFINE = np.diag([-1.0, -1.0, 4.0, 1.0])


def case(seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    label = torch.zeros(shape, dtype=torch.long)
    label[4:14, 5:15] = 1
    label[6:9, 7:11] = 2
    noise = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))
    return (6 * torch.nn.functional.one_hot(label, 3).movedim(-1, 0) + noise).softmax(0), label


def fitted(shape: tuple[int, ...] = SHAPE, unit: str = "mm", subjects: int = 12) -> ClinicalModel:
    model = ClinicalModel(NAMES, unit=unit)
    for seed in range(subjects):
        model.update(*case(seed, shape), (1.0, 1.0, 4.0), str(seed))
    with pytest.warns(TooFewSubjectsWarning):  # of failed cases there are none
        model.fit()
    model.about["model"] = "model.pt"
    return model


@pytest.fixture(scope="module")
def model() -> ClinicalModel:
    return fitted()


class Balanced(HTMLParser):
    """Checks that elements close in the order in which they opened."""

    empty = frozenset({"meta", "link", "br", "img", "image", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.empty:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.empty:
            assert self.open.pop() == tag


def test_the_page_is_one_file_and_names_are_text(model: ClinicalModel) -> None:
    p, _ = case(50)
    page = case_page("<script>x</script>", model.apply(p, (1.0, 1.0, 4.0)), model, np.zeros(SHAPE), AFFINE)
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert "script" not in parser.seen
    assert "b" not in parser.seen
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "default-src 'none'" in page
    assert parser.seen.count("svg") == 3
    assert "No reason found to check it" in page
    assert "for 90 % of subjects" in page


def test_reasons_and_what_cannot_be_promised_are_said(model: ClinicalModel) -> None:
    unsure = (case(51)[0].log() / 8).softmax(0)
    said = model.apply(unsure, (1.0, 1.0, 4.0))
    page = case_page("a", said, model, np.zeros(SHAPE), AFFINE)
    assert "Check this case" in page
    assert page.count("expected Dice 0.") == len(said.reasons) > 0
    few = fitted(subjects=3)
    page = case_page("a", few.apply(unsure, (1.0, 1.0, 4.0)), few, np.zeros(SHAPE), AFFINE)
    assert page.count("none can be promised") == 2
    assert "no margin: held by 3 validation subjects, the promise needs 9" in page
    assert "with its margin" not in page
    assert "every voxel may be of more than one class" in page
    assert "No interval, margin or set is promised: 90 % needs 9 subjects, the fit had 3." in page


def test_the_row_is_what_was_said(model: ClinicalModel) -> None:
    said = model.apply(case(52)[0], (1.0, 1.0, 4.0))
    row = case_row("a", said, model)
    one = said.structures[0]
    assert float(row["liver ml"]) == pytest.approx(one.volume.ml, abs=1e-4)
    assert float(row["liver high_ml"]) == pytest.approx(one.volume.high_ml, abs=1e-4)
    assert float(row["liver margin_mm"]) == pytest.approx(one.margin.mm, rel=1e-3)
    few = fitted(subjects=3)
    row = case_row("a", few.apply(case(52)[0], (1.0, 1.0, 4.0)), few)
    assert (row["liver high_ml"], row["liver margin_mm"]) == ("", "")
    assert row["liver ml"] != ""


def test_volumes_of_pictures_are_in_pixels() -> None:
    shape = (24, 20, 1)
    model = fitted(shape, "px")
    said = model.apply(case(53, shape)[0], (1.0, 1.0, 1.0))
    row = case_row("a", said, model)
    assert float(row["liver label_px"]) == float((said.label == 1).sum())
    assert "expected volume, px" in case_page("a", said, model, np.zeros(shape), np.diag([1.0, -1, 1, 1]), False)


def written(folder: Path, model: ClinicalModel, file: str, shape: tuple[int, ...] = SHAPE) -> None:
    p, _ = case(54, shape)
    image = MetaTensor(torch.zeros(1, *shape), affine=torch.from_numpy(AFFINE), meta={"filename_or_obj": file})
    steps = ClinicalReportd(model, folder, names=["0_background", "1_liver", "2_tumour"])
    for name in (file, file.replace("scan", "other")):
        image.meta["filename_or_obj"] = name
        steps({"image": image, "statement": model.apply(p, (1.0, 1.0, 4.0))})


def test_files_of_a_volume(model: ClinicalModel, tmp_path: Path) -> None:
    written(tmp_path, model, "/data/scan.nii.gz")
    kinds = [f"{kind}_{name}.nii.gz" for kind in ("margin", "set") for name in ("1_liver", "2_tumour")]
    expected = {f"{name}_{kind}" for name in ("scan", "other") for kind in kinds}
    assert {path.name for path in tmp_path.iterdir()} == expected | {"scan.html", "other.html", "clinical.csv"}
    with (tmp_path / "clinical.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["scan", "other"]
    p, _ = case(54)
    said = model.apply(p, (1.0, 1.0, 4.0))
    margin, possible = (nib.load(tmp_path / f"scan_{kind}_1_liver.nii.gz") for kind in ("margin", "set"))
    values = np.asarray(margin.dataobj)
    assert (values >= 1).sum() == int(said.margins[0].sum())
    assert (values == 2).sum() == int((said.label == 1).sum())
    sets = said.sets.numpy()
    assert (np.asarray(possible.dataobj) == np.where(sets[1], np.where(sets.sum(0) == 1, 2, 1), 0)).all()
    np.testing.assert_allclose(margin.affine, AFFINE)


def test_files_of_a_picture(tmp_path: Path) -> None:
    shape = (24, 20, 1)
    written(tmp_path, fitted(shape, "px"), "/data/scan.png", shape)
    picture = Image.open(tmp_path / "scan_set_1_liver.png")
    assert picture.size == (24, 20)
    assert picture.mode == "L"
    assert set(np.unique(np.asarray(picture))) <= {0, 1, 2}


def test_the_outline_goes_around_the_mask() -> None:
    mask = np.random.default_rng(0).random((9, 11)) < 0.5
    padded = np.pad(mask, 1).astype(int)
    edges = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    runs = re.findall(r"M(\d+) (\d+)([HV])(\d+)", outline(mask))
    assert sum(int(stop) - int(x if way == "H" else y) for x, y, way, stop in runs) == edges
    assert outline(np.zeros((3, 3), bool)) == ""


@pytest.mark.parametrize(
    ("codes", "sides"),
    [("LPS", ("R", "L", "A", "P")), ("RAS", ("R", "L", "A", "P")), ("LAS", ("R", "L", "A", "P"))],
)
def test_slices_are_turned_as_radiologists_look_at_them(codes: str, sides: tuple[str, ...]) -> None:
    signs = [1.0 if code in "RAS" else -1.0 for code in codes]
    affine = np.diag([*np.array(signs) * [1, 1, 3], 1])
    label = np.zeros((20, 30, 5), int)
    left = 2 if signs[0] > 0 else 17  # one voxel at the patient's left, in front
    front = 27 if signs[1] > 0 else 2
    right = 19 - left
    label[left, front] = 1
    view = slice_views(label * 1.0, label, (label > 0)[None], label > 9, affine, ["a"], most=1)[0]
    assert view.sides == sides
    x, y = map(int, re.match(r"M(\d+) (\d+)", view.outlines[0].path).groups())
    assert y < view.height / 2  # front on top
    corner = label.copy() * 0
    corner[left, front] = corner[right, 29 - front] = 1
    both = slice_views(corner * 1.0, corner, (corner > 0)[None], corner > 9, affine, ["a"], most=1)[0]
    points = {(int(a), int(b)) for a, b in re.findall(r"M(\d+) (\d+)H", both.outlines[0].path)}
    assert max(points, key=lambda point: -point[1])[0] > both.width / 2  # the patient's left on the right
    assert x >= 0


def test_a_picture_is_shown_as_it_is_stored() -> None:
    label = np.zeros((20, 30, 1), int)
    label[2, 3] = 1
    view = slice_views(
        label * 1.0, label, np.zeros((1, 20, 30, 1), bool), label > 9, np.diag([1.0, -1, 1, 1]), ["a"], False
    )
    assert view[0].sides == ("", "", "", "")
    x, y = map(int, re.match(r"M(\d+) (\d+)", view[0].outlines[0].path).groups())
    assert (x, y) == (2, 3)
    assert math.isclose(view[0].aspect, view[0].width / view[0].height)


def test_nothing_predicted_shows_the_middle() -> None:
    empty = np.zeros(SHAPE, int)
    views = slice_views(empty * 1.0, empty, np.ones((2, *SHAPE), bool), empty > 9, AFFINE, ["a", "b"])
    assert [view.name for view in views] == ["slice 4 of 6"]
    assert views[0].outlines == ()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    chromium: Any, violations: Callable[[Any], list[str]], model: ClinicalModel, tmp_path: Path, width: int, scheme: str
) -> None:
    image = np.random.default_rng(0).normal(size=SHAPE)
    address = tmp_path / "case.html"
    address.write_text(case_page("a", model.apply(case(40)[0], (1.0, 1.0, 4.0)), model, image, AFFINE))
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.goto(address.as_uri())
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert said == []
    context.close()
