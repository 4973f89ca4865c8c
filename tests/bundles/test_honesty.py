"""What a bundle says instead of going on: options, metrics and intervals that cannot be, volumes it cannot read."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import (
    NETWORKS,
    config_files,
    load_workflow,
    named,
    run_bundle,
    small_networks,
    tiny_patch,
    whole_story,
)
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

from monai_calib.bundling import check_options
from monai_calib.transforms import LoadCased

HIPPOCAMPUS = {dims: named(f"msd_hippocampus_segmentation_{dims}d") for dims in (2, 3)}
BUNDLE = HIPPOCAMPUS[3]
TINY = {**small_networks(BUNDLE), "patch_size": tiny_patch(BUNDLE), "epochs": 1, "loss_name": "ce"}


def refused(workflow: str, bundle: Path = BUNDLE, **settings: Any) -> str:
    with pytest.raises((RuntimeError, AssertionError)) as caught:
        run_bundle(bundle, workflow, **settings)
    return whole_story(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"epcohs": 1},
            "epcohs: expected an option of this bundle, got a name that nothing reads. Did you mean epochs?",
        ),
        ({"lerning_rate": 0.1}, "Did you mean learning_rate?"),
        ({"loss_nam": "ce"}, "Did you mean loss_name?"),
        ({"epochs": 1.5}, "epochs: expected a whole number from 1, got 1.5."),
        ({"epochs": True}, "epochs: expected a whole number from 1, got True."),
        ({"batch_size": 0}, "batch_size: expected a whole number from 1, got 0."),
        ({"cache_rate": 5}, "cache_rate: expected a number from 0 to 1, got 5."),
        ({"learning_rate": "fast"}, "learning_rate: expected a number from 0, got 'fast'."),
        ({"class_names": ["background", "hippocampus"]}, "class_names: expected 3 names"),
        ({"resume": "maybe"}, "resume: expected True or False, got 'maybe'."),
        (
            {"network_name": "unett"},
            "network_name: expected one of unet, attention_unet, unetplusplus, dynunet, segres",
        ),
        ({"patch_size": 32}, "patch_size: expected a list of whole numbers, one an axis, got 32."),
        ({"loss_args": "margin=5"}, "loss_args: expected arguments by name"),
        ({"run_dir": 2024}, "run_dir: expected a path, got the int 2024. Write ./2024."),
        ({"run_dir": "runs/a#b"}, "run_dir: expected a path without # or ::"),
        ({"dataset_dir": "/data/a#b"}, "dataset_dir: expected a path without # or ::"),
        ({"best_metric": "mean_dise"}, "best_metric: expected one of mean_dice, got 'mean_dise'."),
        ({"val_interval": 9}, "val_interval: expected at most 1, the number of epochs, got 9"),
        (
            {"val_interval": 3, "early_stop_patience": 2, "epochs": 9},
            "early_stop_patience: expected at least val_interval",
        ),
        ({"loss_name": "nosuchloss"}, "Unknown loss 'nosuchloss'"),
        ({"geometry": "ignore"}, "geometry: expected one of"),
    ],
    ids=lambda item: "" if isinstance(item, str) else "-".join(f"{name}={value}" for name, value in item.items()),
)
def test_an_option_that_cannot_be_is_refused_before_the_first_epoch(
    settings: dict[str, Any], said: str, phantom: Path, tmp_path: Path
) -> None:
    told = refused("train", **{**TINY, "dataset_dir": str(phantom), "run_dir": str(tmp_path / "run"), **settings})
    assert said in told
    assert not list(tmp_path.rglob("training.json"))


@pytest.mark.parametrize("workflow", ["evaluate", "calibrate"])
def test_the_other_workflows_know_their_options(workflow: str, phantom: Path, tmp_path: Path) -> None:
    told = refused(workflow, dataset_dir=str(phantom), run_dir=str(tmp_path), outptu_dir=str(tmp_path))
    assert "Did you mean output_dir?" in told


def test_what_monai_or_a_file_of_ones_own_adds_passes(
    phantom: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"my_rate": 0.01, "learning_rate": "$@my_rate / 2", "train#trainer#max_epochs": 2}))
    settings = {"dataset_dir": str(phantom), "run_dir": str(tmp_path), "tracking_uri": "x", "run_name": "y", "zebra": 1}
    workflow = monai.bundle.ConfigWorkflow(
        [*config_files(BUNDLE, "train"), str(own)], workflow_type="train", logging_file=False, **settings
    )
    with caplog.at_level(logging.WARNING):
        workflow.initialize()
    assert workflow.parser.get_parsed_content("learning_rate") == 0.005
    assert [text for text in caplog.messages if "nothing in the configuration reads" in text] == [
        "option zebra: nothing in the configuration reads it"
    ]


def test_small_letters_are_booleans_too(phantom: Path, tmp_path: Path) -> None:
    words = {"resume": "false", "augmentation": "true", "bfloat16": "False", "amp": "no"}
    workflow = load_workflow(BUNDLE, "train", **TINY, dataset_dir=str(phantom), run_dir=str(tmp_path), **words)
    found = {name: workflow.parser.get_parsed_content(name) for name in words}
    assert found == {"resume": False, "augmentation": True, "bfloat16": False, "amp": False}
    assert workflow.parser.get_parsed_content("settings")["augmentation"] is True
    workflow.run()
    assert json.loads((tmp_path / "models" / "training.json").read_text())["settings"]["bfloat16"] is False


def test_options_are_checked_within_a_configuration_only() -> None:
    with pytest.raises(RuntimeError, match="expected to be called in an expression"):
        check_options([])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_patch_that_the_network_cannot_take_is_refused_with_one_that_works(
    dims: int, phantom: Path, tmp_path: Path
) -> None:
    settings = {**small_networks(HIPPOCAMPUS[dims]), "dataset_dir": str(phantom), "run_dir": str(tmp_path), "epochs": 1}
    told = refused("train", HIPPOCAMPUS[dims], **settings, patch_size=[16, 16, 16][:dims], network_name="unet")
    assert f"patch_size: expected voxels on which unet's forward pass works, got {[16] * dims}" in told
    assert f"Take {[32, 16, 16][:dims]}." in told
    assert "cases" not in told, "no case is to blame"


def test_a_class_that_validation_never_bears_is_not_called_unlearned(
    phantom: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = without_classes(phantom, tmp_path / "data", removed={2})
    run_bundle(BUNDLE, "train", **TINY, dataset_dir=str(data), run_dir=str(tmp_path))
    assert (
        "class 2 (posterior) is in no label of the validation cases: whether it was learned is unknown" in caplog.text
    )
    assert "not converged: class 2" not in caplog.text
    assert "nan. Train longer" not in caplog.text


def test_a_validation_of_nothing_is_never_the_best(phantom: Path, tmp_path: Path) -> None:
    data = without_classes(phantom, tmp_path / "data", removed={1, 2})
    told = refused("train", **TINY, dataset_dir=str(data), run_dir=str(tmp_path))
    assert f"{tmp_path / 'models' / 'model.pt'} was not written: no validation gave a number for mean_dice" in told
    assert not (tmp_path / "models" / "model.pt").exists()


def without_classes(phantom: Path, data: Path, removed: set[int]) -> Path:
    """The phantom with these classes made background in its validation labels."""
    shutil.copytree(phantom, data)
    for case in json.loads((data / "datalist.json").read_text())["validation"]:
        label = nib.load(data / case["label"])
        values = np.asarray(label.dataobj).copy()
        values[np.isin(values, list(removed))] = 0
        nib.save(nib.Nifti1Image(values, label.affine), data / case["label"])
    return data


@pytest.fixture(scope="module")
def trained(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another network, patch and dropout than the defaults."""
    run = tmp_path_factory.mktemp("run")
    settings = {**TINY, "network_name": "segresnet", "dropout": 0.1}
    run_bundle(BUNDLE, "train", **settings, dataset_dir=str(phantom), run_dir=str(run))
    return run


def infer(run: Path, images: Path, **settings: Any) -> None:
    run_bundle(BUNDLE, "inference", **small_networks(BUNDLE), dataset_dir=str(images), run_dir=str(run), **settings)


def test_inference_builds_the_network_of_the_training(trained: Path, phantom: Path, tmp_path: Path) -> None:
    infer(trained, phantom / "imagesTr", output_dir=str(tmp_path))
    assert len(list(tmp_path.glob("*_seg.nii.gz"))) == 6
    workflow = load_workflow(
        BUNDLE, "inference", **small_networks(BUNDLE), dataset_dir=str(phantom / "imagesTr"), run_dir=str(trained)
    )
    assert type(workflow.network_def).__name__ == "SegResNet"
    assert workflow.parser.get_parsed_content("patch_size") == [32, 32, 16]
    assert workflow.parser.get_parsed_content("dropout") == 0.1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_voxel_that_is_not_finite_is_an_error_that_names_the_file(
    value: float, trained: Path, phantom: Path, tmp_path: Path
) -> None:
    first = sorted((phantom / "imagesTr").iterdir())[0]
    image = nib.load(first)
    voxels = image.get_fdata(dtype=np.float32)
    voxels[3, 4, 5] = value
    (tmp_path / "images").mkdir()
    victim = tmp_path / "images" / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels, image.affine), victim)
    with pytest.raises((RuntimeError, AssertionError)) as caught:
        infer(trained, tmp_path / "images", output_dir=str(tmp_path / "out"))
    assert f"{victim}: holds voxels that are not finite" in whole_story(caught.value)
    assert not list(tmp_path.glob("out/*.nii.gz"))


def test_weights_that_are_not_finite_are_an_error(trained: Path, phantom: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    state = torch.load(run / "models" / "model.pt", weights_only=True)
    state["conv_final.2.conv.bias"].fill_(float("nan"))
    torch.save(state, run / "models" / "model.pt")
    with pytest.raises((RuntimeError, AssertionError)) as caught:
        infer(run, phantom / "imagesTr")
    assert "the output of the network is not finite" in whole_story(caught.value)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda folder: None, "found nothing"),
        (lambda folder: (folder / "scan.dcm").write_bytes(b""), "found ['scan.dcm']"),
        (lambda folder: (folder / "case_1").mkdir(), "found ['case_1']"),
    ],
    ids=["empty", "dicom", "folders"],
)
def test_a_folder_without_images_is_an_error_that_says_what_was_found(
    make: Callable[[Path], object], found: str, trained: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    make(images)
    with pytest.raises((RuntimeError, AssertionError)) as caught:
        infer(trained, images)
    assert f"{images}: expected images named *.nii or *.nii.gz, {found}" in whole_story(caught.value)


def test_an_unknown_network_is_refused_by_inference(trained: Path, phantom: Path) -> None:
    with pytest.raises((RuntimeError, AssertionError)) as caught:
        infer(trained, phantom / "imagesTr", network_name="unett")
    assert "network_name: expected one of ['attention_unet', " in whole_story(caught.value)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_volume_of_one_slice_keeps_three_axes(depth: int, phantom: Path, tmp_path: Path) -> None:
    bundle = HIPPOCAMPUS[2]
    settings = {**small_networks(bundle), "run_dir": str(tmp_path)}
    tiny = {"patch_size": tiny_patch(bundle), "epochs": 1, "loss_name": "ce"}
    run_bundle(bundle, "train", **settings, **tiny, dataset_dir=str(phantom))
    (tmp_path / "images").mkdir()
    image = tmp_path / "images" / "slice.nii.gz"
    affine = np.diag([0.5, 0.5, 3, 1])
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((54, 42, depth), dtype=np.float32), affine), image)
    run_bundle(bundle, "inference", **settings, dataset_dir=str(tmp_path / "images"))
    written = [tmp_path / "predictions" / f"slice_{kind}.nii.gz" for kind in ("seg", "confidence")]
    for path in written:
        assert nib.load(path).shape == (54, 42, depth)
        np.testing.assert_allclose(nib.load(path).affine, affine)
    pair = LoadCased(keys=("image", "label"), num_classes=3)({"image": str(image), "label": str(written[0])})
    assert pair["label"].shape == pair["image"].shape == (1, 54, 42, depth)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_monais_api_takes_other_arguments(name: str) -> None:
    """``network_def`` is an object: MONAI Label and ``monai.bundle.load`` set ``dropout`` in it, for any network."""
    for workflow in ("train", "inference"):
        parser = monai.bundle.ConfigParser()
        parser.read_config(config_files(BUNDLE, workflow))
        parser.update({**small_networks(BUNDLE), "network_name": name})
        assert isinstance(parser["network_def"], dict)
        parser["network_def"]["dropout"] = 0.25
        network = parser.get_parsed_content("network_def")
        rates = {module.p for module in network.modules() if isinstance(module, torch.nn.modules.dropout._DropoutNd)}
        assert 0.25 in rates


@pytest.mark.parametrize(("epochs", "expected"), [(1, 4), (4, 4), (22, 22)])
def test_the_schedule_follows_whoever_sets_the_epochs(
    epochs: int, expected: int, phantom: Path, tmp_path: Path
) -> None:
    """MONAI Label and MonaiAlgo set the trainer's ``max_epochs``, the latter to the epochs of one round."""
    given = {**TINY, "epochs": 4, "train#trainer#max_epochs": epochs}
    workflow = load_workflow(BUNDLE, "train", **given, dataset_dir=str(phantom), run_dir=str(tmp_path))
    assert workflow.parser.get_parsed_content("lr_scheduler").T_max == expected
    assert workflow.parser.get_parsed_content("settings")["epochs"] == expected


def test_an_image_guided_prior_is_trained_from_the_command_line(phantom: Path, tmp_path: Path) -> None:
    for network_name in ("unet", "dynunet"):
        given = {**TINY, "loss_name": "nacl", "loss_args": {"kernel_ops": "image_proportions_l1"}}
        given |= {"network_name": network_name, "dataset_dir": str(phantom), "run_dir": str(tmp_path / network_name)}
        run_bundle(BUNDLE, "train", **given)
        record = json.loads((tmp_path / network_name / "models" / "training.json").read_text())
        assert record["settings"]["loss_args"] == {"kernel_ops": "image_proportions_l1"}


def test_monais_tracking_reads_the_loss_of_a_step(phantom: Path, tmp_path: Path) -> None:
    """As its MLflow handler does: ``from_engine(['loss'], first=True)``."""
    workflow = load_workflow(BUNDLE, "train", **TINY, dataset_dir=str(phantom), run_dir=str(tmp_path))
    read = monai.handlers.from_engine(["loss"], first=True)
    losses: list[float] = []
    event = monai.engines.utils.IterationEvents.MODEL_COMPLETED
    workflow.trainer.add_event_handler(event, lambda engine: losses.append(float(read(engine.state.output))))
    workflow.run()
    assert len(losses) == len(workflow.trainer.data_loader)


def test_a_federation_hears_of_classes_at_its_end_only(
    phantom: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / BUNDLE.name
    shutil.copytree(BUNDLE / "configs", root / "configs")
    algo = MonaiAlgo(
        bundle_root=str(root),
        local_epochs=1,
        send_weight_diff=False,
        train_kwargs={**TINY, "epochs": 2, "dataset_dir": str(phantom), "learning_rate": 0.0},
        eval_kwargs={**TINY, "dataset_dir": str(phantom), "split": "validation"},
    )
    algo.initialize(extra={ExtraItems.CLIENT_NAME: "site-1"})
    weights = ExchangeObject(weights={name: value.cpu() for name, value in algo.get_weights().weights.items()})
    algo.train(data=weights)
    assert "not converged" not in caplog.text + capsys.readouterr().out
    algo.train(data=weights)
    assert "not converged" in caplog.text + capsys.readouterr().out  # whether MONAI lets its logger propagate or not
    record = json.loads((root / "models" / "training.json").read_text())
    assert (record["epoch"], record["settings"]["epochs"]) == (2, 2)
    algo.finalize()


@pytest.mark.parametrize("calibrated", ["true", "false", True, False])
def test_inference_understands_booleans_in_small_letters(calibrated: Any, trained: Path) -> None:
    parser = monai.bundle.ConfigParser()
    parser.read_config(config_files(BUNDLE, "inference"))
    parser.update({"calibrated": calibrated, "run_dir": str(trained)})
    expected = "model_calibrated.pt" if calibrated in ("true", True) else "model.pt"
    assert parser.get_parsed_content("model_path") == str(trained / "models" / expected)
