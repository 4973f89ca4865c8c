"""Dictionary transforms for a clinician: volumes, expected Dice, a flag."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_calib.transforms import ExpectedDiced, ExpectedVolumed, QualityFlagd


def chain() -> Compose:
    names = ["background", "lesion"]
    return Compose([ExpectedDiced("prob", names), ExpectedVolumed("prob", 2.0, names), QualityFlagd(0.7, 0.5)])


def test_a_case_gets_volumes_dice_and_a_flag() -> None:
    p = torch.full((1, 10, 10, 10), 0.001)
    p[:, 2:8, 2:8, 2:8] = 0.999
    prob = MetaTensor(torch.cat([1 - p, p]), affine=torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0])))
    case = chain()({"prob": prob})
    assert case["volumes"]["lesion"]["label_ml"] == pytest.approx(0.432)
    assert case["volumes"]["lesion"]["low_ml"] < case["volumes"]["lesion"]["ml"] < case["volumes"]["lesion"]["high_ml"]
    assert case["quality"] == {"flag": "ok", "reasons": []}
    unsure = chain()({"prob": MetaTensor(0.6 * prob.as_tensor() + 0.2, affine=prob.affine)})
    assert unsure["quality"]["flag"] == "check"
    missed = chain()({"prob": MetaTensor(torch.stack([0.7 + 0 * p[0], 0.3 + 0 * p[0]]), affine=prob.affine)})
    assert any("not found" in reason for reason in missed["quality"]["reasons"])


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="need the voxel size"):
        ExpectedVolumed("prob", 2.0)({"prob": torch.full((2, 4, 4), 0.5)})
    with pytest.raises(KeyError, match="list ExpectedVolumed before"):
        QualityFlagd()({"expected_dice": {}})


def test_names_of_the_first_version_are_where_they_were() -> None:
    for module, place in (
        ("transforms", "clinical"),
        ("transforms.volumes", "clinical.volumes"),
        ("transforms.conformal_volumes", "clinical"),
        ("transforms.overlap", "clinical"),
        ("posthoc", "clinical"),
        ("posthoc.conformal", "clinical"),
    ):
        old, new = import_module(f"monai_calib.{module}"), import_module(f"monai_calib.{place}")
        shared = set(old.__all__) & set(new.__all__)
        assert shared
        assert all(getattr(old, name) is getattr(new, name) for name in shared)
