"""clinical.json: one command from images to what a clinician is told, and the file it needs."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
from bundle_runs import BUNDLES_FOLDER, config_files, run_bundle, small_networks, whole_story

from monai_calib.clinical import read_clinical_model

BUNDLES = [BUNDLES_FOLDER / f"msd_hippocampus_segmentation_{dims}d" for dims in (2, 3)]


@pytest.fixture(scope="module", params=BUNDLES, ids=["2d", "3d"])
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def run(bundle: Path, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one epoch, fitted for the clinic, and its word on every image of the phantom."""
    folder = tmp_path_factory.mktemp("run")
    settings = {**small_networks(bundle), "run_dir": str(folder), "num_workers": 0}
    run_bundle(bundle, "train", dataset_dir=str(phantom), epochs=1, seed=3, **settings)
    fit = {"split": "training", "level": 0.6, "share": 0.8, "false_alarms": 0.34}
    run_bundle(bundle, "clinical_fit", dataset_dir=str(phantom), **fit, **settings)
    run_bundle(bundle, "clinical", dataset_dir=str(phantom / "imagesTr"), **settings)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions" / "clinical.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_image_gets_a_row_a_page_and_maps(run: Path, phantom: Path) -> None:
    images = sorted(phantom.glob("imagesTr/*.nii.gz"))
    told = rows(run)
    assert [row["case"] for row in told] == [path.name.removesuffix(".nii.gz") for path in images]
    for row, path in zip(told, images, strict=True):
        image = nib.load(path)
        page = (run / "predictions" / f"{row['case']}.html").read_text(encoding="utf-8")
        assert f"<h1>{row['case']}</h1>" in page
        assert not re.search(r"(src|href)=\"(?!data:|#)", page)
        labels = np.asarray(nib.load(run / "predictions" / f"{row['case']}_seg.nii.gz").dataobj)
        for k, name in enumerate(("anterior", "posterior"), 1):
            margin, possible = (
                nib.load(run / "predictions" / f"{row['case']}_{kind}_{k}_{name}.nii.gz") for kind in ("margin", "set")
            )
            for written in (margin, possible):
                assert written.get_data_dtype() == np.uint8
                assert written.shape == image.shape
                np.testing.assert_allclose(written.affine, image.affine, atol=1e-4)
            margins, sets = np.asarray(margin.dataobj), np.asarray(possible.dataobj)
            assert ((margins == 2) == (labels == k)).all()
            assert (sets[labels == k] >= 1).all()
            assert float(row[f"{name} label_ml"]) == pytest.approx((labels == k).sum() * 0.008, abs=1e-4)
            low, high = float(row[f"{name} low_ml"]), float(row[f"{name} high_ml"])
            assert 0 <= low <= float(row[f"{name} ml"]) <= high


def test_labels_and_confidence_are_those_of_inference(bundle: Path, run: Path, phantom: Path, tmp_path: Path) -> None:
    settings = {**small_networks(bundle), "run_dir": str(run), "output_dir": str(tmp_path)}
    run_bundle(bundle, "inference", dataset_dir=str(phantom / "imagesTr"), **settings)
    for path in tmp_path.iterdir():
        before, now = nib.load(path), nib.load(run / "predictions" / path.name)
        np.testing.assert_array_equal(np.asarray(before.dataobj), np.asarray(now.dataobj))


def test_the_file_of_the_fit_speaks_of_this_network_and_of_nobody(run: Path, phantom: Path) -> None:
    file = run / "models" / "clinical.json"
    text = file.read_text(encoding="utf-8")
    cases = json.loads((phantom / "datalist.json").read_text())
    assert not [case for split in ("training", "test") for case in cases[split] if case["case"] in text]
    model = read_clinical_model(file, run / "models" / "model.pt")
    assert model.about["cases"] == len(cases["training"])
    assert model.about["split"] == "training"
    assert model.inputs is not None
    assert model.inputs.seen == model.about["subjects"]  # each subject once, though its split was read twice


def test_without_the_file_the_command_that_writes_it_is_named(
    bundle: Path, run: Path, phantom: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run / "models", tmp_path / "models").parent
    (copy / "models" / "clinical.json").unlink()
    settings = {**small_networks(bundle), "run_dir": str(copy), "dataset_dir": str(phantom / "imagesTr")}
    with pytest.raises(RuntimeError) as refused:
        run_bundle(bundle, "clinical", **settings)
    story = whole_story(refused.value)
    assert "clinical.json: no such file. Write it with: python -m monai.bundle run --config_file " in story
    assert "'configs/clinical_fit.json'" in story
    assert not (copy / "predictions").exists()


def test_another_network_than_the_fitted_one_is_refused(bundle: Path, run: Path, phantom: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run / "models", tmp_path / "models").parent
    with (copy / "models" / "model.pt").open("ab") as file:
        file.write(b"\0")
    settings = {**small_networks(bundle), "run_dir": str(copy), "dataset_dir": str(phantom / "imagesTr")}
    with pytest.raises(RuntimeError) as refused:
        run_bundle(bundle, "clinical", **settings)
    assert "expected what was fitted for the network that predicts" in whole_story(refused.value)


def test_a_case_that_fails_is_named(bundle: Path, run: Path, phantom: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(phantom, tmp_path / "data")
    case = json.loads((copy / "datalist.json").read_text())["training"][0]
    volume = nib.load(copy / case["label"])
    nib.save(nib.Nifti1Image(np.asarray(volume.dataobj) + 7, volume.affine), copy / case["label"])
    settings = {**small_networks(bundle), "run_dir": str(run), "dataset_dir": str(copy), "split": "training"}
    before = (run / "models" / "clinical.json").read_bytes()
    with pytest.raises(RuntimeError) as refused:
        run_bundle(bundle, "clinical_fit", **settings)
    assert Path(case["label"]).name in whole_story(refused.value)
    assert (run / "models" / "clinical.json").read_bytes() == before


def test_the_steps_that_the_template_names_by_number_are_those_it_means() -> None:
    template = Path(__file__).parents[2] / "monai_calib" / "bundling" / "template" / "clinical.json"
    steps = {key.rpartition("#")[0]: key for key in json.loads(template.read_text()) if re.search(r"#\d+#", key)}
    parser = monai.bundle.ConfigParser()
    parser.read_config(config_files(BUNDLES[1], "inference"))
    assert {parser[step]["_target_"] for step in steps} == {"Invertd", "CopyItemsd"}
