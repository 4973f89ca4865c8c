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

from monai_calib.files import folder_lock, write_json
from monai_calib.handlers.weights import load_weights, read_checkpoint
from monai_calib.inferers.networks import AveragedNetwork
from monai_calib.metrics.evaluation import CaseEvaluation
from monai_calib.metrics.inputs import Activation
from monai_calib.metrics.protocols import Protocol
from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.before_after import AS_TRAINED, evaluate_corrections
from monai_calib.posthoc.files import FOLDED, WITH_HEAD
from monai_calib.posthoc.fitting import AUTO, Asked, fit_channels, fit_methods
from monai_calib.posthoc.kept import KeptCases
from monai_calib.posthoc.methods import build_calibrator
from monai_calib.posthoc.model_files import bundle_configs, write_model
from monai_calib.posthoc.sigmoid import SigmoidStream
from monai_calib.posthoc.stream import EachRater, LogitStream
from monai_calib.posthoc.windows import windows_overlap, worse_in_windows
from monai_calib.words import counted

__all__ = ["Calibrated", "calibrate"]

_log = logging.getLogger(__name__)
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
    protocols: Sequence[str | Mapping[str, Any] | Protocol] | None = None,
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
    activation: Activation = "softmax",
    unit: str = "mm",
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
        loader: validation data without augmentation; the network runs over it once, and its logits are kept. Where
            windows overlap it runs once more with the correction, unless that is linear in the logits: see
            :func:`~.windows.worse_in_windows`.
        inferer: as the evaluation will use; it must average logits where windows overlap.
        num_classes: channels of the logits; 1 is a sigmoid channel.
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
        protocols: see :class:`~monai_calib.metrics.evaluation.CaseEvaluation`.
        device, amp, ignore_index, spacing: as in evaluation.
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
        activation: ``"softmax"``, or ``"sigmoid"`` for channels that do not exclude each other (multi-label), of which
            each is corrected as a problem of two classes, by a method of its own if that is chosen. Labels then are
            ``(B, K, *spatial)`` of 0 and 1.
        unit: of the voxel size, in words on what was fitted: ``"px"`` where pixels have no known size and count as 1.

    Raises: :class:`~monai_calib.lock.FolderInUseError` while another process calibrates into ``models_dir``;
        ``ValueError`` for an unknown method, no data or broken data; :class:`~.auto.RefusedCorrectionError` for a
        method by name that makes the network worse, nothing being written; :class:`~.folding.FoldingError` for a
        network that cannot take up a linear correction.
    """
    slice_axis = inferer.spatial_dim if isinstance(inferer, SliceInferer) else None
    unknown = sorted(set(exports) - {"pt2", "onnx", "ts"})
    if unknown:
        raise ValueError(f"exports: expected 'pt2', 'onnx' or 'ts', got {', '.join(unknown)}")
    if method == AUTO and (region is not None or method_args):
        raise ValueError("method 'auto' chooses its own region and arguments: name a method to give them.")
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(f"activation: expected 'softmax' or 'sigmoid', got {activation!r}")
    activation = "sigmoid" if num_classes == 1 else activation
    sigmoid = activation == "sigmoid"
    if sigmoid and isinstance(network, AveragedNetwork):
        raise ValueError(
            f"network: {type(network).__name__} averages softmax probabilities, which {num_classes} sigmoid channels "
            "are not. Calibrate one of its networks"
        )
    # what does not fit together is told before the network runs
    evaluation = CaseEvaluation(num_classes, protocols, class_names, activation=activation)
    channels = list(class_names or [f"channel {k}" for k in range(num_classes)]) if sigmoid else []
    classes = 2 if sigmoid else num_classes  # of a fit
    named = [] if method == AUTO else [build_calibrator(method, classes, region, method_args)]
    others = [name for name in also if name != method]
    regions = {
        calibrator.region for calibrator in (*named, *(build_calibrator(name, classes, region) for name in others))
    }
    if checkpoint is not None:
        load_weights(
            network, read_checkpoint(checkpoint, advice="Train first, or name a model with --model_path."), checkpoint
        )

    def stream_of(data: Iterable[Mapping[str, Any]]) -> LogitStream:
        more: dict[str, Any] = {"ignore_index": ignore_index, "spacing": spacing}
        if sigmoid:
            return SigmoidStream(network, data, inferer, device, amp, channels=channels, **more)
        return LogitStream(network, data, inferer, device, amp, **more)

    with folder_lock(models_dir, "calibrating"):
        stream = stream_of(loader)
        network.to(stream.device)
        example = _FirstWindow(network)
        whole = "local_temperature" in (method, *also)
        most = (MOST_BYTES_OF_WHOLE_CASES if whole else MOST_BYTES) if most_bytes is None else most_bytes
        kept = KeptCases(stream, most, whole, regions, slice_axis=slice_axis)
        cases = sum(1 for _ in kept) // stream.problems_per_case
        if not cases:
            raise ValueError("the loader gave no case to calibrate on: name a validation set that holds cases")
        example.remove()
        step = stream.problems_per_case
        asked = Asked(method, classes, region, method_args, others, slice_axis, force, fitted_on, unit)
        if sigmoid:
            found = fit_channels({name: EachRater(kept.every(step, k)) for k, name in enumerate(channels)}, asked)
        else:
            overlap = windows_overlap(stream.largest, example.image.shape[2:], slice_axis)

            def worse_as_run(calibrator: Calibrator) -> list[str]:
                return [] if calibrator.foldable or not overlap else worse_in_windows(calibrator, stream)

            found = fit_methods(EachRater(kept), asked, worse_as_run)
        for name, calibrator in found.methods.items():
            record = calibrator.record
            told = f"{counted(record.passes, 'pass')} over {counted(record.cases, 'case')}"
            _log.info("%s: %s in %s", name, record.status, told)
        method, chosen = next(iter(found.methods.items()))
        folds = chosen.foldable and not isinstance(network, AveragedNetwork)
        about = {
            **found.about,
            "sampled_cases": -(-kept.sampled // step),
            "run": dict(run or {}),
            "model": FOLDED if folds else WITH_HEAD,
            "correction": found.records[method],
        }
        evaluated: dict[str, Path] = {}
        if output_dir is not None:
            on_fit = comparison_loader is None
            seen: KeptCases | LogitStream = stream if kept.sampled else kept
            if comparison_loader is not None:
                seen = stream_of(comparison_loader)
            shared = {**(run or {}), "split": fitted_on if on_fit else compared_on}
            evaluated = evaluate_corrections(
                found.methods,
                seen,
                Path(output_dir, "posthoc"),
                num_classes=num_classes,
                protocols=evaluation.protocols,
                classes=channels or class_names,
                ignore_index=ignore_index,
                runs={AS_TRAINED: shared}
                | {name: {**shared, "posthoc": name, "correction": record} for name, record in found.records.items()},
                activation=activation,
            )
        trained = Path(models_dir, "training.json")
        if isinstance(network, AveragedNetwork) and not trained.exists():
            write_json(trained, {"settings": dict(run or {})})  # which an evaluation of the average looks up
        embedded = bundle_configs(bundle_root, run or {})
        model_path = write_model(network, chosen, example.image, Path(models_dir), about, exports, embedded)
        _log.info("wrote %s: %s, %s", model_path, method, chosen.in_words())
        if output_dir is not None:
            _log.info("next: python -m monai_calib report %s shows before and after", output_dir)
        return Calibrated(chosen, evaluated, model_path)


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
