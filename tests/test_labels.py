"""One check of a label for every type it can come in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_calib.labels import as_plain_tensor, check_label, check_soft_label

VALUES = [0, 2, 1, 2]
TYPES = ["u1", "<u2", ">u2", "<u4", ">u4", "<u8", ">u8", "i1", "<i2", ">i2", "<i4", "<i8", ">i8", "f4", ">f8", "f2"]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("look", [True, False])
def test_every_type_gives_the_same_class_numbers(kind: str, look: bool) -> None:
    checked = check_label(np.array(VALUES, dtype=kind), 3, look=look)
    assert checked.index.tolist() == VALUES
    assert checked.index.dtype == torch.uint8


@pytest.mark.parametrize("kind", [torch.uint16, torch.uint32, torch.uint64, torch.bfloat16, torch.int64])
def test_tensors_of_every_type(kind: torch.dtype) -> None:
    assert check_label(torch.tensor(VALUES, dtype=torch.int64).to(kind), 3).index.tolist() == VALUES


@pytest.mark.parametrize("wrong", [7.0, -1.0, float("nan"), float("inf"), 0.9999, 1.5, 3.0])
def test_a_value_that_is_no_class_is_refused_or_marked(wrong: float) -> None:
    label = torch.tensor([0.0, wrong, 2.0])
    with pytest.raises(ValueError, match="case a: label: expected whole class numbers from 0 to 2, got"):
        check_label(label, 3, what="case a: label")
    checked = check_label(label, 3, look=False)
    assert checked.wrong is not None
    assert checked.wrong.tolist() == [False, True, False]
    assert checked.index.tolist() == [0, 0, 2]


@pytest.mark.parametrize("look", [True, False])
def test_ignore_index_is_a_number_and_no_value_of_the_labels_type(look: bool) -> None:
    assert check_label(torch.tensor([156], dtype=torch.uint8), 200, ignore_index=-100, look=look).index.tolist() == [
        156
    ]
    zero = check_label(torch.tensor([0, 1], dtype=torch.uint8), 2, ignore_index=256, look=look)
    assert zero.index.tolist() == [0, 1]
    assert zero.valid is not None
    assert zero.valid.all()
    for kind in (torch.uint8, torch.int64, torch.float32):
        checked = check_label(torch.tensor([1, 255], dtype=kind), 2, ignore_index=255, look=look)
        assert checked.index.tolist() == [1, 0]
        assert checked.valid is not None
        assert checked.valid.tolist() == [True, False]


def test_a_nan_can_lie_under_nothing_but_an_ignored_voxel() -> None:
    with pytest.raises(ValueError, match="got nan"):
        check_label(torch.tensor([float("nan"), 255.0]), 2, ignore_index=255)


def test_arrays_with_negative_strides_and_read_only_ones() -> None:
    array = np.arange(6, dtype=">u2").reshape(2, 3)[::-1, ::-1]
    assert as_plain_tensor(array).tolist() == [[5, 4, 3], [2, 1, 0]]
    fixed = np.zeros(3, np.uint8)
    fixed.flags.writeable = False
    assert check_label(fixed, 1).index.tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [np.array([1j]), "label", np.array(["a"])])
def test_what_is_no_number_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError):
        check_label(value, 2)


def test_an_empty_label_has_no_wrong_value() -> None:
    assert check_label(torch.zeros(0, 4), 2).index.shape == (0, 4)


@pytest.mark.parametrize("kind", ["f2", ">f4", "f8", "u1", "bool"])
@pytest.mark.parametrize("axis", [0, 1])
def test_shares_of_the_classes_sum_to_one(kind: str, axis: int) -> None:
    right = np.array([[1, 0, 0], [0, 1, 0]]).astype(kind)
    wrong = right.copy()
    wrong[0, 1] = 1  # two classes at once, along axis 0; along axis 1 one row of two
    right, wrong = (right[:, :2], wrong[:, :2]) if axis == 0 else (right, wrong)
    assert check_soft_label(right, axis) is None
    marked = check_soft_label(wrong, axis, look=False)
    assert marked is not None
    assert marked.tolist() == ([False, True] if axis == 0 else [True, False])
    with pytest.raises(ValueError, match=r"case a: expected shares .* sum to 1 .*, got 1, 1(, 0)? at the first of 1"):
        check_soft_label(wrong, axis, what="case a")


@pytest.mark.parametrize("shares", [(1.5, -0.5), (float("nan"), 1.0), (0.5, 0.498), (0.0, 0.0), (float("inf"), 0.0)])
def test_shares_that_are_none_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="expected shares of the classes that are not negative and sum to 1"):
        check_soft_label(torch.tensor([shares]))


def test_shares_may_be_off_by_rounding() -> None:
    third = torch.full((1, 3, 4), 1 / 3)
    for kind in (torch.float16, torch.float32, torch.float64):
        assert check_soft_label(third.to(kind)) is None
