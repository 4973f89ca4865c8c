"""What reaches the network in training: caches, visits and crops."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
import torch
from bundle_runs import config_files, load_workflow, named
from monai.data import CacheDataset, PersistentDataset
from monai.transforms import Compose, RandomizableTrait
from official_layouts import LAYOUTS, script

from monai_calib.datasets.convert import convert

KITS_2D, KITS_3D = (named(f"kits19_segmentation_{dims}d") for dims in (2, 3))
HIPPOCAMPUS_2D = named("msd_hippocampus_segmentation_2d")


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kits")
    convert(script("kits19"), LAYOUTS["kits19"](folder / "official").source, folder / "converted")
    return folder / "converted"


def parsed(bundle: Path, **settings: Any) -> monai.bundle.ConfigParser:
    parser = monai.bundle.ConfigParser()
    parser.read_config(config_files(bundle, "train"))
    parser.update({"bundle_root": str(bundle), **settings})
    return parser


def on_disk(data: Path, cache: Path, **settings: Any) -> PersistentDataset:
    """The training set of the 2D kidney bundle, of which the first case has been asked for."""
    parser = parsed(KITS_2D, dataset_dir=str(data), cache_dir=str(cache), **settings)
    dataset = parser.get_parsed_content("train#dataset")
    assert isinstance(dataset, PersistentDataset)
    dataset[0]
    return dataset


def times(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}


def test_prepared_volumes_are_read_again_unless_their_preparation_changed(kits: Path, tmp_path: Path) -> None:
    on_disk(kits, tmp_path)
    first = times(tmp_path)
    assert len(first) == 1
    on_disk(kits, tmp_path)
    assert times(tmp_path) == first
    on_disk(kits, tmp_path, **{"train#preprocessing#transforms#3#a_max": 200})
    assert len(times(tmp_path)) == 2


@pytest.mark.slow
def test_another_process_finds_the_prepared_volumes(kits: Path, tmp_path: Path) -> None:
    on_disk(kits, tmp_path)
    first = times(tmp_path)
    command = f"from test_loading import on_disk; on_disk({str(kits)!r}, {str(tmp_path)!r})"
    folders = os.pathsep.join(
        [str(Path(__file__).parent), str(Path(__file__).parents[1] / "data_scripts"), os.getcwd()]
    )
    environment = {**os.environ, "PYTHONPATH": folders, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", command], check=True, env=environment, capture_output=True)
    assert times(tmp_path) == first


def test_batches_are_copies_of_the_volumes_in_memory(phantom: Path) -> None:
    """The cache is not copied before the crop, so that a batch must not share its memory."""
    parser = parsed(HIPPOCAMPUS_2D, dataset_dir=str(phantom), patch_size=[8, 8], device="cpu")
    dataset = parser.get_parsed_content("train#dataset")
    assert isinstance(dataset, CacheDataset)
    before = [{key: case[key].clone() for key in ("image", "label")} for case in dataset._cache]
    for batch in parser.get_parsed_content("train#dataloader"):
        assert batch["image"].shape[1:] == batch["label"].shape[1:] == (1, 8, 8)
        batch["image"].zero_()
        batch["label"].fill_(2)
    for case, kept in zip(dataset._cache, before, strict=True):
        assert all(torch.equal(case[key], kept[key]) for key in kept)


def test_an_epoch_visits_each_volume_as_often_as_asked(phantom: Path, tmp_path: Path) -> None:
    settings = {"dataset_dir": str(phantom), "run_dir": str(tmp_path), "batch_size": 2, "visits_per_epoch": 5}
    workflow = load_workflow(HIPPOCAMPUS_2D, "train", **settings)
    loader = workflow.trainer.data_loader
    cases = len(workflow.train_dataset)
    assert len(loader) == -(-5 * cases // 2)
    seen = Counter(case for batch in loader for case in batch["case"][:: workflow.parser["samples_per_volume"]])
    assert set(seen.values()) == {5}
    assert len(seen) == cases


def crops_alone(bundle: Path, patch: list[int], samples: int) -> Compose:
    """The steps of the training that cut, behind loading and normalisation."""
    steps = parsed(bundle, patch_size=patch, samples_per_volume=samples).get_parsed_content("train#preprocessing")
    names = [type(step).__name__ for step in steps.transforms]
    return Compose(steps.transforms[names.index("SpatialPadd") :])


def test_half_of_the_balanced_crops_are_centred_on_the_classes_in_equal_parts() -> None:
    label = torch.zeros(1, 48, 48, 48, dtype=torch.uint8)
    label[:, 16:32, 16:32, 16:32] = 1
    label[:, 24, 24, 24:26] = 2  # a tumour of two voxels
    cut = crops_alone(KITS_3D, [16, 16, 16], samples=600)
    cut.set_random_state(0)
    samples = cut({"image": label.float(), "label": label})
    shares = Counter(int(sample["label"][0, 8, 8, 8]) for sample in samples)
    assert all(sample["label"].shape == (1, 16, 16, 16) for sample in samples)
    # 1/2, 1/4, 1/4; four standard deviations are 0.08. A background centre near the border is moved inwards, where it
    # may meet the kidney: background loses some 10 % of its share.
    assert shares[2] / 600 == pytest.approx(1 / 4, abs=0.08)
    assert 0.17 < shares[1] / 600 < 0.45
    assert "label_cls_indices" not in samples[0]


def test_a_volume_without_one_of_the_classes_is_cut_all_the_same() -> None:
    label = torch.zeros(1, 20, 20, 20, dtype=torch.uint8)
    label[:, 8:12, 8:12, 8:12] = 1
    samples = crops_alone(KITS_3D, [16, 16, 16], samples=8)({"image": label.float(), "label": label})
    assert len(samples) == 8


def test_crops_are_balanced_in_3d_where_the_structure_is_small_and_nowhere_else() -> None:
    balanced = {"amos22", "brats19", "flare21", "kits19", "msd_prostate", "promise12"}
    for path in sorted(KITS_3D.parent.glob("*_segmentation_*")):
        steps = parsed(path)["train#preprocessing#transforms"]
        names = {step["_target_"] for step in steps}
        expected = path.name in {f"{key}_segmentation_3d" for key in balanced}
        assert ("RandCropByLabelClassesd" in names) == expected, path.name
        assert ("RandSpatialCropSamplesd" in names) != expected, path.name


def test_nothing_random_comes_before_the_crop() -> None:
    """Everything before the first random step is prepared once and cached."""
    for bundle in (KITS_2D, KITS_3D, HIPPOCAMPUS_2D):
        steps = parsed(bundle).get_parsed_content("train#preprocessing").transforms
        kinds = [isinstance(step, RandomizableTrait) for step in steps]
        assert sum(kinds) == 1
        assert len(steps) - kinds.index(True) <= 3


@pytest.mark.parametrize("bundle", [KITS_2D, KITS_3D], ids=["2d", "3d"])
def test_augmentation_changes_crops_and_keeps_labels_labels(bundle: Path, kits: Path) -> None:
    settings = {"dataset_dir": str(kits), "cache_rate": 0, "cache_dir": ""}
    names = {
        augmentation: [
            type(transform).__name__
            for transform in parsed(bundle, augmentation=augmentation, **settings)
            .get_parsed_content("train#preprocessing")
            .transforms
        ]
        for augmentation in (False, True)
    }
    added = ["RandAffined", "RandGaussianNoised", "RandAdjustContrastd", "RandScaleIntensityd"]
    assert [name for name in names[True] if name not in added] == names[False]
    preprocessing = parsed(bundle, augmentation=True, **settings).get_parsed_content("train#preprocessing")
    for transform in preprocessing.transforms:
        if type(transform).__name__ in added:
            transform.prob = 1.0
    preprocessing.set_random_state(0)
    entry = parsed(bundle, **settings).get_parsed_content("train#dataset").data[0]
    for crop in preprocessing(entry):
        assert crop["image"].shape[1:] == crop["label"].shape[1:]
        assert set(crop["label"].unique().tolist()) <= {0, 1, 2}
        assert crop["image"].isfinite().all()
