"""Labels of several raters on their way from files to a soft label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_calib.labels import mean_label
from monai_calib.losses import build_loss
from monai_calib.transforms import KeepRatersd, LoadCased, MeanLabeld

SHAPE = (6, 5, 4)
AFFINE = np.diag([0.5, 0.7, 2.0, 1.0])


def raters(count: int, classes: int = 3, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randint(classes, (count, *shape), generator=torch.Generator().manual_seed(seed))


def write(path: Path, array: Any, affine: np.ndarray = AFFINE) -> str:
    nib.save(nib.Nifti1Image(np.asarray(array, np.uint8), affine), path)
    return str(path)


def files(folder: Path, labels: torch.Tensor) -> dict[str, Any]:
    image = np.random.default_rng(0).integers(0, 200, SHAPE)
    return {
        "image": write(folder / "image.nii.gz", image),
        "label": [write(folder / f"rater_{r}.nii.gz", label) for r, label in enumerate(labels)],
    }


def test_shares_are_counts_of_raters_over_their_number() -> None:
    labels = raters(7)
    shares = mean_label(labels, 3)
    for k in range(3):
        assert torch.equal(shares[k], (labels == k).float().mean(0))


def test_a_rater_who_left_a_voxel_out_has_no_share_in_it() -> None:
    labels = torch.tensor([[0, 255, 255], [1, 1, 255], [1, 2, 255]])
    third = 1 / 3
    expected = torch.tensor([[third, 0, 255], [2 * third, 0.5, 255], [0, 0.5, 255]])
    assert torch.allclose(mean_label(labels, 3, ignore_index=255), expected)


def test_a_list_of_label_files_is_read_as_one_channel_a_rater_and_averaged(tmp_path: Path) -> None:
    labels = raters(3)
    case = LoadCased(("image", "label"), num_classes=3)(files(tmp_path, labels))
    assert case["image"].shape == (1, *SHAPE)
    assert torch.equal(case["label"].as_tensor().long(), labels)
    mean = MeanLabeld("label", num_classes=3)(case)["label"]
    assert torch.equal(mean.as_tensor(), mean_label(labels, 3))
    assert isinstance(mean, MetaTensor)
    assert np.allclose(mean.affine, case["image"].affine)


def test_each_raters_file_is_checked_and_named(tmp_path: Path) -> None:
    load = LoadCased(("image", "label"), num_classes=3)
    case = files(tmp_path, raters(3))
    write(tmp_path / "rater_1.nii.gz", np.full(SHAPE, 7))
    with pytest.raises(ValueError, match=r"rater_1\.nii\.gz.*got 7"):
        load(case)
    write(tmp_path / "rater_1.nii.gz", np.zeros((6, 5, 3)))
    with pytest.raises(ValueError, match=r"rater_1\.nii\.gz' has \(6, 5, 3\)"):
        load(case)
    moved = AFFINE.copy()
    moved[0, 3] = 5
    write(tmp_path / "rater_1.nii.gz", np.zeros(SHAPE), moved)
    with pytest.raises(ValueError, match=r"rater_1\.nii\.gz: the headers put label and image"):
        load(case)
    (tmp_path / "rater_2.nii.gz").write_bytes(b"no image")
    with pytest.raises(RuntimeError, match=r"rater_2\.nii\.gz"):
        load(case)


def test_labels_without_image_must_lie_in_one_place(tmp_path: Path) -> None:
    case = files(tmp_path, raters(2))
    write(tmp_path / "rater_1.nii.gz", np.zeros((6, 5, 3)))
    with pytest.raises(ValueError, match=r"rater_1\.nii\.gz"):
        LoadCased("label", num_classes=3)(case)


def test_the_majority_is_the_class_most_raters_gave_and_one_label_stays_as_it_is() -> None:
    labels = raters(5, seed=3)
    kept = KeepRatersd("label", num_classes=3)({"label": labels})
    votes = np.apply_along_axis(lambda column: np.bincount(column, minlength=3).argmax(), 0, labels.numpy())
    assert np.array_equal(kept["label"][0].numpy(), votes)
    assert torch.equal(kept["raters"], labels)
    alone = {"label": labels[:1]}
    assert KeepRatersd("label", num_classes=3)(alone) == alone


def test_where_no_rater_knows_the_majority_is_ignored() -> None:
    labels = torch.tensor([[255, 255, 1], [255, 2, 0], [255, 2, 0]])
    kept = KeepRatersd("label", num_classes=3, ignore_index=255)({"label": labels})
    assert kept["label"].tolist() == [[255, 2, 0]]


@pytest.mark.parametrize("name", ["ce", "ecp", "mbls", "ls"])
def test_what_is_linear_in_the_label_is_the_mean_over_the_raters(name: str) -> None:
    labels = raters(4, seed=5)
    logits = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = build_loss(name)
    of_mean = loss(logits, mean_label(labels, 3)[None])
    of_each = torch.stack([loss(logits, label[None, None]) for label in labels]).mean()
    assert torch.allclose(of_mean, of_each, rtol=1e-6)
