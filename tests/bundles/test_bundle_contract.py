"""What MONAI's schema and model zoo ask of a bundle's metadata."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import monai.bundle


def test_metadata_follows_monais_schema(bundle: Path, schema: Path, tmp_path: Path) -> None:
    copy = shutil.copy(schema, tmp_path / schema.name)  # monai downloads a schema only where there is none
    monai.bundle.verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(copy))


def test_version_is_in_the_changelog(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]


def test_patch_of_the_metadata_is_that_of_training_and_inference(bundle: Path, tmp_path: Path) -> None:
    metadata, train, inference = (
        json.loads((bundle / "configs" / f"{name}.json").read_text()) for name in ("metadata", "train", "inference")
    )
    formats = metadata["network_data_format"]
    parser = monai.bundle.ConfigParser({**inference, "bundle_root": str(tmp_path)})  # without a training's record
    shapes = [formats["inputs"]["image"]["spatial_shape"], formats["outputs"]["pred"]["spatial_shape"]]
    assert shapes == [train["patch_size"], parser.get_parsed_content("patch_size")]
    assert train["networks"] == inference["networks"]


def test_the_page_on_clinical_output_names_the_step_that_copies(bundle: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "clinical.md"
    laid_over = json.loads(page.read_text().split("```json\n")[1].split("```")[0])
    parser = monai.bundle.ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    steps = {key.rpartition("#")[0] for key in laid_over if key.endswith(("#times", "#names"))}
    assert [parser[step]["_target_"] for step in steps] == ["CopyItemsd"]
