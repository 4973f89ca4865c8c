"""Bundles of one's own data: rendered, run, and refused."""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import BUNDLES_FOLDER, load_workflow, run_bundle, small_networks, whole_story
from small_data import SPLITS, write_data

from monai_calib.__main__ import main
from monai_calib.bundling.bundle import bundle_data
from monai_calib.handlers import without_ignored
from monai_calib.metrics.evaluated import read_evaluated

ROOT = Path(__file__).parents[2]


def settings(bundle: Path, data: Path, run: Path, **more: Any) -> dict[str, Any]:
    return {**small_networks(bundle), "dataset_dir": str(data), "run_dir": str(run), **more}


def run_all(bundle: Path, data: Path, run: Path) -> dict[str, Any]:
    """Train an epoch, evaluate and calibrate; the evaluated folder's content."""
    short = {"epochs": 1, "visits_per_epoch": 1}
    run_bundle(bundle, "train", **settings(bundle, data, run, **short))
    run_bundle(bundle, "evaluate", **settings(bundle, data, run))
    run_bundle(bundle, "calibrate", **settings(bundle, data, run, exports=[]))
    return json.loads((run / "eval" / "calibration.json").read_text())


def test_ignored_voxels_count_nowhere_from_loading_to_calibration(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", ignore_index=255)
    bundle = bundle_data(data, tmp_path / "cubes_segmentation_3d").folder
    content = run_all(bundle, data, tmp_path / "run")
    assert {case["subject"] for case in content["cases"]} == {"p6", "p7"}
    workflow = load_workflow(bundle, "evaluate", **settings(bundle, data, tmp_path / "again", epochs=1))
    loss = workflow.parser.get_parsed_content("loss")
    assert loss.ignore_index == 255
    evaluated = read_evaluated(tmp_path / "run" / "eval")
    assert [int(histogram.voxels) for histogram in evaluated.histograms("all")] == [24 * 40 * 20] * 2
    assert not np.isnan(evaluated.values("nll_all")).any()


def test_without_ignored_leaves_the_rest_as_it_is() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (1, 6, 6), generator=generator)
    pred = torch.randint(0, 3, (1, 6, 6), generator=generator)
    label[0, 0] = -1
    (found_pred,), (found_label,) = without_ignored(-1)([{"pred": pred, "label": label}])
    assert torch.equal(found_label[0, 1:], label[0, 1:])
    assert torch.equal(found_pred[0, 1:], pred[0, 1:])
    assert not found_label[0, 0].any()
    assert not found_pred[0, 0].any()
    assert (label[0, 0] == -1).all(), "what others see is unchanged"


def test_pictures_in_colours_of_two_raters_are_measured_in_pixels(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", shape=(40, 36, 1), channels=3, raters=2, unit="px", classes=2)
    made = bundle_data(data, tmp_path / "pictures_segmentation_2d")
    assert (made.plan.dims, made.fingerprint.raters, made.fingerprint.modality) == (2, 2, "RGB")
    content = run_all(made.folder, data, tmp_path / "run")
    assert len(content["cases"]) == 2, "both raters together"
    names = set(content["cases"][0]["metrics"])
    assert {"rater_ece_all_15bins", "least_nll_dissensus", "dice_between_raters", "volume_crps", "mean_dice"} <= names
    corrected = read_evaluated(tmp_path / "run" / "posthoc" / "as_trained" / "eval")
    assert len(corrected.cases) == 2
    assert {"rater_ece_all_15bins", "volume_crps"} <= set(corrected.metrics)
    assert not [name for name in names if "mm" in name.replace("summ", "")]
    assert {"hd95_px", "assd_px", "ece_boundary2vx_15bins", "surface_dice_1px"} <= names | {
        path.stem.removesuffix("_raw") for path in (tmp_path / "run" / "eval").glob("*_raw.csv")
    }


def test_the_mean_of_the_raters_reaches_the_loss_as_shares_of_the_classes(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", shape=(40, 36, 1), raters=2, unit="px", classes=3)
    listing = json.loads((data / "datalist.json").read_text())
    listing["training"][1]["label"] = listing["training"][1]["label"][:1]  # a rater alone fits into the same batch
    (data / "datalist.json").write_text(json.dumps(listing))
    bundle = bundle_data(data, tmp_path / "pictures_segmentation_2d").folder
    short = {"epochs": 1, "visits_per_epoch": 1, "rater_labels": "mean", "augmentation": True, "patch_size": [48, 48]}
    workflow = load_workflow(bundle, "train", **settings(bundle, data, tmp_path / "run", **short))
    crops = [crop["label"] for case in workflow.parser.get_parsed_content("train#dataset") for crop in case]
    assert {tuple(label.shape) for label in crops} == {(3, 48, 48)}, "padded beyond the picture"
    for label in crops:
        assert torch.allclose(label.sum(0), torch.ones(48, 48))
    assert {float(value) for label in crops for value in label.unique()} == {0.0, 0.5, 1.0}
    run_bundle(bundle, "train", **settings(bundle, data, tmp_path / "run", **short))
    kept = json.loads((tmp_path / "run" / "models" / "training.json").read_text())
    assert kept["settings"]["rater_labels"] == "mean"
    with pytest.raises((RuntimeError, AssertionError)) as caught:
        run_bundle(bundle, "train", **settings(bundle, data, tmp_path / "run", rater_labels="all"))
    assert "rater_labels: expected one of sample, mean, got 'all'" in whole_story(caught.value)


def test_metadata_and_required_properties_are_monais(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    bundle = bundle_data(data, tmp_path / "cubes_segmentation_3d").folder
    workflow = load_workflow(bundle, "train", **settings(bundle, data, tmp_path / "run"))
    assert workflow.check_properties() == []
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {
        "0": "background",
        "1": "cube 1",
        "2": "cube 2",
    }
    schema = ROOT.parent / "shared" / "schema" / "meta_schema_20240725.json"
    if schema.is_file():
        copy = tmp_path / schema.name
        copy.write_bytes(schema.read_bytes())
        monai.bundle.verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(copy))


def test_names_that_look_like_expressions_stay_names(tmp_path: Path) -> None:
    labels = {"0": "background", "1": "$__import__('os').abort()", "2": "@epochs {{dims}}"}
    data = write_data(tmp_path / "data", labels=labels, name="%train.json")
    bundle = bundle_data(data, tmp_path / "odd_segmentation_3d").folder
    workflow = load_workflow(bundle, "train", **settings(bundle, data, tmp_path / "run"))
    assert workflow.parser.get_parsed_content("class_names") == [
        "background",
        "__import__('os').abort()",
        "epochs (dims)",
    ]


def test_the_plan_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data")
    bundle = tmp_path / "cubes_segmentation_3d"
    assert main(["bundle", str(data), str(bundle), "--epochs", "3"]) == 0
    printed = capsys.readouterr().out
    plan = json.loads((bundle / "docs" / "plan.json").read_text())["choices"]
    readme = (bundle / "docs" / "README.md").read_text()
    assert {choice["name"] for choice in plan} >= {"dimensions", "spacing", "patch_size", "batch_size", "crops"}
    for choice in plan:
        assert choice["reason"] in printed
        assert choice["reason"].replace("|", "/") in readme
    assert json.loads((bundle / "configs" / "train.json").read_text())["epochs"] == 3
    assert "{{" not in readme
    assert json.loads((bundle / "docs" / "fingerprint.json").read_text())["cases"]["test"] == 2


def test_a_shipped_bundle_is_the_committed_one(tmp_path: Path) -> None:
    assert main(["bundle", "busi_segmentation_2d", str(tmp_path / "out")]) == 0
    committed = BUNDLES_FOLDER / "busi_segmentation_2d"
    written = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written
    for place in written:
        assert (tmp_path / "out" / place).read_bytes() == (committed / place).read_bytes()


def test_the_wheel_has_what_rendering_needs() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = [text.strip() for text in setup["options.package_data"]["monai_calib"].split(",")]
    packed = {path for pattern in patterns for path in (ROOT / "monai_calib").glob(pattern)}
    folder = ROOT / "monai_calib" / "bundling"
    needed = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert needed
    assert needed <= packed


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The error of a command that ends with status 1."""
    assert main(list(map(str, arguments))) == 1
    return capsys.readouterr().err


def test_bad_input_says_what_to_do_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    listing = json.loads((data / "datalist.json").read_text())

    def with_list(name: str, **changes: Any) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "files").symlink_to(data / "files")
        (tmp_path / name / "datalist.json").write_text(json.dumps({**listing, **changes}))
        return tmp_path / name

    text = refused(capsys, "bundle", data, out, "--patch_size", 20, 20, 10)
    assert "forward pass" in text
    assert "Take [" in text
    assert "lists no cases for 'training'" in refused(capsys, "bundle", with_list("empty", training=[]), out)
    assert "no cases for 'validation'" in refused(capsys, "bundle", with_list("one", validation=[], test=[]), out)
    same = {split: [{**case, "subject": "7"} for case in listing[split]] for split in SPLITS}
    assert "got 7 in training and validation" in refused(capsys, "bundle", with_list("same", **same), out)
    text = refused(capsys, "bundle", with_list("few", labels={"0": "background", "1": "a"}), out)
    assert "expected class numbers from 0 to 1, got 2" in text
    text = refused(capsys, "bundle", with_list("more", modality={"0": "a", "1": "b"}), out)
    assert "expected 2 channels" in text
    assert "one an axis" in refused(capsys, "bundle", data, out, "--spacing", 1)
    assert "Did you mean acdc_segmentation_3d" in refused(capsys, "bundle", "acdc_segmentation3d", out)
    assert "there is no data folder" in refused(capsys, "bundle", tmp_path / "nowhere", out)
    with pytest.raises(SystemExit) as unknown:
        main(["bundle", str(data), str(out), "--patchsize", "32"])
    assert unknown.value.code == 2
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_data(tmp_path / "data"), tmp_path / "cubes_segmentation_3d"
    assert main(["bundle", str(data), str(out)]) == 0
    assert "--overwrite True" in refused(capsys, "bundle", data, out)
    assert main(["bundle", str(data), str(out), "--overwrite", "True", "--epochs", "2"]) == 0
    (out / "models").mkdir()
    assert "results of a run" in refused(capsys, "bundle", data, out, "--overwrite", "True")
    assert "holds no bundle" in refused(capsys, "bundle", data, data, "--overwrite", "True")


def test_a_patch_on_the_command_line_is_tried_before_data_are_read(tmp_path: Path) -> None:
    bundle = BUNDLES_FOLDER / "msd_hippocampus_segmentation_3d"
    with pytest.raises(Exception) as error:  # noqa: PT011  # MONAI wraps the cause in its own
        run_bundle(bundle, "train", dataset_dir=str(tmp_path / "nowhere"), patch_size=[16, 16, 16])
    assert "Take [32, 16, 16]" in whole_story(error.value)
    with pytest.raises(Exception) as error:  # noqa: PT011
        run_bundle(bundle, "train", dataset_dir=str(tmp_path / "nowhere"), patch_size=[33, 35, 37])
    assert "there is no data folder" in whole_story(error.value)


def test_rendering_by_the_script_needs_no_torch() -> None:
    code = (
        "import sys; from monai_calib.bundling.render import render; render('acdc_segmentation_3d'); "
        "print(sorted({'torch', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['monai', 'torch']")


def test_pictures_stay_where_they_are_and_volumes_are_turned(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", shape=(40, 36, 1), unit="px", classes=2)
    train = (bundle_data(data, tmp_path / "a_segmentation_2d").folder / "configs" / "train.json").read_text()
    assert "Orientationd" not in train
    volume = write_data(tmp_path / "volumes")
    train = (bundle_data(volume, tmp_path / "b_segmentation_3d").folder / "configs" / "train.json").read_text()
    assert "Orientationd" in train
    assert nib.load(volume / "files" / "case_0.nii.gz").shape == (36, 40, 20)
