"""Every network by its name: trained, evaluated, used and exported; on one bundle a dimension."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import monai.bundle
import pytest
import torch
from bundle_runs import BUNDLES, NETWORKS, config_files, load_workflow, named, run_bundle, small_networks
from monai.losses import DeepSupervisionLoss
from monai.networks.nets import BasicUNetPlusPlus

HIPPOCAMPUS = [named(f"msd_hippocampus_segmentation_{dims}d") for dims in (2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("network_name", NETWORKS)
@pytest.mark.parametrize("bundle", HIPPOCAMPUS, ids=lambda path: path.name)
def test_training_evaluation_inference_and_export(
    network_name: str, bundle: Path, phantom: Path, tmp_path: Path
) -> None:
    small = small_networks(bundle)
    run = {**small, "run_dir": str(tmp_path)}
    run_bundle(bundle, "train", **run, dataset_dir=str(phantom), network_name=network_name, epochs=1)
    run_bundle(bundle, "evaluate", **run, dataset_dir=str(phantom))
    recorded = json.loads((tmp_path / "eval" / "calibration.json").read_text())["run"]
    assert recorded["network_name"] == network_name
    run_bundle(bundle, "inference", **run, dataset_dir=str(phantom / "imagesTr"), network_name=network_name)
    assert len(list((tmp_path / "predictions").glob("*_seg.nii.gz"))) == 6

    exported, checkpoint = tmp_path / "model.ts", tmp_path / "models" / "model.pt"
    monai.bundle.ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(checkpoint),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=config_files(bundle, "inference"),
        use_trace=network_name == "dynunet",  # TorchScript does not compile MONAI's list of supervised outputs
        network_name=network_name,
        **small,
    )
    parser = monai.bundle.ConfigParser()
    parser.read_config(config_files(bundle, "inference"))
    parser.update({**small, "network_name": network_name})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    image = torch.randn(2, 1, *parser.get_parsed_content("patch_size"), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = torch.jit.load(exported).eval()(image), network(image)
    if network_name == "unetplusplus":
        (found,), (expected,) = found, expected
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("network_name", NETWORKS)
@pytest.mark.parametrize("bundle", HIPPOCAMPUS, ids=lambda path: path.name)
def test_shapes_of_the_metadata(network_name: str, bundle: Path) -> None:
    settings = {
        "net_id": "network_def",
        "meta_file": str(bundle / "configs" / "metadata.json"),
        "config_file": config_files(bundle, "inference"),
        "device": "cpu",
        "network_name": network_name,
        **small_networks(bundle),
    }
    if network_name == "unetplusplus":  # as the README says; MONAI's check reads a tensor only
        with pytest.raises(AttributeError, match="'list' object has no attribute 'shape'"):
            monai.bundle.verify_net_in_out(**settings)
    else:
        monai.bundle.verify_net_in_out(**settings)


@pytest.mark.parametrize("bundle", HIPPOCAMPUS, ids=lambda path: path.name)
def test_windows_of_a_network_that_returns_a_list_are_those_of_its_tensor(
    bundle: Path, phantom: Path, tmp_path: Path
) -> None:
    workflow = load_workflow(bundle, "train", dataset_dir=str(phantom), run_dir=str(tmp_path))
    inferer = workflow.parser.get_parsed_content("validate#inferer")
    torch.manual_seed(0)
    network = BasicUNetPlusPlus(len(inferer.roi_size), 1, 3, features=(4, 4, 4, 4, 4, 4)).eval()
    volume = torch.randn(1, 1, 60, 70, 50)
    with torch.no_grad():
        wrapped = inferer(volume, network)
        plain = inferer(volume, lambda window: network(window)[0])
    assert isinstance(wrapped, torch.Tensor)
    assert torch.equal(wrapped, plain)


def test_supervised_outputs_count_half_of_the_finer_one(phantom: Path, tmp_path: Path) -> None:
    """The plan of the 3D hippocampus has one supervised output below the last: 1 and 1/2."""
    workflow = load_workflow(
        HIPPOCAMPUS[1],
        "train",
        **small_networks(HIPPOCAMPUS[1]),
        dataset_dir=str(phantom),
        run_dir=str(tmp_path),
        network_name="dynunet",
        loss_name="nacl",
    )
    trainer, loss = workflow.trainer, workflow.parser.get_parsed_content("loss")
    assert isinstance(trainer.loss_function, DeepSupervisionLoss)
    batch = next(iter(trainer.data_loader))
    stacked = trainer.network.train()(batch["image"])
    assert stacked.shape[1] == 2
    heads = trainer.inferer(batch["image"], trainer.network)
    expected = loss(stacked[:, 0], batch["label"]) + 0.5 * loss(stacked[:, 1], batch["label"])
    torch.testing.assert_close(trainer.loss_function(heads, batch["label"]), expected)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_every_network_can_halve_the_patch_as_often_as_it_does(bundle: Path) -> None:
    config = json.loads((bundle / "configs" / "train.json").read_text())
    patch, networks = config["patch_size"], config["networks"]
    plan = networks["dynunet"]
    for axis, size in enumerate(patch):
        for stride in plan["strides"]:
            assert size % stride[axis] == 0, (bundle.name, axis)
            size //= stride[axis]
        assert size >= 4
    assert len(plan["strides"]) == len(plan["kernel_size"]) == len(plan["filters"]) > plan["deep_supr_num"] + 1
    assert all(size % 2 ** len(networks["attention_unet"]["strides"]) == 0 for size in patch)
    assert all(size % 8 == 0 for size in patch), "SegResNet halves three times"
    assert all(size >= 16 for size in patch), "BasicUNet and UNet++ halve four times"


@pytest.mark.slow
def test_several_processes_train_the_network_with_outputs_that_no_loss_reads(phantom: Path, tmp_path: Path) -> None:
    """UNet++ has three more outputs: without find_unused_parameters the second step fails."""
    bundle, data = HIPPOCAMPUS[0], shutil.copytree(phantom, tmp_path / "data")
    listed = json.loads((data / "datalist.json").read_text())
    listed["validation"] = listed["training"]  # a case for each process
    (data / "datalist.json").write_text(json.dumps(listed))
    files = str([str(bundle / "configs" / f"{name}.json") for name in ("train", "multi_gpu_train")])
    options = {
        "dataset_dir": data,
        "run_dir": tmp_path,
        "network_name": "unetplusplus",
        "epochs": 1,
        "batch_size": 1,
        "networks#unetplusplus#features": [4, 4, 4, 4, 4, 4],
    }
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "monai.bundle"]
        + ["run", "--config_file", files, "--bundle_root", str(bundle)]
        + [word for name, value in options.items() for word in (f"--{name}", str(value))],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "models" / "model.pt").is_file()
