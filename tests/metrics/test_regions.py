"""Regions against closed forms and against brute force over all pairs of voxels."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from monai_calib.metrics.regions import Region, RegionMasks, bounding_box, region_mask


def brute_force(region: str, label: np.ndarray, prediction: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """The definitions read aloud: every voxel against every other."""
    kind, _, size = region.partition(":")
    radius = float(size[:-2] or 0)
    voxels = np.array(list(product(*map(range, label.shape))))
    centres = voxels * np.array(spacing)
    distance = np.sqrt(((centres[:, None] - centres[None]) ** 2).sum(-1))
    near = distance <= radius + 1e-4
    union = ((label != 0) | (prediction != 0)).ravel()
    if kind == "dilated":
        inside = (near & union[None]).any(1)
    else:
        inside = np.zeros(label.size, bool)
        for labels in (label.ravel(), prediction.ravel()):
            inside |= (near & (labels[:, None] != labels[None])).any(1)
    return inside.reshape(label.shape)


def ball(shape: tuple[int, ...], spacing: tuple[float, ...], radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A ball of voxels around the middle of the grid, and each voxel's distance to the middle in mm."""
    axes = [(torch.arange(n) - n // 2) * s for n, s in zip(shape, spacing, strict=True)]
    distance = torch.stack(torch.meshgrid(*axes, indexing="ij")).double().square().sum(0).sqrt()
    return (distance <= radius).long(), distance


@settings(max_examples=60, deadline=None)
@given(
    shape=st.one_of(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 6)] * 3)),
    kind=st.sampled_from(["dilated", "boundary"]),
    radius=st.sampled_from([0.7, 1.4, 2.0, 3.5]),
    spacings=st.tuples(*[st.sampled_from([0.7, 1.0, 2.5])] * 3),
    seed=st.integers(0, 2**16),
)
def test_equals_brute_force(shape, kind, radius, spacings, seed):
    rng = np.random.default_rng(seed)
    label, prediction = rng.choice(6, size=(2, *shape), p=[0.85, 0.03, 0.03, 0.03, 0.03, 0.03])
    spacing = spacings[: len(shape)]
    region = f"{kind}:{radius}mm"
    mask = region_mask(region, torch.from_numpy(label), torch.from_numpy(prediction), spacing)
    np.testing.assert_array_equal(mask.numpy(), brute_force(region, label, prediction, spacing))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 2.5)])
def test_dilated_ball_equals_scipys_distance_map(spacing):
    label, _ = ball((40, 40, 30), spacing, 7.0)
    mask = region_mask("dilated:4mm", label, torch.zeros_like(label), spacing)
    outside = distance_transform_edt(label.numpy() == 0, sampling=spacing)
    np.testing.assert_array_equal(mask.numpy(), outside <= 4.0 + 1e-6)


def test_boundary_of_a_half_space_is_a_slab():
    label = torch.zeros(4, 5, 20, dtype=torch.long)
    label[..., 10:] = 1
    mask = region_mask("boundary:3mm", label, label, (1.0, 1.0, 1.5))
    assert mask[0, 0].nonzero().flatten().tolist() == [8, 9, 10, 11]  # two voxels of 1.5 mm on either side
    assert mask.sum() == 4 * 5 * 4


def test_boundary_between_two_foreground_classes_counts():
    label = torch.ones(1, 10, dtype=torch.long)
    label[:, 5:] = 2
    assert region_mask("boundary:1mm", label, label, (1.0, 1.0))[0].nonzero().flatten().tolist() == [4, 5]


def test_boundary_follows_truth_and_prediction():
    label, prediction = torch.zeros(2, 1, 30, dtype=torch.long)
    label[:, 5:8], prediction[:, 20:23] = 1, 2
    mask = region_mask("boundary:1mm", label, prediction, (1.0, 1.0))[0]
    assert mask.nonzero().flatten().tolist() == [4, 5, 7, 8, 19, 20, 22, 23]


def test_the_edge_of_the_volume_is_no_boundary():
    assert not region_mask("boundary:2mm", torch.ones(5, 5), torch.ones(5, 5), (1.0, 1.0)).any()


def test_box_and_margin():
    label, prediction = torch.zeros(2, 12, 12, 12, dtype=torch.long)
    label[4, 5, 6] = 1
    prediction[5, 5, 6] = 1
    assert region_mask("bbox", label, prediction).sum() == 2
    widened = region_mask("bbox:3mm", label, prediction, (1.0, 1.0, 2.0))
    assert widened.sum() == (2 + 6) * (1 + 6) * (1 + 2)
    assert bounding_box(widened) == (slice(1, 9), slice(2, 9), slice(5, 8))
    assert region_mask("bbox:100mm", label, prediction, (1.0, 1.0, 2.0)).all()


def test_foreground_union_all_and_users_mask():
    label = torch.tensor([[0, 1, 0, 2]])
    prediction = torch.tensor([[1, 0, 0, 2]])
    lung = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
    assert region_mask("foreground", label).tolist() == [[False, True, False, True]]
    assert region_mask("predicted", label, prediction).tolist() == [[True, False, False, True]]
    assert region_mask("union", label, prediction).tolist() == [[True, True, False, True]]
    assert region_mask("all", label).all()
    assert region_mask("mask:lung", label, masks={"lung": lung}).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize(
    "region", ["foreground", "predicted", "union", "dilated:5mm", "boundary:5mm", "bbox", "bbox:5mm"]
)
def test_empty_truth_and_prediction_give_an_empty_region(region):
    nothing = torch.zeros(4, 4, 4, dtype=torch.long)
    assert not region_mask(region, nothing, nothing, (1.0, 1.0, 1.0)).any()


@pytest.mark.parametrize("region", ["union", "dilated:2mm", "boundary:2mm", "bbox"])
def test_a_missed_structure_still_makes_a_region(region):
    label = torch.zeros(9, 9, dtype=torch.long)
    label[4, 4] = 1
    assert region_mask(region, label, torch.zeros_like(label), (1.0, 1.0)).any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32])
def test_label_dtypes_agree(dtype):
    label, _ = ball((9, 9), (1.0, 1.0), 3.0)
    expected = region_mask("boundary:2mm", label, label, (1.0, 1.0))
    assert torch.equal(region_mask("boundary:2mm", label.to(dtype), label.to(dtype), (1.0, 1.0)), expected)


@pytest.mark.parametrize("largest", [255, 256, 70_000])
def test_labels_of_any_size_agree(largest):
    label, distance = ball((9, 10, 11), (1.0, 1.0, 1.0), 4.0)
    label[distance <= 2.0] = 2
    expected = region_mask("boundary:2mm", label, label.roll(1), (1.0, 1.0, 1.0))
    large = torch.tensor([0, 1, largest])[label]
    assert torch.equal(region_mask("boundary:2mm", large, large.roll(1), (1.0, 1.0, 1.0)), expected)


def test_regions_drawn_together_are_those_drawn_alone():
    label, distance = ball((12, 13, 14), (1.0, 1.0, 2.0), 5.0)
    prediction = (distance <= 3.0).long().roll(2)
    case = (label, prediction, (1.0, 1.0, 2.0), {"lung": distance < 9.0})
    regions = [
        "bbox:3mm",
        "boundary:2mm",
        "union",
        "dilated:4mm",
        "all",
        "mask:lung",
        "bbox",
        "foreground",
        "predicted",
    ]
    together = RegionMasks(*case)
    for region in (*regions, *regions):
        assert torch.equal(together.draw(region), region_mask(region, *case))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("region", ["union", "dilated:3mm", "boundary:3mm", "bbox:3mm"])
def test_cuda_equals_cpu(region):
    label, distance = ball((30, 31, 32), (0.9, 0.9, 2.0), 8.0)
    prediction = (distance <= 6).long() * 2
    expected = region_mask(region, label, prediction, (0.9, 0.9, 2.0))
    assert torch.equal(region_mask(region, label.cuda(), prediction.cuda(), (0.9, 0.9, 2.0)).cpu(), expected)


@pytest.mark.parametrize("text", ["all", "predicted", "union", "dilated:5mm", "boundary:2.5mm", "bbox", "mask:lung"])
def test_text_round_trip(text):
    assert str(Region.parse(text)) == text
    assert set(Region.parse(text).name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("edge", "unknown region 'edge'"),
        ("boundary", "needs a positive size in mm"),
        ("boundary:0mm", "needs a positive size in mm"),
        ("boundary:2", "cannot read the size"),
        ("union:2mm", "has no size"),
        ("mask", "written 'mask:<key>'"),
        ("mask:all", "not be a region's name"),
    ],
)
def test_wrong_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Region.parse(text)


def test_wrong_input_is_refused():
    label = torch.zeros(3, 3)
    with pytest.raises(ValueError, match="needs the prediction"):
        region_mask("union", label)
    with pytest.raises(ValueError, match="prediction: expected the label's shape"):
        region_mask("union", label, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="needs the voxel spacing"):
        region_mask("boundary:2mm", label, label)
    with pytest.raises(ValueError, match="one positive number in mm for each of 2 axes"):
        region_mask("boundary:2mm", label, label, (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="needs a mask under the key 'lung'"):
        region_mask("mask:lung", label)
    with pytest.raises(ValueError, match="mask 'lung' has shape"):
        region_mask("mask:lung", label, masks={"lung": torch.zeros(2, 2)})


def test_ignored_voxels_form_no_boundary_and_count_nowhere() -> None:
    """They used to become background, whose border with the foreground was then measured."""
    label, prediction = torch.tensor([1, 1, 1, 255, 255, 255]), torch.ones(6, dtype=torch.int64)
    masks = RegionMasks(label, prediction, spacing=(1.0,), ignored=label == 255)
    assert masks.draw("boundary:2mm").sum() == 0
    for region in ("all", "union", "predicted", "dilated:2mm", "bbox:2mm", "foreground"):
        assert masks.draw(region).tolist() == [True] * 3 + [False] * 3
    # what stands under them changes nothing, and a real boundary beside them stays
    other = torch.tensor([0, 1, 1, 0, 3, 7])
    found = RegionMasks(other, prediction * 0, spacing=(1.0,), ignored=label == 255).draw("boundary:1mm")
    assert found.tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("spacing", [None, (0.5, 4.0), (1.0, 1.0)])
def test_sizes_in_voxels_do_not_depend_on_spacing(spacing: tuple[float, ...] | None) -> None:
    label = torch.zeros(9, 9, dtype=torch.int64)
    label[4, 4] = 1
    for name in ("dilated", "boundary"):
        found = RegionMasks(label, label, spacing).draw(f"{name}:2vx")
        assert torch.equal(found, RegionMasks(label, label, (1.0, 1.0)).draw(f"{name}:2mm"))
    assert RegionMasks(label, label, spacing).draw("bbox:2vx").sum() == 25


def test_the_larger_of_mm_and_voxels_counts_along_each_axis() -> None:
    label = torch.zeros(21, 21, dtype=torch.int64)
    label[10, 10] = 1
    found = RegionMasks(label, label, (0.5, 3.0)).draw("dilated:max(2mm,2vx)")
    assert found[:, 10].sum() == 2 * 4 + 1
    assert found[10].sum() == 2 * 2 + 1
    fine = RegionMasks(label, label, (0.5, 0.5))
    assert torch.equal(fine.draw("boundary:max(2mm,2vx)"), fine.draw("boundary:2mm"))
    for text in ("boundary:max(2mm,2vx)", "boundary:2vx", "bbox:1.5vx"):
        region = Region.parse(text)
        assert Region.parse(str(region)) == region
        assert re.fullmatch(r"[a-z0-9.]+", region.name)
