"""A packed bundle is what MONAI downloads, and with weights it says what these were measured to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from zipfile import ZipFile

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
from bundle_runs import named, run_bundle, small_networks

from monai_calib.__main__ import main
from monai_calib.bundling.pack import NO_WEIGHTS, eval_metrics, pack
from monai_calib.files import FileError
from monai_calib.metrics.evaluated import read_evaluated

HIPPOCAMPUS = named("msd_hippocampus_segmentation_2d")


def download(archive: Path, folder: Path, name: str) -> Path:
    monai.bundle.download(name=name, url=archive.as_uri(), bundle_dir=str(folder), progress=False)
    return folder / name


@pytest.fixture(scope="module")
def run(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of a moment, evaluated, calibrated, and evaluated again."""
    folder = tmp_path_factory.mktemp("run")
    settings = {**small_networks(HIPPOCAMPUS), "dataset_dir": str(phantom), "run_dir": str(folder), "device": "cpu"}
    run_bundle(HIPPOCAMPUS, "train", epochs=1, patch_size=[32, 32], num_workers=0, **settings)
    run_bundle(HIPPOCAMPUS, "evaluate", num_workers=0, **settings)
    run_bundle(HIPPOCAMPUS, "calibrate", num_workers=0, method="temperature", force=True, **settings)
    run_bundle(HIPPOCAMPUS, "evaluate", num_workers=0, calibrated=True, **settings)
    return folder


def test_every_bundle_is_downloaded_as_it_is(bundle: Path, tmp_path: Path) -> None:
    archive = pack(bundle, tmp_path / "dist")
    version = json.loads((bundle / "configs" / "metadata.json").read_text())["version"]
    assert archive.name == f"{bundle.name}_v{version}.zip"
    copy = download(archive, tmp_path / "there", bundle.name)
    places = {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()}
    rendered = {
        path.relative_to(bundle)
        for path in (bundle / "LICENSE", *bundle.glob("configs/*"), *bundle.glob("docs/*"))
    }  # fmt: skip
    assert places == rendered
    assert all((copy / place).read_bytes() == (bundle / place).read_bytes() for place in places)
    monai.bundle.ConfigWorkflow(str(copy / "configs" / "inference.json"), workflow_type="infer", logging_file=False)


def test_the_same_bundle_gives_the_same_bytes_and_no_more_than_a_bundle(tmp_path: Path) -> None:
    first = pack(HIPPOCAMPUS, tmp_path / "first").read_bytes()
    copy = shutil.copytree(HIPPOCAMPUS, tmp_path / HIPPOCAMPUS.name)
    for place in ("models/model.pt", "eval/calibration.json", "logs/x", "configs/.hidden", "secret.txt"):
        (copy / place).parent.mkdir(exist_ok=True)
        (copy / place).write_text("not for others")
    assert pack(copy, tmp_path / "second").read_bytes() == first


@pytest.mark.slow
def test_a_downloaded_bundle_with_weights_predicts_as_the_run_does(run: Path, phantom: Path, tmp_path: Path) -> None:
    copy = download(pack(HIPPOCAMPUS, tmp_path, run), tmp_path / "there", HIPPOCAMPUS.name)
    names = {path.name for path in (copy / "models").iterdir()}
    assert names == {"model.pt", "training.json", "model_calibrated.pt", "calibration_parameters.json"}
    settings = {**small_networks(HIPPOCAMPUS), "dataset_dir": str(phantom / "imagesTr"), "device": "cpu"}
    for calibrated in (False, True):
        outputs = [tmp_path / f"{where}_{calibrated}" for where in ("direct", "downloaded")]
        run_bundle(
            HIPPOCAMPUS, "inference", run_dir=str(run), output_dir=str(outputs[0]), calibrated=calibrated, **settings
        )
        run_bundle(copy, "inference", output_dir=str(outputs[1]), calibrated=calibrated, **settings)
        written = [sorted(path.name for path in output.iterdir()) for output in outputs]
        assert written[0] == written[1]
        assert len(written[0]) == 2 * len(list((phantom / "imagesTr").iterdir()))
        for name in written[0]:
            values = [np.asanyarray(nib.load(output / name).dataobj) for output in outputs]
            np.testing.assert_array_equal(*values)


@pytest.mark.slow
def test_what_was_fitted_for_the_clinic_travels_with_the_weights(run: Path, phantom: Path, tmp_path: Path) -> None:
    fitted = shutil.copytree(run, tmp_path / "run")
    settings = {**small_networks(HIPPOCAMPUS), "device": "cpu"}
    run_bundle(HIPPOCAMPUS, "clinical_fit", dataset_dir=str(phantom), run_dir=str(fitted), level=0.4, **settings)
    assert json.loads((fitted / "models" / "clinical.json").read_text())["about"]["model"] == "model_calibrated.pt"
    copy = download(pack(HIPPOCAMPUS, tmp_path, fitted), tmp_path / "there", HIPPOCAMPUS.name)
    run_bundle(copy, "clinical", dataset_dir=str(phantom / "imagesTr"), **settings)
    assert len(list((copy / "predictions").glob("*.html"))) == len(list((phantom / "imagesTr").iterdir()))


@pytest.mark.slow
def test_metadata_and_readme_say_what_was_measured(run: Path, schema: Path, tmp_path: Path) -> None:
    copy = download(pack(HIPPOCAMPUS, tmp_path, run), tmp_path / "there", HIPPOCAMPUS.name)
    shutil.copy(schema, tmp_path / schema.name)
    metadata_file = copy / "configs" / "metadata.json"
    monai.bundle.verify_metadata(meta_file=str(metadata_file), filepath=str(tmp_path / schema.name))
    metadata = json.loads(metadata_file.read_text())
    summaries = [read_evaluated(run / place / "eval").summary for place in ("", "calibrated")]
    measured = metadata["eval_metrics"]
    assert measured["mean_dice"] == pytest.approx(summaries[0]["mean_dice"], rel=1e-5)
    assert measured["nll_all_macro"] == pytest.approx(summaries[0]["nll_all_macro"], rel=1e-5)
    assert measured["calibrated_nll_all_macro"] == pytest.approx(summaries[1]["nll_all_macro"], rel=1e-5)
    assert measured["calibrated_nll_all_macro"] != measured["nll_all_macro"]
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [32, 32]
    readme = (copy / "docs" / "README.md").read_text()
    assert NO_WEIGHTS not in readme
    row = next(line for line in readme.splitlines() if line.startswith("| `nll_all_macro` |"))
    assert [float(cell) for cell in row.split("|")[2:4]] == [
        float(f"{summary['nll_all_macro']:.4g}") for summary in summaries
    ]


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_refused(run: Path, tmp_path: Path) -> None:
    def changed(place: str, **values: object) -> Path:
        copy = shutil.copytree(run, tmp_path / f"changed_{len(list(tmp_path.iterdir()))}")
        content = json.loads((copy / place).read_text())
        content["run" if "eval" in place else "settings"] |= values
        (copy / place).write_text(json.dumps(content))
        return copy

    with pytest.raises(FileNotFoundError, match=r"expected model\.pt"):
        pack(HIPPOCAMPUS, tmp_path / "dist", tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a bundle"):
        pack(tmp_path, tmp_path / "dist")
    with pytest.raises(ValueError, match="got one of acdc_segmentation_2d"):
        pack(HIPPOCAMPUS, tmp_path / "dist", changed("models/training.json", bundle="acdc_segmentation_2d"))
    with pytest.raises(FileError, match="'split': 'validation'"):
        pack(HIPPOCAMPUS, tmp_path / "dist", changed("eval/calibration.json", split="validation"))
    with pytest.raises(FileError, match="'seed': 7"):
        pack(HIPPOCAMPUS, tmp_path / "dist", changed("models/training.json", seed=7))
    uncalibrated = shutil.copytree(run, tmp_path / "uncalibrated")
    shutil.rmtree(uncalibrated / "calibrated")
    with pytest.raises(FileError, match="--calibrated True"):
        pack(HIPPOCAMPUS, tmp_path / "dist", uncalibrated)
    assert not (tmp_path / "dist").exists()
    (uncalibrated / "models" / "calibration_parameters.json").unlink()
    assert not [name for name in _metrics(pack(HIPPOCAMPUS, tmp_path / "dist", uncalibrated)) if "calibrated" in name]


def _metrics(archive: Path) -> dict[str, float]:
    with ZipFile(archive) as content:
        return dict(json.loads(content.read(f"{HIPPOCAMPUS.name}/configs/metadata.json"))["eval_metrics"])


@pytest.mark.slow
def test_what_was_not_measured_is_left_out(run: Path) -> None:
    evaluated = read_evaluated(run / "eval")
    evaluated.summary["hd95_mm"] = float("inf")  # type: ignore[index]
    evaluated.summary["mean_dice"] = float("nan")  # type: ignore[index]
    assert not {"hd95_mm", "mean_dice"} & set(eval_metrics(evaluated))
    assert "nll_all_macro" in eval_metrics(evaluated)


def test_the_command_packs_several_bundles_and_one_with_weights(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bundles = [str(HIPPOCAMPUS), str(named("busi_segmentation_2d"))]
    assert main(["pack", *bundles, "--output", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*.zip"))) == 2
    assert main(["pack", *bundles, "--output", str(tmp_path), "--run_dir", str(tmp_path)]) == 2
    assert "expected one bundle, got 2" in capsys.readouterr().err
