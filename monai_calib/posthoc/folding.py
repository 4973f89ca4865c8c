"""Putting a correction that is linear in the logits into the network's last convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.linear import LinearHead

__all__ = ["FoldingError", "LastConvolution", "find_last_convolution", "fold"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class FoldingError(ValueError):
    """The network does not end in a convolution that could take up the correction."""


@dataclass
class LastConvolution:
    """The convolution whose output is the network's; ``residual`` if the network adds its input to it, as MONAI's
    ``UNet`` with residual units does."""

    name: str
    module: nn.Module
    residual: bool


@torch.no_grad()
def find_last_convolution(network: nn.Module, image: Tensor) -> LastConvolution:
    """Find the convolution that makes the logits, by running the network once and comparing values.

    Args:
        network: run in evaluation mode.
        image: an input ``(B, C, *spatial)`` of a size the network accepts, not constant.

    Raises: :class:`FoldingError` if no convolution's output (or its output plus its input) is the network's output:
        a normalisation, an activation or a weighting comes after it.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> find_last_convolution(network, torch.randn(1, 1, 8, 8)).name
        '2'
    """
    output, calls = _run(network, image)
    for name, module, before, after in reversed(calls):
        if after.shape == output.shape and torch.equal(after, output):
            return LastConvolution(name, module, residual=False)
        if before.shape == after.shape == output.shape and torch.equal(after + before, output):
            return LastConvolution(name, module, residual=True)
    last = type(calls[-1][1]).__name__ + f" {calls[-1][0]!r}" if calls else "none at all"
    raise FoldingError(
        f"{type(network).__name__} does not end in a convolution that gives the logits (last one: {last}): something "
        "that is not linear, or not ours to change, comes after it. Export it with a head instead: "
        "posthoc.CalibratedNetwork(network, calibrator)"
    )


@torch.no_grad()
def fold(network: nn.Module, calibrator: Calibrator | LinearHead, image: Tensor) -> nn.Module:
    """Change the last convolution's weight and bias so that the network returns calibrated logits.

    ``W (k * x + c) + b = (W k) * x + (W c + b)`` for the kernel ``k`` and bias ``c``; where the network adds its input
    ``x`` (residual units) the kernel's centre takes up ``W - I``. The heads of deep supervision (``DynUNet``) are
    changed alike. The state dict keeps its names and shapes, so MONAI's plain network loads it. The result is checked
    on ``image``; if it fails, the network is as it was.

    Args:
        network: changed in place, and returned in evaluation mode.
        calibrator: one that is ``foldable``, or a :class:`~monai_calib.posthoc.linear.LinearHead`.
        image: an input ``(B, C, *spatial)`` of a size the network accepts, such as one window.

    Raises: :class:`FoldingError` if the method is not linear, the network does not end in a plain convolution, or
        needs a bias and has none.

    Example:
        >>> from monai_calib.posthoc import TemperatureScaling
        >>> network, image = nn.Conv2d(1, 2, 1), torch.randn(1, 1, 4, 4)
        >>> before = network(image)
        >>> scaling = TemperatureScaling(2)
        >>> scaling.set_temperature(4.0)
        >>> torch.allclose(fold(network, scaling, image)(image), before / 4)
        True
    """
    head = calibrator.head if isinstance(calibrator, Calibrator) else calibrator
    if (isinstance(calibrator, Calibrator) and not calibrator.foldable) or not isinstance(head, LinearHead):
        raise FoldingError(
            f"{type(calibrator).__name__} is not linear in the logits and cannot be folded; export the network with "
            "its head: posthoc.CalibratedNetwork(network, calibrator)"
        )
    parameter = next(network.parameters())
    image = image.as_subclass(Tensor).to(parameter.device, parameter.dtype)
    last = find_last_convolution(network, image)
    layers = [last, *_deep_supervision_heads(network, last)]
    saved = {name: value.clone() for name, value in network.state_dict().items()}
    expected = head.to(parameter.device, parameter.dtype)(_logits(network, image))
    try:
        for layer in layers:
            _fold_into(layer, head.weight, head.bias)
        found = _logits(network, image)
        scale = max(1.0, float(expected.abs().max()))
        if float((found - expected).abs().max()) > 1e-4 * scale:
            raise FoldingError(
                f"folding into {last.name!r} of {type(network).__name__} does not give the scaled logits: the layer is "
                "used more than once. Export the network with its head instead: posthoc.CalibratedNetwork"
            )
    except BaseException:
        network.load_state_dict(saved)
        raise
    return network


def _run(network: nn.Module, image: Tensor) -> tuple[Tensor, list[tuple[str, nn.Module, Tensor, Tensor]]]:
    """The output, and name, module, input and output of each convolution in the order they ran."""
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, _CONVOLUTIONS):

            def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                # Activations that follow may work in place.
                calls.append((name, module, inputs[0].clone(), output.clone()))
                del calls[:-2]

            hooks.append(module.register_forward_hook(note))
    try:
        output = _logits(network.eval(), image)
    finally:
        for hook in hooks:
            hook.remove()
    return output, calls


def _logits(network: nn.Module, image: Tensor) -> Tensor:
    """The network's output, which MONAI's UNet++ wraps in a list."""
    output = network(image)
    if isinstance(output, (list, tuple)) and len(output) == 1:
        output = output[0]
    if not isinstance(output, Tensor):
        raise FoldingError(
            f"{type(network).__name__} returns {type(output).__name__} in evaluation mode; expected one tensor"
        )
    return output


def _deep_supervision_heads(network: nn.Module, last: LastConvolution) -> list[LastConvolution]:
    """The other heads of a network that is supervised at several resolutions, by the attribute MONAI gives them."""
    heads = getattr(network, "deep_supervision_heads", None)
    if not isinstance(heads, nn.ModuleList):
        return []
    layers = []
    for i, head in enumerate(heads):
        convolutions = [module for module in head.modules() if isinstance(module, _CONVOLUTIONS)]
        if len(convolutions) != 1:
            raise FoldingError(f"deep supervision head {i}: expected one convolution, got {len(convolutions)}")
        if convolutions[0] is not last.module:
            layers.append(LastConvolution(f"deep_supervision_heads.{i}", convolutions[0], residual=False))
    return layers


@torch.no_grad()
def _fold_into(layer: LastConvolution, weight: Tensor, bias: Tensor) -> None:
    module = layer.module
    assert isinstance(module, _CONVOLUTIONS)
    if module.groups != 1:
        raise FoldingError(
            f"the last convolution {layer.name!r} has {module.groups} groups; only 1 can take up {weight}"
        )
    if module.bias is None and bool(bias.any()):
        raise FoldingError(
            f"the last convolution {layer.name!r} has no bias to take up the correction's; use a method without one "
            "(temperature, classwise_temperature), or train the network with a bias"
        )
    transposed = isinstance(module, _TRANSPOSED)
    kernel = module.weight.transpose(0, 1) if transposed else module.weight
    folded = torch.einsum("kj,j...->k...", weight.double(), kernel.double())
    if layer.residual:
        same = all(size % 2 == 1 for size in module.kernel_size) and all(step == 1 for step in module.stride)
        if not same or transposed:
            raise FoldingError(
                f"the network adds the input of {layer.name!r} to its output, and its kernel has no centre"
            )
        centre: tuple[Any, ...] = (..., *(size // 2 for size in module.kernel_size))
        folded[centre] += weight.double() - torch.eye(len(weight)).to(folded)
    module.weight.copy_(folded.transpose(0, 1) if transposed else folded)
    if module.bias is not None:
        module.bias.copy_(weight.double() @ module.bias.double() + bias.double())
