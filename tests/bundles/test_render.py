"""The committed bundles are what the template says, and name no more than a site can have."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_runs import BUNDLES, BUNDLES_FOLDER
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import NormalizeIntensityd, ScaleIntensityRanged

from monai_calib.bundling.pack import NO_WEIGHTS


def render_check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, folder / "render.py", "--check"], capture_output=True, text=True)


def components(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if "_target_" in config:
            yield config["_target_"]
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from components(item)


def test_there_is_a_bundle_for_every_data_script_in_both_dimensions() -> None:
    scripts = {path.stem for path in (BUNDLES_FOLDER.parent / "data_scripts").glob("*.py")} - {"__init__"}
    expected = {f"{key}_segmentation_{dims}d" for key in scripts for dims in (2, 3)} - {"busi_segmentation_3d"}
    assert {path.name for path in BUNDLES} == expected
    assert len(expected) == 19


def test_rendering_again_changes_nothing() -> None:
    result = render_check(BUNDLES_FOLDER)
    assert (result.returncode, result.stdout) == (0, "")


def test_check_shows_what_was_changed_by_hand(tmp_path: Path) -> None:
    copy = shutil.copytree(
        BUNDLES_FOLDER, tmp_path / "bundles", ignore=shutil.ignore_patterns("models", "eval", "logs")
    )
    changed = copy / BUNDLES[0].name / "configs" / "train.json"
    changed.write_text(changed.read_text().replace('"loss_name": "dice_ce_fading"', '"loss_name": "by_hand"'))
    result = render_check(copy)
    assert result.returncode == 1
    assert '-    "loss_name": "by_hand"' in result.stdout
    assert "by_hand" in changed.read_text()  # checking writes nothing


def test_inference_names_classes_of_monai_only(bundle: Path) -> None:
    text = (bundle / "configs" / "inference.json").read_text()
    config = json.loads(text)
    assert "monai_calib" not in text
    allowed = {f"$import {name}" for name in ("glob", "json", "monai", "os", "torch")}
    assert set(config["imports"]) <= allowed | {"$from concurrent.futures import ThreadPoolExecutor"}  # Python's own
    for target in components(config):
        assert set(re.findall(r"(?<![\w.])(\w+)\.", target)) <= {"monai", "torch", "ignite"}, target


def test_clinical_output_is_inference_and_more(bundle: Path) -> None:
    """Complete in itself, and step for step what inference.json does before it adds its own."""
    inference, clinical = (
        json.loads((bundle / "configs" / f"{name}.json").read_text()) for name in ("inference", "clinical")
    )
    assert set(inference) <= set(clinical)
    changed = {name for name in inference if inference[name] != clinical[name]}
    assert changed == {"calibrated", "preprocessing", "postprocessing", "initialize"}
    for part in ("preprocessing", "postprocessing"):
        before, after = inference[part]["transforms"], clinical[part]["transforms"]
        targets, expected = (
            [step if isinstance(step, str) else step["_target_"] for step in of] for of in (after, before)
        )
        assert expected == targets[: len(before)]
        assert all(target.startswith("monai_calib.") for target in targets[len(before) :])


def test_probabilities_are_not_brought_to_the_intensities_of_the_image(bundle: Path) -> None:
    """From MONAI 1.7 on, normalising is recorded in the image, and undone on the prediction by whoever inverts all."""
    parser = ConfigParser(json.loads((bundle / "configs" / "inference.json").read_text()))
    image = MetaTensor(torch.zeros(1, 2, 2))
    image.applied_operations = [
        {"class": name} for name in ("Orientation", "NormalizeIntensity", "Spacing", "ScaleIntensity")
    ]
    forget, spatial = (parser.get_parsed_content(name) for name in ("without_intensity", "spatial"))
    assert forget({"image": image})["image"].applied_operations == [{"class": "Orientation"}, {"class": "Spacing"}]
    steps = parser.get_parsed_content("preprocessing").transforms
    undone = [type(step) for step in spatial.transforms]
    changed = (NormalizeIntensityd, ScaleIntensityRanged)
    assert undone == [type(step) for step in steps if not isinstance(step, changed)]
    assert len(undone) < len(steps), "intensities are changed by some step of every bundle"


def test_no_target_bears_the_name_of_a_module(bundle: Path) -> None:
    """``pydoc.locate`` finds the one or the other, by the version of Python; a module is never called, in silence."""
    targets = {
        target
        for path in (bundle / "configs").glob("*.json")
        for target in components(json.loads(path.read_text()))
        if target.startswith("monai_calib.")
    }
    assert "monai_calib.posthoc.calibrate" in targets
    for target in targets:
        with suppress(ModuleNotFoundError):  # the parent is a module, not a package
            assert importlib.util.find_spec(target) is None, target


def test_no_place_of_one_machine(bundle: Path) -> None:
    for path in (bundle / "configs").iterdir():
        assert not re.search(r"/(home|work|tmp|root|workspace|Users)/", path.read_text()), path


def test_preparation_names_a_script_that_is_there(bundle: Path) -> None:
    command = json.loads((bundle / "configs" / "train.json").read_text())["prepare_data"]
    assert (BUNDLES_FOLDER.parent / command.split()[1]).is_file()
    assert command in (bundle / "docs" / "README.md").read_text()


def test_readme_is_filled_in_and_says_whose_figures_it_shows(bundle: Path) -> None:
    text = (bundle / "docs" / "README.md").read_text()
    assert "{{" not in text
    figures = text.split("## Performance")[1].split("## Limitations")[0]
    assert NO_WEIGHTS in figures
    assert re.search("another .*split|No calibration figures|5 subjects", figures)


def test_readme_has_the_sections_of_the_zoo_in_order(bundle: Path) -> None:
    text = (bundle / "docs" / "README.md").read_text()
    sections = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    wanted = ["Authors", "Data", "Performance", "Limitations", "References", "Licence"]
    assert [name for name in sections if name in wanted] == wanted
    assert (bundle / "docs" / "data_license.txt").is_file()


@pytest.mark.parametrize("name", ["train.json", "evaluate.json", "inference.json", "multi_gpu_train.json"])
def test_names_that_monai_label_and_the_federated_client_look_for(bundle: Path, name: str) -> None:
    assert (bundle / "configs" / name).is_file()
