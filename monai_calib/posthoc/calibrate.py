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

from monai_calib.files import write_json
from monai_calib.handlers.weights import load_weights, read_checkpoint
from monai_calib.inferers.networks import AveragedNetwork
from monai_calib.metrics.protocols import Protocol, resolve_protocols
from monai_calib.posthoc.auto import Candidate, RefusedCorrectionError, choose, default_candidates, examine
from monai_calib.posthoc.base import Calibrator, fit
from monai_calib.posthoc.before_after import AS_TRAINED, evaluate_corrections
from monai_calib.posthoc.files import FOLDED, WITH_HEAD, correction_record
from monai_calib.posthoc.kept import KeptCases
from monai_calib.posthoc.methods import build_calibrator
from monai_calib.posthoc.model_files import bundle_configs, write_model
from monai_calib.posthoc.none import NoCorrection
from monai_calib.posthoc.one_channel import TwoClasses
from monai_calib.posthoc.stream import EachRater, LogitCase, LogitStream
from monai_calib.posthoc.uncertainty import parameter_intervals

__all__ = ["AUTO", "Calibrated", "calibrate", "find_correction"]

_log = logging.getLogger(__name__)
AUTO = "auto"
MOST_BYTES = 128 * 2**20
MOST_BYTES_OF_WHOLE_CASES = 8 * 2**30


class Calibrated(NamedTuple):
    """Result of :func:`calibrate`: the fitted method, the evaluated folders by method, and the model's file."""

    calibrator: Calibrator
    evaluated: dict[str, Path]
    model_path: Path


def calibrate(
    network: nn.Module,
    loader: Iterable[Mapping[str, Any]],
    inferer: Callable[..., Any] | None = None,
    *,
    num_classes: int,
    models_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str] | None = None,
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
    most_bytes: int | None = None,
    class_names: Sequence[str] | None = None,
    fitted_on: str = "validation",
    compared_on: str = "test",
    exports: Sequence[str] = (),
    bundle_root: str | os.PathLike[str] | None = None,
) -> Calibrated:
    """Fit a correction on validation data, build it into the network, and write model, parameters and evaluations.

    Where cases have the labels of several raters (``raters`` in the batch), every fit and choice is that of their mean:
    it sees each case once per rater, from one pass of the network.

    Written are

    - ``models_dir/model_calibrated.pt``: the network's state dict with the correction folded in, for a method that is
      linear in the logits; else ``models_dir/model_calibrated.ts``, the network and its head as TorchScript;
    - ``model_calibrated.pt2`` and ``.onnx`` beside it, as ``exports`` asks, which run without this package;
    - ``models_dir/calibration_parameters.json``: the fitted method, for :meth:`Calibrator.from_json`;
    - ``output_dir/posthoc/<method>/eval``: an evaluated folder of this method, of each of ``also``, and of the network
      ``as_trained``; ``python -m monai_calib report output_dir`` compares them.

    Args:
        network: the trained network, or one to load ``checkpoint`` into. A method that folds changes it in place. An
            average of several (:class:`~monai_calib.inferers.AveragedNetwork`) gets one correction of its mean
            probability, and one file holds it all.
        loader: validation data without augmentation; the network runs over it once, and its logits are kept.
        inferer: as the evaluation will use; it must average logits where windows overlap.
        num_classes: channels of the logits; 1 for a sigmoid channel, whose two classes are corrected and whose model
            keeps one channel. Several sigmoid channels (multi-label) are not corrected.
        models_dir: folder of the model, made when missing.
        output_dir: the run's folder, which gets the evaluations; none are made if it is not given.
        method: ``"auto"``, chosen on held-out subjects by :func:`~.auto.choose`, which may be no correction at all; or
            a name out of :data:`~monai_calib.posthoc.METHODS`.
        method_args: arguments of the method beside ``num_classes`` and ``region``.
        region: voxels that count in the fit; the method's own default if not given.
        also: further methods to fit and to show beside it.
        checkpoint: state dict of the network to load first.
        comparison_loader: data for the evaluations, such as the test split; the validation data if not given, which
            flatters the fitted methods.
        protocols, device, amp, ignore_index, spacing: as in evaluation.
        run: plain values that the JSON files should say about the run.
        force: write a method asked for by name even if it makes the network worse on held-out cases.
        most_bytes: of disk for the logits kept; cases beyond their share are kept as samples of their voxels. 128 MiB
            by default, of which a choice takes a minute or two of a core; 8 GiB with ``"local_temperature"``, which
            needs whole cases.
        class_names: names of the channels.
        fitted_on, compared_on: names of the splits that ``loader`` and ``comparison_loader`` hold.
        exports: further forms of the calibrated model: ``"pt2"`` (torch.export), ``"onnx"``, ``"ts"`` (TorchScript,
            also where the correction folds). One that cannot be made is a warning.
        bundle_root: the bundle, whose ``metadata.json`` and ``inference.json`` go into TorchScript files, with the
            network, patch and dropout of ``run``.

    Raises: ``ValueError`` for an unknown method, no data or broken data; :class:`~.auto.RefusedCorrectionError` for a
        method by name that makes the network worse, nothing being written; :class:`~.folding.FoldingError` for a
        network that cannot take up a linear correction.
    """
    slice_axis = inferer.spatial_dim if isinstance(inferer, SliceInferer) else None
    unknown = sorted(set(exports) - {"pt2", "onnx", "ts"})
    if unknown:
        raise ValueError(f"exports: expected 'pt2', 'onnx' or 'ts', got {', '.join(unknown)}")
    if method == AUTO and (region is not None or method_args):
        raise ValueError("method 'auto' chooses its own region and arguments: name a method to give them.")
    one_channel, num_classes = num_classes == 1, max(num_classes, 2)
    # an unknown method is told before the network runs
    named = [] if method == AUTO else [build_calibrator(method, num_classes, region, method_args)]
    others = {name: build_calibrator(name, num_classes, region) for name in also if name != method}
    resolved = resolve_protocols(protocols)
    if checkpoint is not None:
        load_weights(
            network, read_checkpoint(checkpoint, advice="Train first, or name a model with --model_path."), checkpoint
        )
    if one_channel:
        network = TwoClasses(network)
    stream = LogitStream(network, loader, inferer, device, amp, ignore_index=ignore_index, spacing=spacing)
    network.to(stream.device)
    example = _FirstWindow(network)
    regions = {calibrator.region for calibrator in (*named, *others.values())}
    whole = "local_temperature" in (method, *also)
    most = (MOST_BYTES_OF_WHOLE_CASES if whole else MOST_BYTES) if most_bytes is None else most_bytes
    kept = KeptCases(stream, most, whole, regions, slice_axis=slice_axis)
    cases = sum(1 for _ in kept)
    if not cases:
        raise ValueError("the loader gave no case to calibrate on: name a validation set that holds cases")
    example.remove()
    each = EachRater(kept)
    chosen, about = find_correction(each, method, num_classes, region, method_args, slice_axis, force)
    method = chosen.method
    methods = {method: chosen, **{name: calibrator for name, calibrator in others.items() if name != method}}
    for calibrator in methods.values():
        calibrator.slice_axis = slice_axis
    to_fit = [calibrator for calibrator in methods.values() if not isinstance(calibrator, NoCorrection)]
    if to_fit:
        fit(to_fit, each)
    for name, calibrator in methods.items():
        record = calibrator.record
        record.cases = cases
        _log.info("%s: %s in %d passes over %d cases", name, record.status, record.passes, record.cases)
    about["sampled_cases"] = kept.sampled
    folds = chosen.foldable and not isinstance(network, AveragedNetwork)
    about |= {"run": dict(run or {}), "model": FOLDED if folds else WITH_HEAD}
    records = {
        name: correction_record(
            {
                **(about if calibrator is chosen else {}),
                **calibrator.to_json(),
                "intervals": [interval._asdict() for interval in parameter_intervals(calibrator, each)],
            },
            calibrator.in_words(),
            fitted_on,
        )
        for name, calibrator in methods.items()
    }
    evaluated: dict[str, Path] = {}
    if output_dir is not None:
        on_fit = comparison_loader is None
        seen: KeptCases | LogitStream = stream if kept.sampled else kept
        if comparison_loader is not None:
            seen = LogitStream(
                network, comparison_loader, inferer, device, amp, ignore_index=ignore_index, spacing=spacing
            )
        shared = {**(run or {}), "split": fitted_on if on_fit else compared_on}
        evaluated = evaluate_corrections(
            methods,
            seen,
            Path(output_dir, "posthoc"),
            num_classes=num_classes,
            protocols=resolved,
            classes=class_names,
            ignore_index=ignore_index,
            runs={AS_TRAINED: shared}
            | {name: {**shared, "posthoc": name, "correction": record} for name, record in records.items()},
        )
    about["correction"] = records[method]
    trained = Path(models_dir, "training.json")
    if isinstance(network, AveragedNetwork) and not trained.exists():
        write_json(trained, {"settings": dict(run or {})})  # which an evaluation of the average looks up
    embedded = bundle_configs(bundle_root, run or {})
    model_path = write_model(network, chosen, example.image, Path(models_dir), about, exports, embedded)
    _log.info("wrote %s: %s, %s", model_path, method, records[method]["in_words"])
    if output_dir is not None:
        _log.info("next: python -m monai_calib report %s shows before and after", output_dir)
    return Calibrated(chosen, evaluated, model_path)


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
