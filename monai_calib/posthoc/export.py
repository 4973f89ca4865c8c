"""A network with its correction as a head, and files of it that run without this package."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_calib.files import atomic_path
from monai_calib.posthoc.base import Calibrator

__all__ = ["EMBEDDED", "CalibratedNetwork", "copy_torchscript", "export_onnx", "export_program", "export_torchscript"]

EMBEDDED = ("metadata.json", "inference.json")
"""Files of a bundle whose texts go into TorchScript files."""


class CalibratedNetwork(nn.Module):
    """The network followed by a calibrator's head: returns calibrated logits, to be used like the network.

    For what does not fold. Where windows overlap, heads that are not linear act on each window before the average.

    Args:
        network: returns logits ``(B, K, *spatial)``.
        calibrator: a fitted one.

    Example:
        >>> from monai_calib.posthoc import TemperatureScaling
        >>> scaling = TemperatureScaling(2)
        >>> scaling.set_temperature(2.0)
        >>> network = nn.Conv2d(1, 2, 1)
        >>> image = torch.randn(1, 1, 4, 4)
        >>> torch.allclose(CalibratedNetwork(network, scaling)(image), network(image) / 2)
        True
    """

    def __init__(self, network: nn.Module, calibrator: Calibrator) -> None:
        super().__init__()
        self.network = network
        parameter = next(network.parameters())
        self.head = calibrator.head.to(parameter.device, parameter.dtype)

    def forward(self, image: Tensor) -> Tensor:
        """Calibrated logits ``(B, K, *spatial)``."""
        logits = self.network(image)
        if isinstance(logits, list):  # BasicUNetPlusPlus wraps its one output
            logits = logits[0]
        return self.head(logits, image)


def export_torchscript(
    network: nn.Module, image: Tensor, path: str | os.PathLike[str], embedded: Mapping[str, str] | None = None
) -> Path:
    """Write a network as TorchScript, read it back, and check that it computes the same.

    Scripted, and traced on ``image`` where scripting is not possible.

    Args:
        network: in evaluation mode afterwards.
        image: an input ``(B, C, *spatial)``.
        path: the file, replaced in one step.
        embedded: texts to keep in the file by name, such as a bundle's ``metadata.json`` and ``inference.json``, which
            MONAI Deploy and ``monai.data.load_net_with_metadata`` read.

    Raises: ``RuntimeError`` if the file's logits differ from the network's.
    """
    network = network.eval()
    path = Path(path)
    texts = {name: text.encode("utf-8") for name, text in (embedded or {}).items()}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exported = torch.jit.script(network)
        except Exception:  # whatever TorchScript cannot compile can still be traced
            exported = torch.jit.trace(network, image, check_trace=False)
        with atomic_path(path) as partial:
            torch.jit.save(exported, partial, _extra_files=texts)
            _check_same(torch.jit.load(partial, map_location=image.device), network, image, path)
    return path


def copy_torchscript(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Copy a TorchScript file and the bundle's texts in it under another name.

    The file holds its own name, and MONAI Deploy reads no text of a file that was merely renamed.

    Args:
        source: the file to copy.
        path: its copy, replaced in one step.

    Example:
        >>> import tempfile, zipfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     long, short = Path(folder, "model_calibrated.ts"), Path(folder, "model.ts")
        ...     _ = export_torchscript(nn.Conv2d(1, 2, 1), torch.randn(1, 1, 4, 4), long, {"metadata.json": "{}"})
        ...     _ = copy_torchscript(long, short)
        ...     [name for name in zipfile.ZipFile(short).namelist() if name.endswith(".json")]
        ['model/extra/metadata.json']
    """
    texts = dict.fromkeys(EMBEDDED, "")
    network = torch.jit.load(source, map_location="cpu", _extra_files=texts)
    with atomic_path(path) as partial:
        torch.jit.save(network, partial, _extra_files={name: text for name, text in texts.items() if text})
    return Path(path)


def export_program(network: nn.Module, image: Tensor, path: str | os.PathLike[str]) -> Path:
    """Write a network with ``torch.export`` (``.pt2``), free in the batch axis, read it back, and check it.

    ``torch.export.load(path).module()(image)`` gives logits in a process without this package.

    Args:
        network: in evaluation mode afterwards.
        image: an input ``(B, C, *spatial)`` of the size the file is for.
        path: the file, replaced in one step.

    Raises: ``RuntimeError`` if the file's logits differ from the network's; what ``torch.export`` raises for a network
        that it cannot trace.

    Example:
        >>> import tempfile
        >>> image = torch.randn(1, 1, 8, 8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = export_program(nn.Conv2d(1, 2, 1), image, Path(folder, "model.pt2"))
        ...     tuple(torch.export.load(path).module()(torch.randn(3, 1, 8, 8)).shape)
        (3, 2, 8, 8)
    """
    path, one = Path(path), _OneOutput(network.eval())
    two = torch.cat([image, image.flip(-1)])  # of a batch of one, torch.export takes the axis for fixed
    with torch.no_grad(), warnings.catch_warnings(), atomic_path(path) as partial:
        warnings.simplefilter("ignore")
        program = torch.export.export(one, (two,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, partial)
        _check_same(torch.export.load(partial).module(), one, image, path)
    return path


def export_onnx(network: nn.Module, image: Tensor, path: str | os.PathLike[str], **options: Any) -> Path:
    """Write a network as ONNX with inputs named ``image`` and outputs ``logits``, free in the batch axis.

    Needs the package onnxscript.

    Args:
        network: in evaluation mode afterwards.
        image: an input ``(B, C, *spatial)`` of the size the file is for.
        path: the file, replaced in one step.
        options: passed to ``torch.onnx.export``, such as other ``dynamic_shapes``.
    """
    path, two = Path(path), torch.cat([image, image.flip(-1)])
    free = ({0: torch.export.Dim("batch")},)
    settings: dict[str, Any] = {"dynamo": True, "external_data": False, "verbose": False, "dynamic_shapes": free}
    with atomic_path(path) as partial, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings |= {"input_names": ["image"], "output_names": ["logits"], **options}
        torch.onnx.export(_OneOutput(network.eval()), (two,), str(partial), **settings)
    return path


class _OneOutput(nn.Module):
    """The network, whose list of one output (BasicUNetPlusPlus) becomes that output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits = self.network(image)
        return logits[0] if isinstance(logits, (list, tuple)) else logits


def _check_same(exported: Any, network: nn.Module, image: Tensor, path: Path) -> None:
    outputs = []
    for module in (exported, network):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # dropout that stays on draws the same
            logits = module(image)
            outputs.append(torch.cat([logits.softmax(1), logits.sigmoid()], 1))
    difference = float((outputs[0] - outputs[1]).abs().max())
    if not difference <= 1e-5:
        raise RuntimeError(
            f"{path}: probabilities of the exported network differ from the network's by {difference:.2g}"
        )
