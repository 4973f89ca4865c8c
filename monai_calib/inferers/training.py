"""The network's forward pass in training: one tensor or one list of heads, in bfloat16 where that is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from monai.losses import DeepSupervisionLoss
from monai.utils.enums import CommonKeys
from torch.overrides import TorchFunctionMode

__all__ = ["ImageForLoss", "LossOfHeads", "PatchSizeError", "TrainingInferer", "bfloat16_autocast"]


class PatchSizeError(ValueError):
    """A patch that the network cannot take, whatever case it is cut from."""

    blames_case = False


class TrainingInferer(Inferer):
    """Whole patches through the network, as MONAI's ``SimpleInferer``, with three differences that training needs.

    *bfloat16 on any device.* MONAI's ``amp`` is float16 and for CUDA alone. ``bfloat16=True`` runs the network under
    :func:`bfloat16_autocast` on the device of its input and hands float32 logits to the loss; bfloat16 has the range of
    float32, so no gradient is scaled. On a CPU with AMX a training step of the 3D bundle network takes half the time.

    *Heads of deep supervision as MONAI's ``DeepSupervisionLoss`` reads them.* ``DynUNet`` stacks its heads in one
    tensor ``(B, heads, K, *spatial)`` while it trains, ``BasicUNetPlusPlus`` returns a list even of one: the loss gets
    a list of ``(B, K, *spatial)``, finest first, or the tensor where there is one head.

    *A patch that the network cannot take* is an error that names sizes it can.

    Args:
        bfloat16: whether to run the network under bfloat16 autocast.

    Shape: input ``(B, C, *spatial)``; returns ``(B, K, *spatial)`` in float32, or a list of them.

    Raises:
        TypeError: the network returns neither a tensor nor a sequence of tensors.
        PatchSizeError: the network fails on patches of this size, and not on somewhat larger ones.
        RuntimeError: with bfloat16, this CPU's library gets gradients wrong.

    Example:
        >>> network = torch.nn.Conv2d(1, 3, kernel_size=1)
        >>> logits = TrainingInferer(bfloat16=True)(torch.ones(2, 1, 8, 8), network)
        >>> logits.shape, logits.dtype
        (torch.Size([2, 3, 8, 8]), torch.float32)
    """

    def __init__(self, bfloat16: bool = False) -> None:
        super().__init__()
        self.bfloat16 = bfloat16

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | list[torch.Tensor]:
        with ExitStack() as precision:  # an outer autocast (MONAI's amp) stays where bfloat16 is not asked for
            if self.bfloat16:
                precision.enter_context(bfloat16_autocast(inputs.device.type))
            try:
                output = network(inputs, *args, **kwargs)
            except (RuntimeError, ValueError) as error:
                works = None if isinstance(error, torch.OutOfMemoryError) else _size_that_works(network, inputs)
                if works is None:
                    raise
                raise PatchSizeError(
                    f"patch_size: expected a size that {type(network).__name__} can halve as often as it does, got "
                    f"{list(inputs.shape[2:])} ({error}). Take {works}, or another multiple."
                ) from error
        heads = _heads(output, spatial_dims=inputs.ndim - 2)
        if self.bfloat16:
            heads = [head.float() for head in heads]
        return heads[0] if len(heads) == 1 else heads


class LossOfHeads(DeepSupervisionLoss):
    """The loss of one head or of several, with the image where the loss reads it.

    MONAI's trainer gives a loss prediction and label. A loss whose ``needs_image`` is true, such as NACL with an
    image-guided prior, also gets the images of the step, which :class:`ImageForLoss` takes from the trainer. Coarser
    heads get the image at their size, averaged over what a voxel covers.

    Args:
        loss: loss of one head ``(B, K, *spatial)``.
        weight_mode, weights: as in MONAI's class: 1, 1/2, 1/4 ... from the finest head by default.

    Raises: ``ValueError`` for a loss that needs the image where there is no trainer to give it.

    Example:
        >>> from monai_calib.losses import build_loss
        >>> loss = LossOfHeads(build_loss("ce"))
        >>> heads = [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4)]
        >>> round(float(loss(heads, torch.zeros(1, 1, 8, 8))), 4)  # 1.5 log 2
        1.0397
    """

    def __init__(self, loss: torch.nn.Module, weight_mode: str = "exp", weights: list[float] | None = None) -> None:
        super().__init__(loss, weight_mode, weights)  # type: ignore[arg-type]
        self.image: torch.Tensor | None = None
        self.needs_image = bool(getattr(loss, "needs_image", False))

    def get_loss(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of one head."""
        if not self.needs_image:
            return super().get_loss(input, target)
        if self.image is None:
            raise ValueError("image: this loss reads the image; list ImageForLoss among the trainer's handlers.")
        image, size = self.image, input.shape[2:]
        if image.shape[2:] != size:
            image = F.interpolate(image, size=size, mode="area")
            target = F.interpolate(target.float(), size=size, mode=self.interp_mode)
        return self.loss(input, target, image=image)

    def forward(self, input: torch.Tensor | list[torch.Tensor] | None, target: torch.Tensor) -> torch.Tensor:
        """The loss of a head, or the weighted sum over heads."""
        if self.needs_image and isinstance(input, torch.Tensor):
            return self.get_loss(input.float(), target)
        return super().forward(input, target)


class ImageForLoss:
    """Hands the images of each step to a loss that reads them; does nothing for another loss.

    Args:
        loss: the trainer's loss.

    Example:
        >>> from monai_calib.losses import build_loss
        >>> loss = LossOfHeads(build_loss("nacl", kernel_ops="image_proportions_l1"))
        >>> ImageForLoss(loss).attach(Engine(lambda engine, batch: None))
        >>> loss.needs_image
        True
    """

    def __init__(self, loss: LossOfHeads) -> None:
        self.loss = loss

    def attach(self, engine: Engine) -> None:
        """Follow the images of ``engine``, a MONAI trainer."""
        if self.loss.needs_image:
            engine.register_events(*IterationEvents)
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._give)
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._take)

    def _give(self, engine: Engine) -> None:
        output: Mapping[str, Any] = engine.state.output  # type: ignore[assignment]
        self.loss.image = output[CommonKeys.IMAGE].detach().float()

    def _take(self, engine: Engine) -> None:
        self.loss.image = None


@contextmanager
def bfloat16_autocast(device: str) -> Iterator[None]:
    """PyTorch's autocast to bfloat16, without the convolutions whose gradients oneDNN gets wrong on a CPU.

    On CPUs with AVX-512 and without AMX, the gradient of a 3D convolution's weights is wrong where the input's first
    spatial axis is longer than 1 and shorter than the kernel: part of it is what happened to be in memory. These
    convolutions, the bottleneck of a U-Net on small patches, run in float32. Before the first use on a CPU, gradients
    of small convolutions are compared with those of float32.

    Raises: ``RuntimeError``: this CPU's gradients are wrong all the same.
    """
    if device != "cpu":
        with torch.autocast(device, torch.bfloat16):
            yield
        return
    _check_gradients()
    with torch.autocast(device, torch.bfloat16), _ShallowInFloat32():
        yield


class _ShallowInFloat32(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.conv3d and len(args) > 1:
            inputs, weight, *rest = args
            if 1 < inputs.shape[2] < weight.shape[2]:
                with torch.autocast("cpu", enabled=False):
                    return function(inputs.float(), weight, *rest, **kwargs)
        return function(*args, **kwargs)


@cache
def _check_gradients() -> None:
    for dims, depth in ((2, 4), (3, 2), (3, 4)):
        generator = torch.Generator().manual_seed(0)
        shape = (2, 16, depth, 4, 4)[: dims + 2]
        weight = 0.1 * torch.randn(16, 16, *[3] * dims, generator=generator)
        inputs, outputs = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
        convolve = F.conv2d if dims == 2 else F.conv3d
        exact, rounded = weight.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.enable_grad():
            convolve(inputs, exact, padding=1).backward(outputs)
            with torch.autocast("cpu", torch.bfloat16), _ShallowInFloat32():
                result = convolve(inputs, rounded, padding=1)
            result.float().backward(outputs)
        assert exact.grad is not None
        assert rounded.grad is not None
        if not (rounded.grad - exact.grad).norm() <= 0.05 * exact.grad.norm():
            raise RuntimeError(
                f"bfloat16: this processor's library gets the gradient of a {dims}D convolution wrong. Train without "
                "--bfloat16, or set ONEDNN_MAX_CPU_ISA=AVX2 (right, and slower)."
            )


def _size_that_works(network: Any, inputs: torch.Tensor) -> list[int] | None:
    """The smallest of a few somewhat larger patches that the network takes; the step has failed already."""
    network = getattr(network, "module", network)
    tried = set()
    for step in (2, 4, 8, 16, 32):
        for least in (1, 2):
            size = tuple(max(-(-length // step), least) * step for length in inputs.shape[2:])
            if size in tried or size == tuple(inputs.shape[2:]):
                continue
            tried.add(size)
            try:
                with torch.no_grad():
                    network(inputs.new_zeros(2, inputs.shape[1], *size))
            except (RuntimeError, ValueError):
                continue
            return list(size)
    return None


def _heads(output: Any, spatial_dims: int) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return list(output.unbind(dim=1)) if output.ndim == spatial_dims + 3 else [output]
    if isinstance(output, Sequence) and output and all(isinstance(head, torch.Tensor) for head in output):
        return list(output)
    raise TypeError(f"network: expected a tensor of logits or a list of them, got {type(output).__name__}")
