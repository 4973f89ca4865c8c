"""On a GPU the histogram is the CPU's, filled without waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from monai_calib.metrics import CalibrationHistogram

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@contextmanager
def never_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def volume(classes: int = 3, size: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits with a large sure background, label, mask."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, classes, size, size, size, generator=generator)
    logits[:, 0, : size // 2] += 12
    label = torch.randint(0, classes, (2, 1, size, size, size), generator=generator)
    return logits, label, torch.rand(2, 1, size, size, size, generator=generator) < 0.7


def filled(*tensors: torch.Tensor, activation: str = "softmax", **arguments: bool) -> CalibrationHistogram:
    hist = CalibrationHistogram(tensors[0].shape[1], activation=activation, ignore_index=1)
    hist.update(*tensors, **arguments)
    return hist


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_same_probabilities_same_counts(activation: str) -> None:
    logits, label, mask = volume()
    probability = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
    label = label if activation == "softmax" else (torch.arange(3).view(-1, 1, 1, 1) == label).int()
    inputs = (probability, label, mask)
    expected = filled(*inputs, activation=activation, from_logits=False)
    on_device = [tensor.cuda() for tensor in inputs]
    filled(*on_device, activation=activation, from_logits=False)  # what is made once and kept has been made
    with never_waiting():
        hist = filled(*on_device, activation=activation, from_logits=False)
    for name in ("count", "hits", "confidence", "problems"):
        assert torch.equal(getattr(hist.sums, name).cpu(), getattr(expected.sums, name)), name
    torch.testing.assert_close(hist.sums.scores.cpu(), expected.sums.scores, rtol=1e-5, atol=0)


@pytest.mark.parametrize("classes", [2, 14])
def test_same_logits_same_figures(classes: int) -> None:
    inputs = volume(classes)
    expected = filled(*inputs)
    hist = filled(*(tensor.cuda() for tensor in inputs))
    assert hist.voxels == expected.voxels
    assert torch.equal(hist.class_voxels(), expected.class_voxels())
    # The last bit of a softmax may move a voxel to the next bin.
    assert int((hist.sums.count.cpu() - expected.sums.count).abs().sum()) < 1e-3 * expected.voxels
    torch.testing.assert_close(hist.sums.scores.cpu(), expected.sums.scores, rtol=1e-5, atol=0)


def test_wrong_voxels_are_counted_without_waiting_and_refused_when_asked() -> None:
    logits, label, _ = volume()
    logits[0, 0, 0, 0, 0], label[0, 0, 0, 0, 0] = torch.nan, 0
    hist = filled(logits.cuda(), label.cuda())
    with pytest.raises(ValueError, match="1 voxel whose prediction holds NaN"):
        hist.check()


def test_nccl_adds_up_on_the_device(tmp_path: Path) -> None:
    expected = filled(*volume())
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        hist = CalibrationHistogram.from_state(expected.state_dict()).all_reduce()
    finally:
        dist.destroy_process_group()
    assert hist.sums.count.is_cuda
    assert torch.equal(hist.sums.count.cpu(), expected.sums.count)
    assert hist.updates == expected.updates
