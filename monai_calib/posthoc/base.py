"""Post-hoc corrections: each watches passes over the data and ends as a small head."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from monai_calib.metrics.regions import Region
from monai_calib.posthoc.files import CALIBRATOR_FORMAT
from monai_calib.posthoc.newton import Derivatives
from monai_calib.posthoc.stream import LogitCase
from monai_calib.words import counted

__all__ = ["Calibrator", "CalibratorWarning", "FitRecord", "fit"]


class CalibratorWarning(UserWarning):
    """The data did not determine a calibration; the message says what was done instead."""


@dataclass
class FitRecord:
    """Record of a fit.

    ``status`` is ``"converged"``, ``"at bound"`` (the best value lies outside the allowed range), ``"undetermined"``
    (nothing to learn from the data; the identity is kept) or ``"pass limit"``; ``message`` says it in words. ``nll``
    is the mean negative log-likelihood of a voxel of the region, in nats, with the network as it is.
    """

    status: str = "not fitted"
    message: str = ""
    region: str = ""
    cases: int = 0
    voxels: int = 0
    passes: int = 0
    nll_before: float | None = None
    absent_classes: tuple[int, ...] = ()


class Calibrator(ABC):
    """A post-hoc correction of logits, fitted on validation data and kept as a small module, the head.

    Fitting is a series of passes over the cases: :func:`fit` drives them, for several methods at once. Nothing of a
    case is kept, so memory does not grow with the data. :meth:`apply` and the exported head are the same code.

    Args:
        num_classes: channels of the logits.
        region: the voxels that count in the fit, see :class:`~monai_calib.metrics.regions.Region`; easy background
            outside it has no say.

    Attributes:
        head: module that maps ``(logits, image)`` to calibrated logits; the identity's until it is fitted.
        record: how the fit went.
        foldable: whether the head is linear in the logits, and so can go into the last convolution.
        keeps_argmax: whether the predicted label of no voxel can change.
        looks_around: whether a voxel's logits depend on other voxels.
        slice_axis: spatial axis across which the network sees a volume slice by slice. A head that looks around is then
            fitted and applied within slices, since that is all it will see inside the network.
        unit: of lengths, where it is told what was fitted.
    """

    method: str
    foldable: bool = False
    keeps_argmax: bool = False
    looks_around: bool = False
    default_region: ClassVar[str] = "dilated:max(2mm,2vx)"

    def __init__(self, num_classes: int, region: str | Region | None = None) -> None:
        if num_classes < 2:
            raise ValueError(f"num_classes: expected at least 2 softmax channels, got {num_classes}")
        self.num_classes = num_classes
        self.region = Region.parse(region or self.default_region)
        self.record = FitRecord(region=str(self.region))
        self.slice_axis: int | None = None
        self.unit = "mm"
        self.head: nn.Module = self.make_head()

    @abstractmethod
    def make_head(self) -> nn.Module:
        """A head of the right size that changes nothing."""

    @abstractmethod
    def observe(self, case: LogitCase) -> None:
        """Take in one case of the current pass."""

    def parts(self, case: LogitCase) -> Iterable[LogitCase]:
        """A case as the head will see it: whole, or slice by slice."""
        if self.slice_axis is None or not self.looks_around:
            return (case,)
        return case.slices(self.slice_axis, self.region)

    @abstractmethod
    def end_pass(self) -> bool:
        """Draw the conclusions of a pass; true when the fit is finished and :attr:`head` is set."""

    def take_in(self, case: LogitCase) -> None:
        """Take in a case of the current pass as the head will see it. Raises ``ValueError`` for other channels."""
        if len(case.logits) != self.num_classes:
            raise ValueError(
                f"case {case.name}: expected {self.num_classes} channels of logits, got {len(case.logits)}"
            )
        for part in self.parts(case):
            self.observe(part)

    def place(self) -> dict[str, Any]:
        """The parameters at which the current pass takes its sums, in plain values."""
        return {}

    def go_to(self, place: Mapping[str, Any]) -> None:
        """Begin a pass at the :meth:`place` of an equal calibrator elsewhere. Raises ``ValueError`` for another's."""
        if place:
            raise ValueError(f"{self.method}: expected no parameters of a pass, got {', '.join(place)}")

    def learn(self, settings: Mapping[str, Any], where: str) -> None:
        """Take over what an equal calibrator elsewhere has learned from its cases, such as their voxel size.

        Raises: ``ValueError`` naming ``where`` for settings of another one, or of cases unlike those seen before.
        """
        if dict(settings) != self.settings():
            raise ValueError(f"{where}: expected {self.method} with {self.settings()}, got {dict(settings)}")

    def sums(self) -> dict[str, Tensor]:
        """The sums over the voxels of this pass so far: all that a fit takes from the cases.

        Raises: ``ValueError`` for a method whose fit is no sum.
        """
        raise ValueError(f"{self.method}: the fit is no sum over voxels. Take one of the other methods.")

    def add_sums(self, sums: Mapping[str, Tensor]) -> None:
        """Add the :meth:`sums` that an equal calibrator has taken of other cases at the same :meth:`place`."""
        raise ValueError(f"{self.method}: the fit is no sum over voxels. Take one of the other methods.")

    def share(self, other: Calibrator) -> bool:
        """Use the sums of another calibrator of the same fit, where both need the same; false if they do not."""
        return False

    def settings(self) -> dict[str, Any]:
        """The arguments that make an equal, unfitted calibrator."""
        return {"num_classes": self.num_classes, "region": str(self.region)}

    @torch.no_grad()
    def apply(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Calibrated logits ``(B, K, *spatial)``; softmax makes them probabilities.

        Args:
            logits: ``(B, K, *spatial)``.
            image: ``(B, C, *spatial)``, read by the local temperature only.
        """
        if logits.ndim < 3 or logits.shape[1] != self.num_classes:
            raise ValueError(f"expected logits (B, {self.num_classes}, *spatial), got {tuple(logits.shape)}")
        plain = logits.as_subclass(Tensor)
        plain = plain if plain.dtype == torch.float64 else plain.float()
        head = self.head.to(plain.device, plain.dtype)
        if self.slice_axis is None or not self.looks_around:
            return head(plain, image)
        across = self.slice_axis + 2
        images = [None] * plain.shape[across] if image is None else image.unbind(across)
        return torch.stack([head(*slices) for slices in zip(plain.unbind(across), images, strict=True)], across)

    def apply_case(self, case: LogitCase) -> Tensor:
        """Calibrated logits ``(K, *spatial)`` of a case, whole or a sample of its voxels."""
        image = None if case.image is None else case.image[None]
        return self.apply(case.logits[None], image)[0]

    def derivatives(self, case: LogitCase) -> Derivatives | None:
        """Gradient and Hessian of a case's likelihood at the optimum; None where the fit is none of a smooth one."""
        return None

    def optimum(self) -> Tensor | None:
        """The fitted parameters that :meth:`derivatives` is with respect to, ``(P,)`` float64."""
        return None

    def numbers(self, optimum: Tensor) -> dict[str, float]:
        """The parameters as people know them, by name."""
        return {}

    def in_words(self) -> str:
        """The fitted numbers, as far as there are few."""
        return counted(sum(value.numel() for value in self.head.state_dict().values()), "number")

    def to_json(self) -> dict[str, Any]:
        """All of it in plain values, for ``json.dump``."""
        state = {name: value.tolist() for name, value in self.head.state_dict().items()}
        return {
            "format": CALIBRATOR_FORMAT,
            "method": self.method,
            "settings": self.settings(),
            "slice_axis": self.slice_axis,
            "state": state,
            "fit": asdict(self.record),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibrator:
        """The calibrator that :meth:`to_json` wrote, of whichever method. Raises ``ValueError`` for another format."""
        if data.get("format") != CALIBRATOR_FORMAT:
            raise ValueError(f"format: expected {CALIBRATOR_FORMAT!r}, got {data.get('format')!r}")
        methods = {kind.method: kind for kind in _methods(cls)}
        method = "per_channel" if "channels" in data else data["method"]
        if method not in methods:
            raise ValueError(f"unknown method {method!r}; expected one of {', '.join(sorted(methods))}")
        if "channels" in data:
            return methods[method].from_json(data)
        made = methods[method](**data["settings"])
        made.slice_axis = data.get("slice_axis")
        made.head.load_state_dict({name: torch.tensor(value) for name, value in data["state"].items()})
        made.record = FitRecord(**{**data["fit"], "absent_classes": tuple(data["fit"]["absent_classes"])})
        return made

    def warn(self, status: str, message: str) -> None:
        """Note that the data did not determine the fit, and say so once."""
        self.record.status, self.record.message = status, message
        warnings.warn(f"{self.method}: {message}", CalibratorWarning, stacklevel=2)


def _methods(kind: type[Calibrator]) -> Iterable[type[Calibrator]]:
    """A kind of calibrator and those derived from it, without the abstract ones."""
    if hasattr(kind, "method"):
        yield kind
    for child in kind.__subclasses__():
        yield from _methods(child)


def fit(calibrators: Sequence[Calibrator], cases: Iterable[LogitCase], max_passes: int = 40) -> None:
    """Fit several methods in common passes over the cases; each pass runs the network once over the data.

    Args:
        calibrators: fitted in place. Those that are finished sit out the remaining passes.
        cases: gives the same cases each time it is iterated: a list, or a :class:`~.stream.LogitStream`.
        max_passes: what is not finished then keeps the best it has, and its record says so.

    Raises: ``ValueError`` if there is no case, no voxel in a region, or if a case is broken (naming it).

    Example:
        >>> from monai_calib.posthoc import TemperatureScaling
        >>> logits = torch.tensor([[2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])  # sure to 0.88, right to 0.75
        >>> scaling = TemperatureScaling(2, region="all")
        >>> fit([scaling], [LogitCase("a", logits, torch.tensor([0, 0, 0, 1]))])
        >>> round(scaling.temperature, 4), scaling.record.passes  # 2 / log 3
        (1.8205, 2)
    """
    unfinished = list(calibrators)
    for place, calibrator in enumerate(unfinished):
        any(calibrator.share(earlier) for earlier in unfinished[:place])
    for number in range(1, max_passes + 1):
        seen, voxels = 0, dict.fromkeys((c.region for c in unfinished), 0)
        for case in cases:
            seen += 1
            for region in voxels:
                voxels[region] += case.count(region)
            for calibrator in unfinished:
                calibrator.take_in(case)
        _check_seen(seen, voxels, number)
        finished = []
        for calibrator in unfinished:
            record = calibrator.record
            record.cases, record.voxels, record.passes = seen, voxels[calibrator.region], number
            if calibrator.end_pass():
                finished.append(calibrator)
        unfinished = [calibrator for calibrator in unfinished if calibrator not in finished]
        if not unfinished:
            return
    for calibrator in unfinished:
        calibrator.warn(
            "pass limit", f"not finished after {counted(max_passes, 'pass')} over the data; kept the best so far"
        )


def _check_seen(cases: int, voxels: dict[Region, int], number: int) -> None:
    if not cases and number == 1:
        raise ValueError("the loader gave no case to calibrate on: name a validation set that holds cases")
    if not cases:
        raise ValueError(
            "the loader gave cases once and none when asked again: pass a list or a DataLoader, not an iterator"
        )
    empty = [str(region) for region, count in voxels.items() if not count]
    if empty:
        raise ValueError(
            f"no voxel of {counted(cases, 'case')} lies in region {', '.join(empty)}: there is nothing to fit on. "
            "Check that labels and predictions hold foreground, or choose region='all'"
        )
