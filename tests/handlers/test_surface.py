"""Surface distances against MONAI's metric functions and closed forms, and missed structures."""

from __future__ import annotations

import math

import pytest
import torch
from evaluation import evaluator, run_plain, write_cases
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

from monai_calib.handlers import SurfaceHandler
from monai_calib.handlers.surface import surface_metrics

SPACING = (1.5, 1.0, 0.7)


def box(*slices: slice, shape: tuple[int, ...] = (16, 16, 16)) -> torch.Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[slices] = True
    return mask


def test_equals_monais_metrics():
    generator = torch.Generator().manual_seed(0)
    label = box(slice(3, 10), slice(4, 12), slice(2, 9)) ^ (torch.rand(16, 16, 16, generator=generator) > 0.97)
    prediction = box(slice(4, 12), slice(4, 11), slice(3, 10))
    hd95, assd, dice_1, dice_2, missed = surface_metrics(prediction, label, SPACING, (1.0, 2.0))
    masks = {"y_pred": prediction[None, None].float(), "y": label[None, None].float()}
    options = {"include_background": True, "spacing": list(SPACING)}
    assert hd95 == pytest.approx(compute_hausdorff_distance(**masks, percentile=95, **options).item(), rel=1e-6)
    assert assd == pytest.approx(compute_average_surface_distance(**masks, symmetric=True, **options).item(), rel=1e-6)
    for tolerance, found in ((1.0, dice_1), (2.0, dice_2)):
        expected = compute_surface_dice(**masks, class_thresholds=[tolerance], **options).item()
        assert found == pytest.approx(expected, rel=1e-6)
    assert missed == 0.0


@pytest.mark.parametrize(("axis", "spacing"), enumerate(SPACING))
def test_a_shifted_plane_is_as_far_as_its_shift_in_mm(axis, spacing):
    slices = [slice(None)] * 3
    slices[axis] = slice(4, 5)
    label = box(*slices)
    figures = surface_metrics(label.roll(3, axis), label, SPACING, (3 * spacing - 0.01, 3 * spacing))
    assert figures == pytest.approx([3 * spacing, 3 * spacing, 0.0, 1.0, 0.0], rel=1e-6)


def test_a_missed_structure_scores_the_diagonal_and_no_structure_nothing():
    label, nothing = box(slice(3, 5)), torch.zeros(16, 16, 16, dtype=torch.bool)
    diagonal = 16 * math.sqrt(1.5**2 + 1.0**2 + 0.7**2)
    assert surface_metrics(nothing, label, SPACING, (1.0,)) == pytest.approx([diagonal, diagonal, 0.0, 1.0])
    assert surface_metrics(label, nothing, SPACING, (1.0,)) == pytest.approx([diagonal, diagonal, 0.0, 1.0])
    assert all(math.isnan(v) for v in surface_metrics(nothing, nothing, SPACING, (1.0,)))


def test_mean_over_classes_then_cases():
    truth = torch.zeros(2, 1, 8, 8)
    truth[0, 0, 1:3, 1:3], truth[0, 0, 5:7, 5:7] = 1, 2
    truth[1, 0, 1:3, 1:3] = 1
    prediction = truth.clone()
    prediction[0, 0, 5:7, 5:7] = 0  # class 2 of the first case is missed; in the second it is in neither
    handler = SurfaceHandler(3, output_transform=lambda output: output, spacing=(1.0, 1.0))
    state = run_plain(handler, (prediction, truth))
    assert state.metrics["hd95_mm"] == pytest.approx((0 + math.hypot(8, 8)) / 2 / 2)
    assert state.metrics["surface_dice_1mm"] == pytest.approx((0.5 + 1) / 2)
    assert state.metrics["missed_rate"] == pytest.approx(0.5 / 2)
    assert state.metric_details["missed_rate"].shape == (2, 2)
    assert state.metric_details["missed_rate"][1].isnan().tolist() == [False, True]


def test_one_hot_and_index_predictions_agree_and_headers_give_the_spacing(tmp_path):
    items = write_cases(tmp_path, 2)
    by_index = evaluator(items, [SurfaceHandler(3, tolerances_mm=(1.0, 2.5))])
    by_index.run()
    from_prob = SurfaceHandler(
        3,
        tolerances_mm=(1.0, 2.5),
        output_transform=lambda output: ([case["prob"] for case in output], [case["label"] for case in output]),
    )
    by_channel = evaluator(items, [from_prob])
    by_channel.run()
    assert by_index.state.metrics == by_channel.state.metrics
    assert set(by_index.state.metrics) == {
        "hd95_mm",
        "assd_mm",
        "surface_dice_1mm",
        "surface_dice_2.5mm",
        "missed_rate",
    }


def test_wrong_input_is_refused():
    handler = SurfaceHandler(2, output_transform=lambda output: output, spacing=(1.0, 1.0))
    with pytest.raises(ValueError, match="case case_0001: label: expected whole class numbers from 0 to 1, got 2"):
        run_plain(handler, (torch.zeros(1, 1, 4, 4), torch.eye(4)[None, None] * 2))
    with pytest.raises(ValueError, match="case case_0001: expected a label with the grid"):
        run_plain(handler, (torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5)))
    with pytest.raises(ValueError, match="at least 2 classes and tolerances"):
        SurfaceHandler(2, tolerances_mm=(-1.0,))


@pytest.mark.parametrize("wrong", [255, 7, -1, float("nan"), 1.9998])
@pytest.mark.parametrize("of", ["label", "prediction"])
def test_a_value_that_is_no_class_is_refused_and_never_measured(wrong, of):
    """Where the check was a comparison of the ends of the range, fractions and NaN passed and gave another distance."""
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., 2:5, 2:5] = 2
    spoilt = torch.where(truth == 2, torch.tensor(float(wrong)), truth)
    output = (truth, spoilt) if of == "label" else (spoilt, truth)
    handler = SurfaceHandler(3, output_transform=lambda output: output, spacing=(1.0, 1.0))
    with pytest.raises(ValueError, match=f"case case_0001: {of}: expected whole class numbers from 0 to 2"):
        run_plain(handler, output)


def test_ignored_voxels_and_pixels():
    truth, prediction = torch.zeros(2, 1, 1, 8, 8)
    truth[..., 2:5, 2:5], prediction[..., 2:5, 2:5] = 1, 1
    prediction[..., 6:] = 1
    ignored = truth.clone()
    ignored[..., 6:] = 255
    arguments = {"output_transform": lambda output: output, "spacing": (3.0, 3.0)}
    assert run_plain(SurfaceHandler(2, **arguments), (prediction, truth)).metrics["hd95_mm"] > 0
    found = run_plain(SurfaceHandler(2, ignore_index=255, **arguments), (prediction, ignored)).metrics
    assert (found["hd95_mm"], found["surface_dice_1mm"]) == (0.0, 1.0)
    prediction[..., 6:] = 0
    prediction[..., 5, 2:5] = 1
    assert run_plain(SurfaceHandler(2, **arguments), (prediction, truth)).metrics["hd95_mm"] == 3.0
    assert run_plain(SurfaceHandler(2, unit="px", **arguments), (prediction, truth)).metrics["hd95_px"] == 1.0
