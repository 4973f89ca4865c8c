"""``--save_probabilities True``: what is written is what was predicted, and ``measure`` finds the bundle's figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
from bundle_runs import run_bundle, small_networks
from numpy.typing import NDArray
from PIL import Image
from random_network import infer, save_random_weights
from small_data import write_data

from monai_calib.__main__ import main
from monai_calib.bundling.bundle import bundle_data

# Axes of the file run to the left, to the back and upwards, between voxels of three sizes, somewhere else than at 0.
PLACE = np.array([[0, -1.0, 0, 31.0], [-1.0, 0, 0, 12.0], [0, 0, 1.0, -7.0], [0, 0, 0, 1]])
PARTS = ("prob_0_background", "prob_1_cube_1", "prob_2_cube_2")


class Made(NamedTuple):
    """A bundle with random weights, its data folder, and images and labels of the test split by the case's name."""

    bundle: Path
    data: Path
    images: Path
    labels: Path


def make(root: Path, sharpness: float, **described: Any) -> Made:
    data = write_data(root / "data", **described)
    for path in (data / "files").iterdir():
        volume = nib.load(path)
        place = PLACE if described.get("unit") != "px" else np.diag([1.0, -1.0, 1.0, 1.0])
        nib.save(nib.Nifti1Image(np.asarray(volume.dataobj).copy(), place), path)
    bundle = bundle_data(data, root / "cubes_segmentation").folder
    save_random_weights(bundle, sharpness, calibrated=sharpness / 2)
    for folder, kind in (("images", "image"), ("labels", "label")):
        (root / folder).mkdir()
        for case in json.loads((data / "datalist.json").read_text())["test"]:
            shutil.copy(data / case[kind], root / folder / f"{case['case']}.nii.gz")
    return Made(bundle, data, root / "images", root / "labels")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("volumes"), sharpness=1, shape=(36, 44, 20))


def maps_of(folder: Path, case: str) -> NDArray[np.float32]:
    return np.stack([np.asarray(nib.load(folder / f"{case}_{part}.nii.gz").dataobj) for part in PARTS])


def summary(run: Path) -> dict[str, float]:
    return json.loads((run / "eval" / "calibration.json").read_text())["summary"]


def test_a_file_per_class_on_the_grid_of_the_image_rounded_to_float16(volumes: Made, tmp_path: Path) -> None:
    infer(volumes.bundle, volumes.images, tmp_path, save_probabilities=True)
    for image in volumes.images.iterdir():
        case = image.name.removesuffix(".nii.gz")
        for part in PARTS:
            written, original = nib.load(tmp_path / f"{case}_{part}.nii.gz"), nib.load(image)
            assert written.get_data_dtype() == np.float32
            assert written.shape == original.shape == (36, 44, 20)
            np.testing.assert_allclose(written.affine, original.affine, atol=1e-5)
        maps = maps_of(tmp_path, case)
        np.testing.assert_array_equal(maps, maps.astype(np.float16).astype(np.float32))
        np.testing.assert_allclose(maps.sum(0), 1, atol=1e-3)
        labels, percent = (
            np.asarray(nib.load(tmp_path / f"{case}_{kind}.nii.gz").dataobj) for kind in ("seg", "confidence")
        )
        assert len(np.unique(labels)) > 1
        chosen = np.take_along_axis(maps, labels[None].astype(int), 0)[0]
        np.testing.assert_array_equal(chosen, maps.max(0))
        assert np.abs(100 * chosen - percent).max() <= 0.5 + 100 * 2.0**-12


def test_corrected_probabilities_are_written_when_the_corrected_model_is_asked_for(
    volumes: Made, tmp_path: Path
) -> None:
    """At temperature 2, a probability becomes its square root, normalised."""
    plain = infer(volumes.bundle, volumes.images, tmp_path / "plain", save_probabilities=True)
    corrected = infer(volumes.bundle, volumes.images, tmp_path / "hot", save_probabilities=True, calibrated=True)
    for path in volumes.images.iterdir():
        case = path.name.removesuffix(".nii.gz")
        roots = np.sqrt(maps_of(plain, case))
        np.testing.assert_allclose(maps_of(corrected, case), roots / roots.sum(0), atol=2e-3)
        assert np.abs(maps_of(corrected, case) - maps_of(plain, case)).max() > 0.01


def both_summaries(made: Made, root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Any, Any, str]:
    """Of the evaluation by the bundle, and by ``measure`` of the maps it wrote; and what measure said."""
    run = root / "run"
    shutil.copytree(made.bundle / "models", run / "models")
    run_bundle(made.bundle, "evaluate", dataset_dir=str(made.data), run_dir=str(run), **small_networks(made.bundle))
    infer(made.bundle, made.images, root / "maps", save_probabilities=True)
    capsys.readouterr()
    assert main(["measure", str(root / "maps"), str(made.labels), str(root / "measured")]) == 0
    return summary(run), summary(root / "measured"), capsys.readouterr().out


def assert_the_same_figures(expected: dict[str, float], found: dict[str, float]) -> None:
    """Up to rounding: an ECE also moves where a probability is rounded across the edge of a bin."""
    rounding = {"nll_all_macro": 1e-4, "brier_all_macro": 1e-4, "classwise_ece_all_15bins_macro": 1e-4}
    for name, most in {**rounding, "ece_all_15bins_macro": 2e-3, "ece_foreground_15bins_macro": 2e-3}.items():
        assert expected[name] > 0.02
        assert found[name] == pytest.approx(expected[name], abs=most), name


def test_measure_finds_what_the_bundle_evaluated(
    volumes: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, found, _ = both_summaries(volumes, tmp_path, capsys)
    assert_the_same_figures(expected, found)
    classes = json.loads((tmp_path / "measured" / "eval" / "calibration.json").read_text())["classes"]
    assert classes == ["background", "cube_1", "cube_2"]


def test_measure_finds_the_same_in_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(tmp_path, sharpness=1, shape=(52, 40, 1), unit="px")
    for path in made.images.iterdir():
        pixels = np.asarray(nib.load(path).dataobj)[..., 0].T
        Image.fromarray(np.ascontiguousarray(pixels)).save(path.with_name(path.name.replace(".nii.gz", ".png")))
        path.unlink()
    expected, found, said = both_summaries(made, tmp_path, capsys)
    assert_the_same_figures(expected, found)
    assert "png_per_class" in said


def test_measure_says_what_rounding_has_made_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(tmp_path, sharpness=2000, shape=(36, 44, 20))
    _, found, said = both_summaries(made, tmp_path, capsys)
    assert "probabilities were 0 after rounding" in said
    assert np.isfinite(found["nll_all_macro"])
