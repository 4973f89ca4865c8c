"""``torch.compile(loss, fullgraph=True)``: every named loss is one graph, with the value of the plain formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_calib.losses import PRESETS, build_loss, fused

OF_CHANNELS = [name for name in PRESETS if name not in ("logitnorm", "cals", "crac", "mdca", "meep")]
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in PRESETS),
    *((name, {"activation": "sigmoid"}) for name in OF_CHANNELS),
    ("dice_ce+mbls+nacl", {}),
    ("recommended", {"ignore_index": 2}),
    ("recommended", {"activation": "sigmoid", "ignore_channel": True}),
    ("nacl", {"kernel_ops": "gaussian"}),
]


def graph_of(loss: nn.Module, backend: str) -> nn.Module:
    torch._dynamo.reset()
    return torch.compile(loss, fullgraph=True, backend=backend)  # type: ignore[return-value]


def batch(arguments: dict[str, Any], *spatial: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 3, *spatial, generator=generator)
    if arguments.get("activation") != "sigmoid":
        return logits, torch.randint(0, 3, (2, 1, *spatial), generator=generator)
    channels = 3 + arguments.get("ignore_channel", False)
    return logits, torch.randint(0, 2, (2, channels, *spatial), generator=generator)


def check_equal(compiled: nn.Module, loss: nn.Module, logits: Tensor, label: Tensor) -> None:
    leaves = [logits.clone().requires_grad_() for _ in range(2)]
    value = compiled(leaves[0], label)
    with fused.using("plain"):
        expected = loss(leaves[1], label)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)
def test_every_named_loss_is_one_graph(name: str, arguments: dict[str, Any]) -> None:
    loss = build_loss(name, **arguments)
    logits, label = batch(arguments, 6, 5)
    compiled = graph_of(loss, "eager")
    check_equal(compiled, loss, logits, label)
    assert compiled(logits, label + 3).isnan()  # a wrong label, at which a graph does not look


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)
def test_its_backward_pass_is_one_graph_too(name: str, arguments: dict[str, Any]) -> None:
    loss = build_loss(name, **arguments)
    check_equal(graph_of(loss, "aot_eager"), loss, *batch(arguments, 4, 5, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recommended", "mbls"])
def test_one_graph_of_network_and_loss_takes_other_sizes(name: str) -> None:
    torch._dynamo.reset()
    network, loss = nn.Conv2d(1, 3, 3, padding=1), build_loss(name)

    def step(image: Tensor, label: Tensor) -> Tensor:
        value: Tensor = loss(network(image), label)
        return value

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for size in (6, 8, 9):
        image, label = torch.randn(2, 1, size, size + 1), torch.randint(0, 3, (2, 1, size, size + 1))
        with fused.using("plain"):
            torch.testing.assert_close(compiled(image, label), step(image, label), rtol=1e-6, atol=1e-6)
