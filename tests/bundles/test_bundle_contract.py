"""What MONAI and its model zoo ask of a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import monai.bundle
import pytest
import torch
from bundle_runs import config_files, load_workflow


@pytest.mark.parametrize("workflow", ["train", "evaluate", "inference"])
def test_every_required_property_is_there(bundle: Path, phantom: Path, tmp_path: Path, workflow: str) -> None:
    folder = phantom / "imagesTr" if workflow == "inference" else phantom
    loaded = load_workflow(bundle, workflow, dataset_dir=str(folder), run_dir=str(tmp_path))
    assert loaded.check_properties() == []


def test_metadata_follows_monais_schema(bundle: Path, schema: Path, tmp_path: Path) -> None:
    copy = shutil.copy(schema, tmp_path / schema.name)  # monai downloads a schema only where there is none
    monai.bundle.verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(copy))


def test_version_is_in_the_changelog(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]


@pytest.mark.parametrize("workflow", ["train", "inference"])
@pytest.mark.parametrize("network_name", ["unet", "attention_unet", "segresnet"])
def test_each_network_has_the_shapes_of_the_metadata(bundle: Path, workflow: str, network_name: str) -> None:
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=config_files(bundle, workflow),
        device="cpu",
        network_name=network_name,
    )


def test_exported_network_computes_the_same(bundle: Path, trained: Path, tmp_path: Path) -> None:
    exported = tmp_path / "model.ts"
    monai.bundle.ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(trained / "models" / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=config_files(bundle, "inference"),
    )
    parser = monai.bundle.ConfigParser()
    parser.read_config(config_files(bundle, "inference"))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    size = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    image = torch.randn(1, size["num_channels"], *size["spatial_shape"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(exported).eval()(image), network(image))
