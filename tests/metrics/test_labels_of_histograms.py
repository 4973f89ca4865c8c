"""Labels in every form: types, ignored values, one-hot, soft, nothing at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_calib.metrics import CalibrationHistogram, brier, ece, nll

SHAPE = (2, 3, 6, 5)


def logits(seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def numbers(seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 3, (2, 1, 6, 5), generator=torch.Generator().manual_seed(seed))


def filled(label: object, **arguments: object) -> CalibrationHistogram:
    hist = CalibrationHistogram(3, **arguments)  # type: ignore[arg-type]
    hist.update(logits(), label)
    return hist


def assert_same(one: CalibrationHistogram, other: CalibrationHistogram) -> None:
    for name, value in one.sums.tensors().items():
        assert torch.equal(value, other.sums.tensors()[name]), name


@pytest.mark.parametrize(
    "kind", ["uint8", "int8", "uint16", ">u2", "uint32", "uint64", "int64", ">i4", ">f4", "float64"]
)
def test_every_type_gives_the_same(kind: str) -> None:
    array = numbers().numpy().astype(kind)
    assert_same(filled(array), filled(numbers()))
    assert_same(filled(array[..., ::-1][..., ::-1]), filled(numbers()))


@pytest.mark.parametrize(("kind", "value"), [("uint8", 156), ("uint16", 156)])
def test_ignore_index_is_compared_as_a_number(kind: str, value: int) -> None:
    """156 is -100 in eight bits, and 256 is 0."""
    label = numbers().numpy().astype(kind)
    label[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=f"got {value}"):
        filled(label, ignore_index=-100)
    assert_same(filled(numbers().to(torch.uint8), ignore_index=256), filled(numbers()))


@pytest.mark.parametrize("raters", [2, 3, 4])
@pytest.mark.parametrize("from_logits", [True, False])
def test_the_mean_label_of_raters_is_the_mean_of_their_histograms(raters: int, from_logits: bool) -> None:
    given = logits() if from_logits else logits().softmax(1)
    plain, soft = CalibrationHistogram(3), CalibrationHistogram(3)
    labels = [numbers(seed) for seed in range(raters)]
    for label in labels:
        plain.update(given, label, from_logits=from_logits)
    one_hot = [torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).double() for label in labels]
    soft.update(given, torch.stack(one_hot).mean(0), from_logits=from_logits)
    assert torch.equal(soft.sums.count * raters, plain.sums.count)
    bins, expected = soft.class_bins(), plain.class_bins()
    torch.testing.assert_close(bins.hits * raters, expected.hits.double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(soft.bins().hits * raters, plain.bins().hits.double(), atol=1e-6, rtol=0)
    for metric in (ece, nll, brier):
        assert metric(soft) == pytest.approx(metric(plain), abs=1e-6)


def test_soft_labels_by_hand() -> None:
    hist = CalibrationHistogram(2)
    hist.update(torch.tensor([[[0.8], [0.2]]]), torch.tensor([[[0.7], [0.3]]]), from_logits=False)
    assert ece(hist) == pytest.approx(0.1, abs=1e-6)
    assert nll(hist) == pytest.approx(-0.7 * np.log(0.8) - 0.3 * np.log(0.2), abs=1e-6)
    assert brier(hist) == pytest.approx(0.7 * 2 * 0.2**2 + 0.3 * 2 * 0.8**2, abs=1e-6)


def test_soft_sums_are_the_same_in_any_order() -> None:
    parts = []
    for seed in range(20):
        label = torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)).softmax(1)
        parts.append(CalibrationHistogram(3))
        parts[-1].update(logits(seed), label)
    one, other = CalibrationHistogram(3), CalibrationHistogram(3)
    for part in parts:
        one.merge(part)
    for part in reversed(parts):
        other.merge(part)
    for name in ("count", "hits", "soft_hits", "confidence"):
        assert torch.equal(getattr(one.sums, name), getattr(other.sums, name))


def test_one_hot_of_any_type_is_the_hard_label() -> None:
    one_hot = torch.nn.functional.one_hot(numbers()[:, 0], 3).movedim(-1, 1)
    for kind in (torch.bool, torch.uint8, torch.float32, torch.float64):
        assert_same(filled(one_hot.to(kind)), filled(numbers()))


def test_ignored_soft_voxels_count_nowhere() -> None:
    label = logits(5).softmax(1).double()
    ignored = label.clone()
    ignored[:, :, :3] = -1
    mask = torch.ones(2, 6, 5)
    mask[:, :3] = 0
    hist, expected = CalibrationHistogram(3, ignore_index=-1), CalibrationHistogram(3, ignore_index=-1)
    hist.update(logits(), ignored)
    expected.update(logits(), label, mask)
    assert_same(hist, expected)


def test_a_soft_multi_label_is_its_expectation() -> None:
    hist, plain = (CalibrationHistogram(3, activation="sigmoid") for _ in range(2))
    labels = [torch.rand(SHAPE, generator=torch.Generator().manual_seed(s)).round() for s in range(2)]
    hist.update(logits(), torch.stack(labels).mean(0))
    for label in labels:
        plain.update(logits(), label)
    assert nll(hist) == pytest.approx(nll(plain), abs=1e-6)
    torch.testing.assert_close(hist.class_bins().hits * 2, plain.class_bins().hits.double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (1, 3, 0, 4)])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_an_empty_batch_adds_nothing(shape: tuple[int, ...], activation: str) -> None:
    hist = CalibrationHistogram(3, activation=activation)  # type: ignore[arg-type]
    hist.update(torch.zeros(shape), torch.zeros(shape))
    assert (hist.updates, hist.voxels) == (0, 0)
