"""Order of axes and numbers of a map, for any input: back and forth, and within what rounding allows."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_calib.files import FileError
from monai_calib.metrics.sums import SMALLEST_PROBABILITY
from monai_calib.predictions.axes import Layout, SwappedAxes
from monai_calib.predictions.classes import Classes
from monai_calib.predictions.values import HALF_FLOOR, probabilities_of

ORDERS = ["".join(order) for order in permutations("kxyz")]
SIZES = st.tuples(*[st.integers(1, 5)] * 4)


@given(SIZES, st.sampled_from(ORDERS))
def test_every_order_comes_back(sizes, axes):
    of = dict(zip("kxyz", sizes, strict=True))
    array = np.arange(np.prod(sizes)).reshape([of[axis] for axis in axes])
    layout = Layout(array.shape, axes, sizes[1:], "a.npz", sizes[0])
    values = layout.class_first(array)
    assert values.shape == sizes
    # one voxel, found by its indices in either order
    place = {axis: of[axis] - 1 for axis in "kxyz"}
    assert values[tuple(place[a] for a in "kxyz")] == array[tuple(place[a] for a in axes)]
    np.testing.assert_array_equal(layout.as_stored(values), array)


@pytest.mark.parametrize(("axes", "right"), [(a, b) for a in ("kzyx", "xyzk") for b in ORDERS if a != b])
def test_a_wrong_order_is_told_with_the_right_one(axes, right):
    sizes = {"k": 2, "x": 30, "y": 40, "z": 50}
    with pytest.raises(FileError, match=f"The axes are swapped: --axes {right} fits"):
        Layout([sizes[axis] for axis in right], axes, (30, 40, 50), "a.npz", 2)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_axes_of_one_length_are_told_by_the_overlap(order):
    grid = np.indices((9, 9, 9))
    truth = (grid[0] < 7) & (grid[1] < 4) & (grid[2] < 2)
    seen = SwappedAxes("kxyz")
    seen.add(truth.transpose(order), truth)
    better = seen.better()
    assert (better is None) == (order == (0, 1, 2))
    if better is not None:
        back = Layout((1, 9, 9, 9), better, (9, 9, 9), "a.npz").class_first(truth.transpose(order)[None])
        np.testing.assert_array_equal(back[0], truth)


def _maps(seed: int, classes: int, sharpness: float) -> np.ndarray:
    logits = sharpness * np.random.default_rng(seed).normal(size=(classes, 3, 4, 2))
    return torch.from_numpy(logits).softmax(0).numpy()


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(2, 14), st.floats(0.1, 40))
def test_what_rounding_to_float16_took_away_is_bounded(seed, classes, sharpness):
    exact = _maps(seed, classes, sharpness)
    found = probabilities_of(exact.astype(np.float16), np.dtype(np.float16), False, "a.npz")
    assert found.floored == int((exact.astype(np.float16) == 0).sum())
    np.testing.assert_allclose(found.values, exact, rtol=2e-3, atol=HALF_FLOOR * 2)
    np.testing.assert_allclose(found.values.sum(0), 1, atol=1e-6)
    assert float(found.values.min()) >= HALF_FLOOR * (1 - 1e-6)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(2, 14), st.floats(0.1, 40))
def test_float32_stays_to_the_last_bit_where_it_is_normal(seed, classes, sharpness):
    exact = _maps(seed, classes, sharpness).astype(np.float32)
    found = probabilities_of(exact, np.dtype(np.float32), False, "a.npz")
    np.testing.assert_array_equal(found.values, np.maximum(exact, np.float32(SMALLEST_PROBABILITY)))
    assert found.floored == 0


def test_classes_of_nnunet_and_the_decathlon(tmp_path):
    for text in (
        '{"labels": {"background": 0, "a": 2, "b": 1}}',
        '{"labels": {"0": "background", "1": "b", "2": "a"}}',
    ):
        (tmp_path / "dataset.json").write_text(text)
        found = Classes.from_dataset([tmp_path / "nowhere", tmp_path])
        assert (found.names, found.values) == (("background", "b", "a"), (0, 1, 2))
        assert Classes.from_json(found.to_json()) == found
