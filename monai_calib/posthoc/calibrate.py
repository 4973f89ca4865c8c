"""The whole way from a trained network to a calibrated one: what a bundle's calibrate.json calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.inferers import SliceInferer
from torch import Tensor, nn

from monai_calib.datasets.checksums import sha256
from monai_calib.files import atomic_path, write_json, write_text
from monai_calib.handlers.weights import load_weights, read_checkpoint
from monai_calib.metrics.protocols import Protocol, resolve_protocols
from monai_calib.posthoc.auto import Candidate, RefusedCorrectionError, choose, default_candidates, examine
from monai_calib.posthoc.base import Calibrator, fit
from monai_calib.posthoc.evaluation import Comparison, compare
from monai_calib.posthoc.export import CalibratedNetwork, export_torchscript
from monai_calib.posthoc.files import FOLDED, PARAMETERS, WITH_HEAD
from monai_calib.posthoc.folding import fold
from monai_calib.posthoc.kept import KeptCases
from monai_calib.posthoc.methods import build_calibrator
from monai_calib.posthoc.none import NoCorrection
from monai_calib.posthoc.stream import LogitCase, LogitStream

__all__ = ["AUTO", "Calibrated", "calibrate", "find_correction"]

_log = logging.getLogger(__name__)
AUTO = "auto"


class Calibrated(NamedTuple):
    """What :func:`calibrate` made: the fitted method, the figures, and the model's file."""

    calibrator: Calibrator
    comparison: Comparison
    model_path: Path


def calibrate(
    network: nn.Module,
    loader: Iterable[Mapping[str, Any]],
    inferer: Callable[..., Any] | None = None,
    *,
    num_classes: int,
    models_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    method: str = AUTO,
    method_args: Mapping[str, Any] | None = None,
    region: str | None = None,
    also: Sequence[str] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    comparison_loader: Iterable[Mapping[str, Any]] | None = None,
    protocols: Sequence[str | Mapping[str, Any] | Protocol] = ("paper", "recommended"),
    device: torch.device | str | None = None,
    amp: bool = False,
    ignore_index: int | None = None,
    spacing: Sequence[float] | None = None,
    run: Mapping[str, Any] | None = None,
    force: bool = False,
    most_bytes: int = 8 * 2**30,
) -> Calibrated:
    """Fit a correction on validation data, build it into the network, and write model, parameters and figures.

    Written are

    - ``models_dir/model_calibrated.pt``: the network's state dict with the correction folded in, for a method that is
      linear in the logits; else ``models_dir/model_calibrated.ts``, the network and its head as TorchScript;
    - ``models_dir/calibration_parameters.json``: the fitted method, for :meth:`Calibrator.from_json`;
    - ``output_dir/before_after.json`` and ``before_after.md``: the protocols' figures before and after, for this
      method and those of ``also``.

    Args:
        network: the trained network, or one to load ``checkpoint`` into. A method that folds changes it in place.
        loader: validation data without augmentation; the network runs over it once, and its logits are kept.
        inferer: as the evaluation will use; it must average logits where windows overlap.
        num_classes: channels of the logits.
        models_dir, output_dir: folders, made when missing.
        method: ``"auto"``, chosen on held-out subjects by :func:`~.auto.choose`, which may be no correction at all; or
            a name out of :data:`~monai_calib.posthoc.METHODS`.
        method_args: arguments of the method beside ``num_classes`` and ``region``.
        region: voxels that count in the fit; the method's own default if not given.
        also: further methods to fit and to show beside it.
        checkpoint: state dict of the network to load first.
        comparison_loader: data for the figures, such as the test split; the validation data if not given, which
            flatters the fitted methods.
        protocols, device, amp, ignore_index, spacing: as in evaluation.
        run: plain values that the JSON files should say about the run.
        force: write a method asked for by name even if it makes the network worse on held-out cases.
        most_bytes: of disk for logits of a temporary folder; for cases beyond it the network runs in every pass.

    Raises: ``ValueError`` for an unknown method, no data or broken data; :class:`~.auto.RefusedCorrectionError` for a
        method by name that makes the network worse, nothing being written; :class:`~.folding.FoldingError` for a
        network that cannot take up a linear correction.
    """
    slice_axis = inferer.spatial_dim if isinstance(inferer, SliceInferer) else None
    if method != AUTO:
        build_calibrator(method, num_classes, region, method_args)  # an unknown one is told before the network runs
    elif region is not None or method_args:
        raise ValueError("method 'auto' chooses its own region and arguments: name a method to give them.")
    others = {name: build_calibrator(name, num_classes, region) for name in also if name != method}
    resolved = resolve_protocols(protocols)
    if checkpoint is not None:
        load_weights(
            network, read_checkpoint(checkpoint, advice="Train first, or name a model with --model_path."), checkpoint
        )
    stream = LogitStream(network, loader, inferer, device, amp, ignore_index=ignore_index, spacing=spacing)
    network.to(stream.device)
    example = _FirstWindow(network)
    kept = KeptCases(stream, most_bytes, with_images="local_temperature" in (method, *also))
    if not sum(1 for _ in kept):
        raise ValueError("the loader gave no case to calibrate on: name a validation set that holds cases")
    example.remove()
    chosen, about = find_correction(kept, method, num_classes, region, method_args, slice_axis, force)
    method = chosen.method
    methods = {method: chosen, **{name: calibrator for name, calibrator in others.items() if name != method}}
    for calibrator in methods.values():
        calibrator.slice_axis = slice_axis
    to_fit = [calibrator for calibrator in methods.values() if not isinstance(calibrator, NoCorrection)]
    if to_fit:
        fit(to_fit, kept)
    for name, calibrator in methods.items():
        record = calibrator.record
        _log.info("%s: %s in %d passes over %d cases", name, record.status, record.passes, record.cases)
    seen: KeptCases | LogitStream = kept
    if comparison_loader is not None:
        seen = LogitStream(network, comparison_loader, inferer, device, amp, ignore_index=ignore_index, spacing=spacing)
    comparison = compare(methods, seen, resolved)
    about |= {"run": dict(run or {}), "method": method, "model": FOLDED if chosen.foldable else WITH_HEAD}
    model_path = _write_model(network, chosen, example.image, Path(models_dir), about)
    content = {
        "format": "monai_calib/before_after/1",
        **about,
        "compared_on": "validation data, which the methods were fitted on" if seen is kept else "other data",
        "protocols": {protocol.name: protocol.to_json() for protocol in resolved},
        "fits": {name: calibrator.to_json() for name, calibrator in methods.items()},
        **comparison.to_json(),
    }
    write_json(Path(output_dir) / "before_after.json", content, indent=None)
    write_text(Path(output_dir) / "before_after.md", _page(content, comparison))
    return Calibrated(chosen, comparison, model_path)


def find_correction(
    cases: Iterable[LogitCase],
    method: str,
    num_classes: int,
    region: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    slice_axis: int | None = None,
    force: bool = False,
    candidates: Sequence[Candidate] | None = None,
) -> tuple[Calibrator, dict[str, Any]]:
    """The unfitted correction, and plain values that say how it came about: chosen, or asked for by name and examined.

    Args:
        cases: the same ones at each iteration.
        method: ``"auto"`` or a name out of :data:`~monai_calib.posthoc.METHODS`.
        num_classes: channels of the logits.
        region, arguments: of a method by name.
        slice_axis: see :class:`~.base.Calibrator`.
        force: take a method by name even if it makes things worse.
        candidates: of ``auto``; :func:`~.auto.default_candidates` if not given.

    Raises: :class:`~.auto.RefusedCorrectionError` for a method by name that makes things worse.
    """
    if method == AUTO:
        everything = list(candidates or default_candidates(num_classes))
        choice = choose(cases, num_classes, everything, slice_axis)
        _log.info("auto: %s; %s (%d subjects, %d cases)", choice.chosen, choice.why, choice.subjects, choice.cases)
        found = next(c for c in everything if c.name == choice.chosen)
        return found.build(num_classes, slice_axis), {"asked": AUTO, "choice": choice.to_json(), "guards": []}
    candidate = Candidate(method, method, region, dict(arguments or {}), 0)
    worse, held = examine(cases, candidate, num_classes, slice_axis)
    if worse and not force:
        raise RefusedCorrectionError(
            f"{method} makes the network worse on cases it was not fitted on: {'; '.join(worse)}. Nothing was written. "
            "Take --method auto, or write it all the same with --force True."
        )
    for sentence in worse:
        _log.warning("%s: %s", method, sentence)
    figures = {name: found.to_json() for name, found in held.items()}
    return candidate.build(num_classes, slice_axis), {"asked": method, "held_out": figures, "guards": worse}


class _FirstWindow:
    """Keeps the first input the network sees, a window of the size it is used with."""

    def __init__(self, network: nn.Module) -> None:
        self._image: Tensor | None = None
        self._hook = network.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._image is None:
            self._image = inputs[0][:1].detach().as_subclass(Tensor).float().clone()

    @property
    def image(self) -> Tensor:
        assert self._image is not None, "a fit has run the network"
        return self._image

    def remove(self) -> None:
        self._hook.remove()


def _write_model(
    network: nn.Module, calibrator: Calibrator, image: Tensor, folder: Path, about: Mapping[str, Any]
) -> Path:
    """Write the model, then its record, which names it by its checksum, then remove a former model of the other kind.

    Killed between two of these steps, the folder holds a pair that fits, or one whose record says that it does not.
    """
    path = folder / about["model"]
    if calibrator.foldable:
        folded = network if isinstance(calibrator, NoCorrection) else fold(network, calibrator, image)
        state = folded.state_dict()
        with atomic_path(path) as partial:
            torch.save({name: value.cpu() for name, value in state.items()}, partial)
    else:
        export_torchscript(CalibratedNetwork(network, calibrator), image, path)
    write_json(folder / PARAMETERS, {**about, "model_sha256": sha256(path), **calibrator.to_json()})
    for other in {FOLDED, WITH_HEAD} - {path.name}:
        (folder / other).unlink(missing_ok=True)
    return path


def _page(content: Mapping[str, Any], comparison: Comparison) -> str:
    lines = ["# Calibration before and after", "", f"Figures on {content['compared_on']}.", ""]
    for name, fitted in content["fits"].items():
        record = fitted["fit"]
        lines.append(
            f"- **{name}**{' (in the model)' if name == content['method'] else ''}: {record['status']}, "
            f"{record['passes']} passes over {record['cases']} cases, {record['voxels']} voxels of region "
            f"{record['region']}. {record['message']}"
        )
    return "\n".join([*lines, "", comparison.table(), ""])
