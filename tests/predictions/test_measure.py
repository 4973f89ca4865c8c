"""``measure``: every format gives the figures of the handlers, and what the folder says can be read back."""

from __future__ import annotations

import json
import pickle
import weakref
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import MeanDice
from monai.networks.utils import one_hot
from stored_maps import AFFINE, CLASSES, FORMATS, SHAPE, case_name, softmax, volume, write_data, write_label, write_map

from monai_calib.__main__ import main
from monai_calib.handlers import CalibrationHandler
from monai_calib.handlers.surface import SurfaceHandler
from monai_calib.metrics.evaluated import Evaluated, read_evaluated
from monai_calib.predictions.cases import StoredCases
from monai_calib.predictions.classes import Classes
from monai_calib.predictions.settings import Settings
from monai_calib.predictions.values import HALF_FLOOR

PROTOCOLS = ["--protocols", "by_region"]
NAMED = ["--classes", "background=0", "organ=1", "lesion=2"]


def measured(root: Path, *more: str) -> Evaluated:
    arguments = ["measure", str(root / "maps"), str(root / "labels"), str(root / "run"), *PROTOCOLS, *more]
    assert main(arguments) == 0
    return read_evaluated(root / "run" / "eval")


def by_handlers(count: int) -> dict[str, float]:
    """What an evaluator with the bundles' handlers finds for the same probabilities and labels."""

    def batch(number: int) -> dict[str, list[torch.Tensor]]:
        logits, label = volume(number)
        prob = torch.from_numpy(softmax(logits))
        meta = {"filename_or_obj": f"{case_name(number)}.nii.gz"}
        truth = MetaTensor(torch.from_numpy(label)[None].float(), affine=torch.from_numpy(AFFINE), meta=meta)
        return {"prob": [prob], "label": [truth], "pred": [prob.argmax(0, keepdim=True)]}

    evaluator = Engine(lambda engine, number: batch(number))
    CalibrationHandler(3, ["by_region"], lambda out: (out["prob"], out["label"]), class_names=CLASSES).attach(evaluator)
    SurfaceHandler(3, output_transform=lambda out: (out["pred"], out["label"]), class_names=CLASSES).attach(evaluator)
    dice = MeanDice(
        include_background=False,
        output_transform=lambda out: (
            [one_hot(out["pred"][0][None], 3)[0]],
            [one_hot(out["label"][0].as_tensor()[None], 3)[0]],
        ),
    )
    dice.attach(evaluator, "mean_dice")
    evaluator.run(range(count))
    return {name: float(value) for name, value in evaluator.state.metrics.items()}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_what_the_bundles_handlers_give(kind, tmp_path):
    write_data(tmp_path, 3, kind)
    found = measured(tmp_path, *NAMED)
    expected = by_handlers(3)
    assert set(expected) == set(found.summary)
    for name, value in expected.items():
        assert found.summary[name] == pytest.approx(value, rel=1e-5, abs=1e-7, nan_ok=True), name
    assert found.classes == tuple(CLASSES)
    assert [case.case for case in found.cases] == [case_name(i) for i in range(3)]
    assert all(case.spacing == pytest.approx((1.0, 1.0, 2.0)) for case in found.cases)
    assert sorted(path.stem for path in (tmp_path / "run/eval/previews").iterdir()) == [case_name(i) for i in range(3)]


def test_logits_give_what_their_softmax_gives(tmp_path):
    write_data(tmp_path / "a", 2, "nifti")
    write_data(tmp_path / "b", 2, "nifti", logits=True)
    first, second = measured(tmp_path / "a"), measured(tmp_path / "b", "--logits", "True")
    for name, value in first.summary.items():
        assert second.summary[name] == pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True), name


def test_zeros_of_float16_are_floored_and_told(tmp_path, capsys):
    logits, label = volume(0)
    values = softmax(6 * logits)
    write_label(tmp_path / "labels", 0, label)
    write_map(tmp_path / "maps", 0, values, "npz", np.float16)
    found = measured(tmp_path)
    half = values.astype(np.float16)
    share = float((half == 0).mean())
    assert share > 0.05
    assert f"{100 * share:.2g} % of the probabilities were 0" in capsys.readouterr().out
    kept = np.maximum(half.astype(np.float64), HALF_FLOOR)
    kept /= kept.sum(0)
    expected = -np.log(np.take_along_axis(kept, label[None].astype(int), 0)).mean()
    assert found.summary["nll_all_macro"] == pytest.approx(expected, rel=1e-4)


def test_float16_that_was_widened_is_floored_too(tmp_path):
    logits, label = volume(0)
    values = softmax(6 * logits).astype(np.float16).astype(np.float32)
    write_label(tmp_path / "labels", 0, label)
    write_map(tmp_path / "maps", 0, values, "nifti")
    case = next(iter(StoredCases(Settings(tmp_path / "maps", tmp_path / "labels", Classes()))))
    assert case.floored == int((values == 0).sum()) > 0
    assert float(case.probabilities.min()) >= HALF_FLOOR * 0.999


def test_percent_in_bytes_with_a_scale(tmp_path):
    logits, label = volume(0)
    values = np.rint(200 * softmax(logits)).astype(np.uint8)
    values[0] += (200 - values.sum(0)).astype(np.uint8)  # wraps around where it must be less
    write_label(tmp_path / "labels", 0, label)
    (tmp_path / "maps").mkdir()
    image = nib.Nifti1Image(values.transpose(1, 2, 3, 0), AFFINE)
    image.header.set_slope_inter(1 / 200, 0)
    nib.save(image, tmp_path / "maps" / f"{case_name(0)}.nii.gz")
    case = next(iter(StoredCases(Settings(tmp_path / "maps", tmp_path / "labels", Classes()))))
    assert float(case.probabilities.min()) == pytest.approx(1 / 400, rel=0.02)
    np.testing.assert_allclose(case.probabilities.sum(0), 1, atol=0.01)


def test_classes_by_value_ignored_voxels_and_subjects(tmp_path):
    logits, label = volume(0)
    other = np.array([0, 4, 7], np.uint8)[label]
    other[:3] = 9
    write_label(tmp_path / "labels", 0, other)
    write_map(tmp_path / "maps", 0, softmax(logits))
    named = ["--classes", "background=0", "organ=4", "lesion=7", "--ignore_index", "9"]
    found = measured(tmp_path, *named, "--subjects", r"(patient\d+)_")
    p = softmax(logits)[:, 3:]
    expected = -np.log(np.take_along_axis(p, label[None, 3:].astype(int), 0)).mean()
    assert found.summary["nll_all_macro"] == pytest.approx(expected, rel=1e-4)
    assert [case.subject for case in found.cases] == ["patient00"]


def test_names_come_from_a_dataset_json_and_subjects_from_a_table(tmp_path, capsys):
    write_data(tmp_path, 2)
    names = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names, "numTraining": 2}))
    (tmp_path / "who.csv").write_text("case,subject\n" + "".join(f"{case_name(i)},s{i}\n" for i in range(3)))
    write_label(tmp_path / "labels", 2, volume(2)[1])  # as in a fold: a label that has no map
    found = measured(tmp_path, "--subjects", str(tmp_path / "who.csv"))
    assert found.classes == tuple(CLASSES)
    assert [case.subject for case in found.cases] == ["s0", "s1"]
    assert f"Left out, 1 label without a map: {case_name(2)}" in capsys.readouterr().out


def test_another_order_of_axes(tmp_path):
    logits, label = volume(0)
    write_label(tmp_path / "labels", 0, label)
    (tmp_path / "maps").mkdir()
    np.savez(tmp_path / "maps" / f"{case_name(0)}.npz", softmax=softmax(logits).transpose(2, 1, 3, 0))
    write_data(tmp_path / "usual", 1)
    found = measured(tmp_path, "--axes", "yxzk")
    assert found.summary == pytest.approx(measured(tmp_path / "usual").summary, nan_ok=True)


def test_maps_cut_to_a_box_as_nnunet_v1_writes_them(tmp_path):
    logits, label = volume(0)
    label[:2], label[:, :, 6] = 0, 0
    box = [[0, 6], [0, 9], [2, 12]]  # z, y, x
    whole = np.zeros_like(logits)
    whole[0] = 1
    whole[:, 2:, :, :6] = softmax(logits)[:, 2:, :, :6]
    write_label(tmp_path / "labels", 0, label)
    (tmp_path / "maps").mkdir()
    path = tmp_path / "maps" / f"{case_name(0)}"
    np.savez(path.with_suffix(".npz"), softmax=whole[:, 2:, :, :6].transpose(0, 3, 2, 1).astype(np.float16))
    path.with_suffix(".json").write_text(json.dumps({"crop_bbox": box, "original_size_of_raw_data": SHAPE[::-1]}))
    case = next(iter(StoredCases(Settings(tmp_path / "maps", tmp_path / "labels", Classes()))))
    np.testing.assert_allclose(case.probabilities, whole, atol=6e-4)


@pytest.mark.parametrize("reader", ["nibabel", "itk"])
def test_maps_that_nnunet_turned_are_turned_to_the_label_and_back(reader, tmp_path):
    logits, label = volume(0)
    # the label's axes run to the inferior, left, posterior
    affine = np.array([[0, -1.0, 0, 5], [0, 0, -1.5, -3], [-2.0, 0, 0, 8], [0, 0, 0, 1]])
    (tmp_path / "labels").mkdir()
    (tmp_path / "maps").mkdir()
    nib.save(nib.Nifti1Image(label, affine), tmp_path / "labels" / f"{case_name(0)}.nii.gz")
    values = softmax(logits)
    turned = values.transpose(0, 2, 3, 1)[:, ::-1, ::-1, ::-1]  # to the right, anterior, superior
    origin = affine @ [SHAPE[0] - 1, SHAPE[1] - 1, SHAPE[2] - 1, 1]
    reoriented = np.array([[1.0, 0, 0, origin[0]], [0, 1.5, 0, origin[1]], [0, 0, 2.0, origin[2]], [0, 0, 0, 1]])
    if reader == "nibabel":
        said = {"nibabel_stuff": {"original_affine": affine, "reoriented_affine": reoriented}}
    else:
        itk = {"spacing": (1.0, 1.5, 2.0), "direction": (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)}
        said = {"sitk_stuff": {**itk, "origin": origin[:3] * [-1, -1, 1], "original_orientation": "ILP"}}
    path = tmp_path / "maps" / f"{case_name(0)}.npz"
    np.savez(path, probabilities=turned.transpose(0, 3, 2, 1))
    path.with_suffix(".pkl").write_bytes(pickle.dumps({**said, "spacing": [2.0, 1.5, 1.0]}))
    cases = StoredCases(Settings(tmp_path / "maps", tmp_path / "labels", Classes()))
    case = next(iter(cases))
    np.testing.assert_array_equal(case.probabilities, values)
    assert case.spacing == (2.0, 1.0, 1.5)
    (tmp_path / "out").mkdir()
    cases.maps.write(case.name, tmp_path / "out", case.found, case.found.values)
    np.testing.assert_array_equal(
        np.load(tmp_path / "out" / path.name)["probabilities"], np.load(path)["probabilities"]
    )


def test_a_picture_is_a_volume_of_one_slice(tmp_path):
    from PIL import Image

    logits, label = volume(0, (12, 9, 1))
    (tmp_path / "labels").mkdir()
    Image.fromarray(label[..., 0].T).save(tmp_path / "labels" / f"{case_name(0)}.png")
    (tmp_path / "maps").mkdir()
    np.savez(tmp_path / "maps" / f"{case_name(0)}.npz", probabilities=softmax(logits).transpose(0, 3, 2, 1))
    found = measured(tmp_path)
    p = np.take_along_axis(softmax(logits), label[None].astype(int), 0)
    assert found.summary["nll_all_macro"] == pytest.approx(-np.log(p).mean(), rel=1e-4)


def test_one_case_is_in_memory_at_a_time(tmp_path):
    write_data(tmp_path, 4)
    cases = StoredCases(Settings(tmp_path / "maps", tmp_path / "labels", Classes()))
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    for case in cases:
        alive.add(case.probabilities)
        assert len(alive) == 1
        del case


def test_folders_are_kept_relative_so_that_all_can_be_moved(tmp_path):
    write_data(tmp_path / "a", 2)
    measured(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    said = read_evaluated(tmp_path / "b/run/eval").run["maps"]
    assert str(tmp_path) not in json.dumps(said)
    settings = Settings.from_json(said, tmp_path / "b/run/eval", "a file")
    assert settings.probabilities == tmp_path / "b" / "maps"
    assert len(StoredCases(settings)) == 2


def test_the_report_names_it_and_shows_no_path(tmp_path):
    pytest.importorskip("plotly")
    write_data(tmp_path, 2)
    measured(tmp_path, "--name", "my network")
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "run"), "--output", str(page)]) == 0
    text = page.read_text()
    assert "my network" in text
    assert "../maps" not in text


REAL = Path(__file__).resolve().parents[2].parent / "shared/data"


@pytest.mark.real_data
def test_real_labels_with_soft_copies_of_themselves(tmp_path):
    import os

    folder = Path(os.environ.get("MONAI_CALIB_DATA", REAL)) / "Task04_Hippocampus"
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}")
    (tmp_path / "maps").mkdir()
    for path in sorted((folder / "labelsTr").glob("[!.]*.nii.gz"))[:3]:
        label = np.asarray(nib.nifti1.load(path).dataobj).astype(int)
        soft = 0.9 * np.stack([label == k for k in range(3)]) + 0.1 / 3
        case = path.name.removesuffix(".nii.gz")
        np.savez_compressed(
            tmp_path / "maps" / f"{case}.npz", probabilities=soft.transpose(0, 3, 2, 1).astype(np.float32)
        )
    arguments = ["measure", str(tmp_path / "maps"), str(folder / "labelsTr"), str(tmp_path / "run")]
    assert main(arguments) == 0
    found = read_evaluated(tmp_path / "run/eval")
    assert found.classes == ("background", "Anterior", "Posterior")
    assert found.summary["mean_dice"] == 1
    # always right with 0.9333: under-confident by the rest
    assert found.summary["ece_all_15bins_macro"] == pytest.approx(0.1 * 2 / 3, abs=1e-5)
    assert found.summary["nll_all_macro"] == pytest.approx(-np.log(0.9 + 0.1 / 3), abs=1e-5)


def test_bands_on_voxels_of_4_mm_are_of_voxels_and_hold_some(tmp_path: Path) -> None:
    write_data(tmp_path, 2)
    given = [str(tmp_path / name) for name in ("maps", "labels", "run")]
    assert main(["measure", *given, "--spacing", "4", "4", "4"]) == 0
    found = read_evaluated(tmp_path / "run" / "eval")
    assert {name for name in found.regions if name.startswith("boundary")} == {"boundary2vx"}
    assert all(float(histogram.bins(15).count.sum()) > 0 for histogram in found.histograms("boundary2vx"))
