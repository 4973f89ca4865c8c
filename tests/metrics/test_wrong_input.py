"""Wrong input ends in an error, or in a NaN that is explained; never in a plausible number."""

from __future__ import annotations

import math

import pytest
import torch

from monai_calib.metrics import (
    CalibrationHistogram,
    ace,
    adaptive_ece,
    brier,
    classwise_ece,
    debiased_ece,
    ece,
    ks_error,
    mce,
    nll,
    over_confidence,
    rmsce,
    sharpness,
    under_confidence,
)
from monai_calib.metrics.inputs import flatten_inputs
from monai_calib.metrics.sums import PROBLEMS, add_flat
from monai_calib.metrics.suspicion import looks_mistaken

LOGITS = torch.randn(1, 3, 6, 5, generator=torch.Generator().manual_seed(0)) * 3
LABEL = torch.randint(0, 3, (1, 1, 6, 5), generator=torch.Generator().manual_seed(1))
ONE_HOT = torch.nn.functional.one_hot(LOGITS.argmax(1), 3).movedim(-1, 1).float()


def with_value(tensor: torch.Tensor, value: float) -> torch.Tensor:
    changed = tensor.clone()
    changed[0, 0, 2, 3] = value
    return changed


WRONG = {
    "NaN": (with_value(LOGITS, math.nan), LABEL, True, "1 voxel whose prediction holds NaN"),
    "infinity": (with_value(LOGITS, math.inf), LABEL, True, "1 voxel whose prediction holds NaN or infinity"),
    "minus infinity": (with_value(LOGITS, -math.inf), LABEL, True, "1 voxel whose prediction holds NaN or infinity"),
    "NaN probability": (with_value(LOGITS.softmax(1), math.nan), LABEL, False, "NaN or infinity"),
    "logits as probabilities": (LOGITS, LABEL, False, "30 voxels whose values lie outside.*from_logits=True"),
    "sum not 1": (LOGITS.softmax(1) * 0.9, LABEL, False, "30 voxels whose values lie outside.*sum to 1"),
    "negative": (LOGITS.softmax(1) * torch.tensor([1.0, 1, 1]).view(3, 1, 1) - 0.1, LABEL, False, "lie outside"),
    "argmaxed as probabilities": (ONE_HOT, LABEL, False, "argmaxed.*strict=False"),
    "argmaxed as logits": (ONE_HOT, LABEL, True, "probabilities.*from_logits=False"),
    "probabilities as logits": (LOGITS.softmax(1), LABEL, True, "probabilities.*from_logits=False"),
    "label too large": (LOGITS, with_value(LABEL, 3), True, "from 0 to 2, got 3"),
    "label negative": (LOGITS, with_value(LABEL, -1), True, "whole class numbers from 0 to 2, got -1"),
    "label 2^32": (LOGITS, with_value(LABEL, 2**32), True, "whole class numbers from 0 to 2, got 4.29497e"),
    "label not whole": (LOGITS, with_value(LABEL.float(), 0.5), True, "whole class numbers from 0 to 2, got 0.5"),
    "label NaN": (LOGITS, with_value(LABEL.float(), math.nan), True, "whole class numbers from 0 to 2, got nan"),
    "soft label that does not sum to 1": (LOGITS, LOGITS.softmax(1) * 0.9, True, "30 voxels whose label"),
    "two labels": (LOGITS, torch.ones(1, 3, 6, 5), True, "30 voxels whose label"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_at_once_and_leave_no_trace(name: str) -> None:
    prediction, label, from_logits, message = WRONG[name]
    hist = CalibrationHistogram(3)
    with pytest.raises(ValueError, match=message):
        hist.update(prediction, label, from_logits=from_logits)
    assert hist.voxels == 0
    assert hist.updates == 0
    hist.check()


@pytest.mark.parametrize("name", WRONG)
def test_where_nothing_waits_wrong_values_are_counted_and_refused_when_asked(name: str) -> None:
    """As on a GPU: the plain path fills the counts, and a figure asked for raises."""
    prediction, label, from_logits, message = WRONG[name]
    hist = CalibrationHistogram(3)
    flat = flatten_inputs(prediction, label, None, 3, "softmax")
    hist.sums.problems[PROBLEMS.index("suspicious")] += looks_mistaken(flat.prediction, "softmax", from_logits)
    add_flat(hist.sums, flat, 960, "softmax", from_logits, None)
    for figure in (ece, classwise_ece, nll, brier, adaptive_ece):
        told = "whose label is no class number" if "from 0 to 2" in message else message
        with pytest.raises(ValueError, match=told.split("1 voxel ")[-1].split("30 voxels ")[-1]):
            figure(hist)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("from_logits", [True, False])
def test_update_never_waits_for_a_device(activation: str, from_logits: bool) -> None:
    """Tensors of the meta device have no values: to look at one, or to let a shape depend on one, is an error."""
    hist = CalibrationHistogram(3, activation=activation, ignore_index=2)  # type: ignore[arg-type]
    label = torch.zeros(1, 3, 6, 5, device="meta")
    hist.update(LOGITS.to("meta"), label, torch.ones(1, 6, 5, device="meta"), from_logits=from_logits)
    hist.update(LOGITS.to("meta"), label, from_logits=from_logits)
    assert hist.sums.count.device.type == "meta"


def test_what_is_meant_can_be_allowed() -> None:
    hist = CalibrationHistogram(3)
    hist.update(ONE_HOT, LABEL, from_logits=False, strict=False)
    assert hist.voxels == 30
    former = CalibrationHistogram(3, strict=False)  # as in 0.1.0: no part of what a histogram is
    former.update(ONE_HOT, LABEL, from_logits=False)
    assert former.merge(hist).voxels == 60


def test_a_saturated_region_of_an_unsaturated_volume_is_fine() -> None:
    p = LOGITS.softmax(1)
    p[..., :3] = ONE_HOT[..., :3]
    mask = torch.zeros(1, 6, 5)
    mask[..., :3] = 1
    hist = CalibrationHistogram(3)
    hist.update(p, LABEL, mask, from_logits=False)
    assert hist.voxels == 18


@pytest.mark.parametrize(
    ("prediction", "label", "mask", "message"),
    [
        (torch.zeros(1, 4, 6, 5), LABEL, None, r"prediction: expected shape \(B, 3, \*spatial\), got \(1, 4, 6, 5\)"),
        (torch.zeros(3, 6), LABEL, None, "prediction: expected shape"),
        (LOGITS, LABEL[..., 1:], None, r"label: expected shape \(1, 1, 6, 5\).*got \(1, 1, 6, 4\)"),
        (LOGITS, torch.zeros(1, 2, 6, 5), None, "label: expected shape"),
        (LOGITS, LABEL, torch.ones(6, 5), r"mask: expected shape.*got \(6, 5\)"),
        (LOGITS, LABEL, LOGITS > 0, "mask: expected shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    prediction: torch.Tensor, label: torch.Tensor, mask: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CalibrationHistogram(3).update(prediction, label, mask)


def test_integer_predictions_are_refused() -> None:
    with pytest.raises(TypeError, match="before argmax"):
        CalibrationHistogram(3).update(ONE_HOT.long(), LABEL)
    with pytest.raises(TypeError, match="list"):
        CalibrationHistogram(3).update([1.0], LABEL)


def test_class_numbers_are_no_multi_label() -> None:
    with pytest.raises(ValueError, match="one channel a class"):
        CalibrationHistogram(3, activation="sigmoid").update(LOGITS, LABEL)
    with pytest.raises(ValueError, match="whose label"):
        CalibrationHistogram(3, activation="sigmoid").update(LOGITS, torch.full_like(LOGITS, 1.5))


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"num_classes": 1}, {"num_classes": 0, "activation": "sigmoid"}):
        with pytest.raises(ValueError, match="num_classes"):
            CalibrationHistogram(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="activation"):
        CalibrationHistogram(2, activation="softmin")  # type: ignore[arg-type]
    hist = CalibrationHistogram(3)
    with pytest.raises(ValueError, match=r"class_index: expected 0 ... 2, got 3"):
        ece(hist, class_index=3)


def test_an_empty_region_gives_nan_and_says_so() -> None:
    hist = CalibrationHistogram(3)
    hist.update(LOGITS, LABEL, torch.zeros(1, 6, 5))
    figures = (ece, ace, mce, rmsce, adaptive_ece, over_confidence, under_confidence, ks_error, debiased_ece)
    for figure in (*figures, classwise_ece, nll, brier, sharpness):
        assert math.isnan(figure(hist)), figure.__name__
    assert "no voxel in 1 update: the region was empty" in hist.describe()


def test_a_volume_without_voxels_is_an_empty_region() -> None:
    hist = CalibrationHistogram(3)
    hist.update(LOGITS[..., :0], LABEL[..., :0])
    assert math.isnan(ece(hist))
