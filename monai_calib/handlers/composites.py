"""Structures made of several classes, such as the whole tumour: overlap and calibration as binary problems."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import from_engine

from monai_calib.handlers.calibration import CalibrationHandler
from monai_calib.handlers.case_metric import CaseMetric
from monai_calib.handlers.cases import Case
from monai_calib.labels import as_plain_tensor, check_label
from monai_calib.metrics.metric import Metric
from monai_calib.metrics.protocols import Protocol

__all__ = ["BRATS_COMPOSITES", "CompositeHandler", "composite_transform"]

BRATS_COMPOSITES: dict[str, list[int]] = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
"""Whole tumour, tumour core and enhancing tumour out of 1 necrosis, 2 oedema, 3 enhancing tumour."""
_IGNORED = 255


class CompositeHandler:
    """DSC and calibration of composite structures, from the probabilities of the classes they are made of.

    The probability of a composite is the **sum** of its classes' (they exclude each other); its truth is that the
    label is one of them; it is predicted where its probability exceeds one half. Each composite is then a problem of
    two classes of its own, with regions of its own. Reported are ``<name>_dice`` and, for each metric of the
    protocols, ``<name>_ece_union_15bins_macro`` ...; with ``output_dir`` each has an evaluated folder of its own,
    ``output_dir/<name>``. In neither truth nor prediction: no DSC (NaN, left out).

    Args:
        num_classes: channels of the prediction, background included.
        composites: labels of each composite; :data:`BRATS_COMPOSITES` for BraTS with labels 0 to 3.
        protocols: as in :class:`CalibrationHandler`.
        output_transform: takes the engine's output to ``(probabilities, label)``, label as indices or one-hot.
        output_dir: folder for the evaluated folders.
        run: what they should say about the run.
        spacing: voxel size in mm of cases without a header.
        ignore_index: label of voxels that count nowhere.

    Raises: ``ValueError`` for an empty composite or a label that is no foreground class.
    """

    def __init__(
        self,
        num_classes: int,
        composites: Mapping[str, Sequence[int]],
        protocols: Sequence[str | Mapping[str, Any] | Protocol] = ("paper", "by_region"),
        output_transform: Callable[[Any], Any] | None = None,
        output_dir: str | os.PathLike[str] | None = None,
        run: Mapping[str, Any] | None = None,
        spacing: Sequence[float] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        transform = output_transform or from_engine(["prob", "label"])
        self.handlers: list[CaseMetric] = []
        for name, labels in composites.items():
            binary = composite_transform(labels, num_classes, transform, ignore_index)
            calibration = CalibrationHandler(
                2,
                protocols,
                binary,
                output_dir=output_dir,
                class_names=["background", name],
                run={**(run or {}), "composite": name, "labels": list(labels)},
                spacing=spacing,
                prefix=f"{name}_",
                ignore_index=None if ignore_index is None else _IGNORED,
                raters_key=None,  # class numbers of the whole problem
            )
            dice = Metric("dice", "dice", label="DSC", direction=1)
            self.handlers += [calibration, _CompositeDice([dice], binary, spacing, prefix=f"{name}_")]

    def attach(self, engine: Engine) -> None:
        """Measure every iteration of ``engine`` and report when its epoch ends."""
        for handler in self.handlers:
            handler.attach(engine)


class _CompositeDice(CaseMetric):
    def measure(self, case: Case) -> dict[str, list[float]]:
        truth = case.label[0] == 1
        predicted = (case.prediction[1] > 0.5) & (case.label[0] != _IGNORED)
        dice = 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())  # 0 / 0, in neither, is NaN
        return {"dice": [float(dice)]}


def composite_transform(
    labels: Sequence[int],
    num_classes: int,
    output_transform: Callable[[Any], Any],
    ignore_index: int | None = None,
) -> Callable[[Any], tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """Wrap an ``output_transform`` to give probabilities ``(2, *spatial)`` and a label of 0 and 1 for a composite.

    Example:
        >>> binary = composite_transform([1, 2], 3, lambda output: output)
        >>> probability = torch.tensor([0.2, 0.3, 0.5]).view(3, 1, 1)
        >>> predictions, truths = binary(([probability], [torch.tensor([[[2]]])]))
        >>> [round(p, 6) for p in predictions[0].flatten().tolist()], truths[0].item()
        ([0.2, 0.8], 1)
    """
    if not labels or not set(labels) <= set(range(1, num_classes)):
        raise ValueError(f"a composite needs foreground labels out of 1 ... {num_classes - 1}, got {list(labels)}")
    chosen = list(labels)
    rest = [k for k in range(num_classes) if k not in chosen]

    def transform(output: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        predictions, truths = output_transform(output)
        binary = []
        for prediction in map(as_plain_tensor, predictions):
            if prediction.shape[0] != num_classes:
                raise ValueError(f"expected {num_classes} probabilities a voxel, got shape {tuple(prediction.shape)}")
            binary.append(torch.stack([prediction[rest].sum(0), prediction[chosen].sum(0)]))
        return binary, [_is_one_of(truth, chosen, rest, ignore_index) for truth in truths]

    return transform


def _is_one_of(
    label: torch.Tensor, chosen: Sequence[int], rest: Sequence[int], ignore_index: int | None
) -> torch.Tensor:
    """1 in the composite, 0 outside, 255 where ignored, and -1 where the label is no class, which is refused later."""
    plain = as_plain_tensor(label)
    classes = len(chosen) + len(rest)
    if plain.shape[0] == classes:
        plain = torch.where(plain.sum(0, keepdim=True) == 1, plain.argmax(0, keepdim=True), -1)
    seen = check_label(plain, classes, ignore_index, look=False)
    inside = torch.isin(seen.index, torch.tensor(chosen, device=plain.device, dtype=seen.index.dtype)).int()
    if seen.valid is not None:
        inside = inside.masked_fill(~seen.valid, _IGNORED)
    if seen.wrong is not None:
        inside = inside.masked_fill(seen.wrong, -1)
    # The header, if there is one, carries the spacing and the name of the file.
    return MetaTensor(inside, meta=label.meta) if isinstance(label, MetaTensor) else inside
