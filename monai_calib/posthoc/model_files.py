"""The calibrated model's files: folded or with its head, its record, and further forms of it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_calib.datasets.checksums import sha256
from monai_calib.files import atomic_path, read_json, write_json
from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.export import EMBEDDED, CalibratedNetwork, export_onnx, export_program, export_torchscript
from monai_calib.posthoc.files import FOLDED, ONNX, PARAMETERS, PROGRAM, TORCHSCRIPT, WITH_HEAD
from monai_calib.posthoc.folding import fold
from monai_calib.posthoc.none import NoCorrection

__all__ = ["bundle_configs", "write_model"]

_OF_THE_RUN = ("network_name", "patch_size", "dropout")

_log = logging.getLogger(__name__)


def bundle_configs(bundle_root: str | os.PathLike[str] | None, run: Mapping[str, Any]) -> dict[str, str]:
    """Texts of the bundle's files that consumers look for in an exported model, with the run's own values inside.

    Args:
        bundle_root: the bundle; none gives no text.
        run: the run's settings, of which ``network_name``, ``patch_size`` and ``dropout`` replace the bundle's.
    """
    if bundle_root is None:
        return {}
    paths = [Path(os.fspath(bundle_root), "configs", name) for name in EMBEDDED]
    configs = {path.name: read_json(path) for path in paths if path.is_file()}
    inference = configs.get("inference.json", {})
    inference |= {name: run[name] for name in _OF_THE_RUN if name in run and name in inference}
    formats = configs.get("metadata.json", {}).get("network_data_format", {})
    for item in (*formats.get("inputs", {}).values(), *formats.get("outputs", {}).values()):
        if "patch_size" in run and "spatial_shape" in item:
            item["spatial_shape"] = list(run["patch_size"])
    return {name: json.dumps(config, indent=4, ensure_ascii=False) for name, config in configs.items()}


def write_model(
    network: nn.Module,
    calibrator: Calibrator,
    image: Tensor,
    folder: Path,
    about: Mapping[str, Any],
    exports: Sequence[str] = (),
    embedded: Mapping[str, str] | None = None,
) -> Path:
    """Write the model and its exports, then the record, which names the model by its checksum.

    Exports of a former model go first, a former model of the other kind last. So a record that fits its model says that
    all is there; killed before, the folder holds the former pair, or none that fits, and is to be calibrated again.
    """
    path = folder / about["model"]
    for former in (PROGRAM, ONNX, TORCHSCRIPT):
        (folder / former).unlink(missing_ok=True)
    if about["model"] == FOLDED:
        whole = folded = network if calibrator.method == NoCorrection.method else fold(network, calibrator, image)
        state = folded.state_dict()
        with atomic_path(path) as partial:
            torch.save({name: value.cpu() for name, value in state.items()}, partial)
    else:
        whole = CalibratedNetwork(network, calibrator)
        export_torchscript(whole, image, path, embedded)
    for kind in exports:
        if kind != "ts" or path.name != WITH_HEAD:  # which is TorchScript itself
            _export(kind, whole, image, folder, embedded)
    write_json(folder / PARAMETERS, {**about, "model_sha256": sha256(path), **calibrator.to_json()})
    for other in {FOLDED, WITH_HEAD} - {path.name}:
        (folder / other).unlink(missing_ok=True)
    return path


def _export(kind: str, network: nn.Module, image: Tensor, folder: Path, embedded: Mapping[str, str] | None) -> None:
    """Write one more form of the model; a network that it cannot hold is a warning."""
    try:
        if kind == "pt2":
            export_program(network, image, folder / PROGRAM)
        elif kind == "onnx":
            export_onnx(network, image, folder / ONNX)
        else:
            export_torchscript(network, image, folder / TORCHSCRIPT, embedded)
    except OSError:
        raise
    except Exception as error:  # whatever an exporter cannot do with somebody's network
        _log.warning("no export %r of the calibrated model: %s: %.300s", kind, type(error).__name__, error)
