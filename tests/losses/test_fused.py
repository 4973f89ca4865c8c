"""The compiled sweep equals the plain formulas, whatever the layout of its input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_calib.losses import NACLLoss, build_loss, fused
from monai_calib.losses.base import ConstrainedLoss

SHAPES = [(2, 3, 50), (3, 4, 13, 31), (2, 5, 9, 12, 10), (1, 14, 20, 20, 20), (1, 2, 1, 1, 1), (1, 105, 6, 7, 5)]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("ce", {}),
    ("ce", {"weight": "given"}),
    ("dice_ce", {}),
    ("ecp", {"alpha": 0.3}),
    ("ls", {"alpha": 0.2}),
    ("ls", {"include_background": False, "penalty_region": "outer"}),
    ("mbls", {"margin": 1.0}),
    ("mbls", {"margin": 0.5, "distance_type": "l2", "include_background": False}),
    ("mbls", {"margin": 1.0, "penalty_region": "outer", "weight": "given"}),
    ("nacl", {}),
    ("nacl", {"kernel_size": 7, "distance_type": "l2"}),
    ("nacl", {"padding": "background", "kernel_size": 5}),
    ("nacl", {"padding": "zeros"}),
    ("nacl", {"padding": "valid"}),
    ("nacl", {"kernel_ops": "gaussian"}),
    ("nacl", {"kernel_ops": "mode", "include_background": False}),
    ("nacl", {"kernel_ops": "image_proportions_l1"}),
    ("nacl_outer", {"alpha": 1.0}),
    ("nacl_outer", {"padding": "zeros", "distance_type": "l2"}),
    ("dice_ce+nacl_outer", {"alpha": 1.0, "kernel_size": 5}),
    ("dice_ce+mbls+nacl", {"margin": 1.0}),
]


def _each(
    loss: ConstrainedLoss, logits: torch.Tensor, label: torch.Tensor, image: torch.Tensor | None = None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Value and gradient, compiled and by the plain formula."""
    results = []
    for path in ("compiled", "plain"):
        inner = logits.detach().requires_grad_()
        with fused.using(path):
            value = loss(inner, label, image=image)
        value.backward()
        assert inner.grad is not None
        results.append((value.detach(), inner.grad))
    return results


def _agree(results: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    *fast, (plain_value, plain_gradient) = results
    largest = plain_gradient.abs().max().item()
    for value, gradient in fast:
        assert value.dtype == plain_value.dtype
        torch.testing.assert_close(value, plain_value, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradient, plain_gradient, rtol=1e-6, atol=1e-6 * max(largest, 1e-12))


@pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_plain_formula(name: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    batch, classes, *spatial = shape
    if "weight" in arguments:
        arguments = {**arguments, "weight": torch.rand(classes) + 0.1}
    logits, label = 3 * torch.randn(shape), torch.randint(0, classes, (batch, 1, *spatial))
    _agree(_each(build_loss(name, **arguments), logits, label, torch.rand(batch, 2, *spatial)))
    label[label == 1] = 250
    ignoring = build_loss(name, ignore_index=250, **arguments)
    _agree(_each(ignoring, logits, label, torch.rand(batch, 2, *spatial)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["ce", "nacl", "mbls", "dice_ce+nacl_outer"])
def test_half_precision_logits(name: str, dtype: torch.dtype) -> None:
    loss = build_loss(name)
    logits, label = (3 * torch.randn(2, 4, 16, 17)).to(dtype), torch.randint(0, 4, (2, 1, 16, 17))
    (value, gradient), (plain_value, plain_gradient) = _each(loss, logits, label)
    assert gradient.dtype == dtype
    torch.testing.assert_close(value, plain_value, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, plain_gradient)
    torch.testing.assert_close(value, loss(logits.float(), label), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("distance_type", ["l1", "l2"])
@pytest.mark.parametrize("include_background", [True, False])
def test_of_equal_winners_the_first_is_pushed_down(distance_type: str, include_background: bool) -> None:
    """As PyTorch's maximum has it; bfloat16 logits are often equal."""
    logits = 6.0 * torch.randint(-2, 3, (2, 4, 9, 10), generator=torch.Generator().manual_seed(0))
    loss = build_loss("mbls", margin=1.0, distance_type=distance_type, include_background=include_background)
    _agree(_each(loss, logits, torch.zeros(2, 1, 9, 10)))


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 9999),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    window=st.tuples(*[st.sampled_from([1, 3, 5, 9])] * 3),
    padding=st.sampled_from(["replicate", "background", "zeros"]),
)
def test_counts_on_the_way_equal_the_neighbourhood_operator(
    seed: int, shape: tuple[int, ...], window: tuple[int, ...], padding: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, *shape, generator=generator)
    label = torch.randint(0, 3, (2, 1, *shape), generator=generator)
    _agree(_each(NACLLoss(kernel_size=window, padding=padding, alpha=1.0), logits, label))


def test_layouts_slices_and_memory_formats() -> None:
    loss = build_loss("dice_ce+nacl_outer", alpha=1.0)
    dense = torch.randn(2, 3, 12, 14, 16)
    label = torch.randint(0, 3, (2, 1, 12, 14, 16))
    _agree(_each(loss, dense.contiguous(memory_format=torch.channels_last_3d), label))
    _agree(_each(loss, dense.transpose(2, 3), label.transpose(2, 3)))
    _agree(_each(loss, dense[..., ::2], label[..., ::2]))
    _agree(_each(loss, dense[:, :2], torch.zeros_like(label)))


def test_scaled_and_repeated_backward() -> None:
    loss = build_loss("nacl")
    logits, label = torch.randn(1, 3, 8, 8, requires_grad=True), torch.randint(0, 3, (1, 1, 8, 8))
    value = loss(logits, label)
    (once,) = torch.autograd.grad(value, logits, retain_graph=True)
    (scaled,) = torch.autograd.grad(3.0 * value, logits, retain_graph=True)
    torch.testing.assert_close(scaled, 3 * once)
    (again,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(again, once)


def test_double_backward_says_what_to_do_and_works_there() -> None:
    loss = build_loss("nacl", distance_type="l2")
    logits, label = torch.randn(1, 3, 8, requires_grad=True), torch.randint(0, 3, (1, 1, 8))
    with pytest.raises(RuntimeError, match=r"within monai_calib\.losses\.fused\.using"):
        torch.autograd.grad(loss(logits, label), logits, create_graph=True)
    with fused.using("plain"):
        (gradient,) = torch.autograd.grad(loss(logits, label), logits, create_graph=True)
        gradient.square().sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


def test_no_gradient_wanted() -> None:
    logits, label = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8))
    value = build_loss("nacl")(logits, label)
    assert not value.requires_grad
    with fused.using("plain"):
        torch.testing.assert_close(value, build_loss("nacl")(logits, label))


def test_threads_agree() -> None:
    logits, label = torch.randn(1, 4, 40, 48, 40), torch.randint(0, 4, (1, 1, 40, 48, 40))
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(_each(build_loss("nacl_outer", kernel_size=5), logits, label)[0])
    finally:
        torch.set_num_threads(threads)
    for value, gradient in results[1:]:
        torch.testing.assert_close(value, results[0][0], rtol=1e-7, atol=0)
        assert torch.equal(gradient, results[0][1])
