"""Expected volumes from calibrated probabilities, with intervals for neighbours that err together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.stats import norm
from scipy.stats import t as student

from monai_calib.labels import top_class

from .truth import Truth, check_probability, check_truth

__all__ = [
    "VolumeEstimate",
    "VolumeFit",
    "VolumeModel",
    "check_spacing",
    "expected_volume",
    "volume_deviation",
    "volume_error",
]

# Voxels of a smaller standard deviation count as independent: that changes no interval that is worth a name, but the
# box of correlated voxels would grow by much. A prediction that is all but sure keeps a deviation above 0.
_NEGLIGIBLE = 1e-3


class VolumeEstimate(NamedTuple):
    """In ml: the expected volume, its interval, and the volume of the label map (largest probability)."""

    ml: float
    low_ml: float
    high_ml: float
    label_ml: float


@dataclass(frozen=True)
class VolumeModel:
    """Distribution of a structure's true volume about its expected volume.

    Voxel ``i`` bears the structure with probability ``p_i``, and two voxels ``h`` mm apart err together with
    correlation ``exp(-h^2 / (2 l^2))``: where one voxel beyond the boundary is structure, its neighbour is likely to
    be. With ``s_i = sqrt(p_i (1 - p_i))`` and voxels of ``v`` ml the standard deviation of the volume is
    ``c v sqrt(sum_ij s_i s_j exp(-h_ij^2 / (2 l^2)))``. Independent voxels (``l = 0``) give intervals that are far too
    narrow: the independent parts of a boundary are patches, not voxels. :class:`VolumeFit` finds ``l`` and ``c`` on
    validation cases.

    Args:
        correlation_mm: the length ``l``.
        inflation: the factor ``c``, above 1 where even the longest correlation does not explain the errors.
        cases: number of cases it was fitted on, those of one subject counted once; the interval is then Student's,
            else normal.

    Raises: ``ValueError`` for a negative length or an inflation below 1.
    """

    correlation_mm: float
    inflation: float = 1.0
    cases: int | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.correlation_mm < math.inf and 1 <= self.inflation < math.inf):
            raise ValueError(f"expected correlation_mm of at least 0 and inflation of at least 1, got {self}")

    def quantile(self, level: float) -> float:
        """Half the interval's width in standard deviations.

        Example:
            >>> round(VolumeModel(2.0).quantile(0.95), 3), round(VolumeModel(2.0, cases=10).quantile(0.95), 3)
            (1.96, 2.228)
        """
        upper = (1 + level) / 2
        return float(norm.ppf(upper) if self.cases is None else student.ppf(upper, self.cases))


def volume_deviation(probability: torch.Tensor, spacing: Sequence[float], correlation_mm: float) -> float:
    """Standard deviation in ml of the volume of one structure, see :class:`VolumeModel`, with ``c = 1``.

    The correlation is a product over the axes, so the double sum is a small matrix product along each axis in turn.

    Args:
        probability: ``(*spatial)``.
        spacing: voxel size in mm.
        correlation_mm: the length ``l``; 0 for independent voxels.

    Example:
        >>> p = torch.full((10, 10), 0.5)
        >>> [round(volume_deviation(p, (10.0, 10.0), l), 3) for l in (0.0, 1e6)]  # sqrt(100) / 2, and 100 / 2 voxels
        [0.5, 5.0]
    """
    p = probability.as_subclass(torch.Tensor).double()
    deviation = (p * (1 - p)).clamp_min(0).sqrt()
    variance = float(deviation.square().sum())
    unsure = (deviation > _NEGLIGIBLE).nonzero()
    if not len(unsure):
        return _voxel_ml(spacing) * math.sqrt(variance)
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(unsure.amin(0), unsure.amax(0), strict=True))
    deviation = deviation[box]
    outside = max(0.0, variance - float(deviation.square().sum()))
    blurred = deviation
    if correlation_mm > 0:
        for axis, step in enumerate(spacing):
            place = torch.arange(deviation.shape[axis], device=p.device, dtype=torch.float64) * step
            correlation = (-0.5 * ((place[:, None] - place) / correlation_mm).square()).exp()
            blurred = torch.tensordot(correlation, blurred, dims=([1], [axis])).movedim(0, axis)
    return _voxel_ml(spacing) * math.sqrt(outside + float((deviation * blurred).sum()))


def expected_volume(
    probability: torch.Tensor,
    spacing: Sequence[float],
    models: VolumeModel | float | Sequence[VolumeModel | float],
    level: float = 0.95,
) -> list[VolumeEstimate]:
    """The expected volume of each structure, ``v sum_i p_i``, with its interval, background left out.

    Probabilities must be calibrated over the whole volume: a floor of 0.001 in 60,000 background voxels of 1 mm is
    0.06 ml of structure that is not there.

    Args:
        probability: ``(K, *spatial)``.
        spacing: voxel size in mm, one number an axis; with two axes, volumes are areas times 1 mm.
        models: a :class:`VolumeModel` or a correlation length in mm, one or one for each structure.
        level: coverage of the interval.

    Raises: ``ValueError`` for values that are no probabilities, and numbers of axes or models that do not fit.

    Example:
        >>> p = torch.full((1, 10, 10, 10), 0.3)
        >>> [round(x, 3) for x in expected_volume(torch.cat([1 - p, p]), (1.0, 1.0, 1.0), 0.0)[0]]
        [0.3, 0.272, 0.328, 0.0]
    """
    probability = check_probability(probability)
    check_spacing(probability, spacing)
    structures = len(probability) - 1
    listed = list(models) if isinstance(models, Sequence) else [models] * structures
    if len(listed) != structures:
        raise ValueError(f"models: expected one, or one for each of {structures} structures, got {len(listed)}")
    label = top_class(probability)
    estimates = []
    for k, model in enumerate(listed, 1):
        model = model if isinstance(model, VolumeModel) else VolumeModel(float(model))
        ml = _voxel_ml(spacing) * float(probability[k].double().sum())
        quantile = model.quantile(level)
        width = model.inflation * volume_deviation(probability[k], spacing, model.correlation_mm)
        width = width * quantile if quantile < math.inf else math.inf  # 0 times infinity would be NaN
        label_ml = _voxel_ml(spacing) * int((label == k).sum())
        estimates.append(VolumeEstimate(ml, max(0.0, ml - width), ml + width, label_ml))
    return estimates


def volume_error(
    probability: torch.Tensor,
    label: torch.Tensor,
    spacing: Sequence[float],
    ignore_index: int | None = None,
    case: str | None = None,
) -> list[float]:
    """True minus expected volume of each structure in ml, background left out.

    Args:
        probability: ``(K, *spatial)``.
        label: true class numbers ``(*spatial)`` or ``(1, *spatial)``, of any type that holds whole numbers.
        spacing: voxel size in mm.
        ignore_index: label of voxels that count in neither volume.
        case: how errors call the case; the label's file by default, if it has one.

    Raises: ``ValueError`` naming the case for values that are no probabilities or no class numbers, or a label of
        another grid.

    Example:
        >>> p = torch.full((1, 10, 10, 10), 0.3)
        >>> [round(error, 3) for error in volume_error(torch.cat([1 - p, p]), torch.ones(10, 10, 10), (1.0, 1.0, 1.0))]
        [0.7]
    """
    return volume_differences(check_truth(probability, label, None, ignore_index, case), spacing)


def volume_differences(truth: Truth, spacing: Sequence[float]) -> list[float]:
    """True minus expected volume in ml of each structure of a checked case."""
    check_spacing(truth.probability, spacing)
    voxels = (float((truth.label == k).sum()) - float(p.double().sum()) for k, p in enumerate(truth.probability))
    return [_voxel_ml(spacing) * difference for difference in voxels][1:]


class VolumeFit:
    """Finds each structure's :class:`VolumeModel` from validation cases.

    With ``V`` the true volume, ``E`` the expected one and ``s(l)`` its standard deviation, the mean over cases of
    ``((V - E) / s(l))^2`` falls as the correlation length ``l`` grows; the fit takes the length where it is 1. Where it
    is above 1 even at ``longest_mm``, the rest becomes the inflation ``c``. A case adds a few numbers, nothing else is
    kept.

    Args:
        num_classes: channels, background included.
        longest_mm: longest correlation length to try.
        ignore_index: label of voxels that count nowhere.

    Example:
        >>> fit = VolumeFit(2)
        >>> p = torch.full((1, 8, 8, 8), 0.5)
        >>> for truth in (torch.zeros(8, 8, 8), torch.ones(8, 8, 8)):  # all or nothing: everything errs together
        ...     fit.update(torch.cat([1 - p, p]), truth, (1.0, 1.0, 1.0))
        >>> fit.models()[0].correlation_mm > 10
        True
    """

    def __init__(self, num_classes: int, longest_mm: float = 32.0, ignore_index: int | None = None) -> None:
        if num_classes < 2 or not 0.5 <= longest_mm < math.inf:
            raise ValueError(
                f"expected at least 2 classes and longest_mm of at least 0.5, got {num_classes}, {longest_mm}"
            )
        self.num_classes, self.ignore_index = num_classes, ignore_index
        steps = math.ceil(2 * math.log2(longest_mm / 0.25))
        self.lengths = [0.0, *(0.25 * (longest_mm / 0.25) ** (i / steps) for i in range(steps + 1))]
        self._errors: list[list[float]] = [[] for _ in range(num_classes - 1)]
        self._deviations: list[list[list[float]]] = [[] for _ in range(num_classes - 1)]
        self._subjects: set[str] = set()

    def update(
        self,
        probability: torch.Tensor,
        label: torch.Tensor,
        spacing: Sequence[float],
        subject: str | None = None,
        case: str | None = None,
    ) -> None:
        """Add a case: calibrated probabilities ``(K, *spatial)``, true class numbers ``(*spatial)``, voxel size.

        Args:
            subject: whose case it is. Intervals are Student's with as many degrees of freedom as there are subjects;
                without a subject the case counts as somebody of its own.
            case: how errors call it; the label's file by default, if it has one.

        Raises: ``ValueError`` as :func:`volume_error`, or for another number of classes; nothing is added then.
        """
        truth = check_truth(probability, label, self.num_classes, self.ignore_index, case)
        for k, error in enumerate(volume_differences(truth, spacing), 1):
            self._errors[k - 1].append(error)
            deviations = [volume_deviation(truth.probability[k], spacing, length) for length in self.lengths]
            self._deviations[k - 1].append(deviations)
        self._subjects.add(f"case {len(self._errors[0])}, unnamed" if subject is None else f"subject {subject}")

    def models(self) -> list[VolumeModel]:
        """One model a structure. Raises ``ValueError`` if no case was added."""
        if not self._errors[0]:
            raise ValueError("no case to fit on: call update() for each validation case")
        return [self._model(errors, rows) for errors, rows in zip(self._errors, self._deviations, strict=True)]

    def _model(self, errors: list[float], rows: list[list[float]]) -> VolumeModel:
        squared = torch.tensor(errors, dtype=torch.float64).square()[:, None]
        # An absolutely sure case has no deviation; its error counts, if there is any, as that of the surest other.
        variance = torch.tensor(rows, dtype=torch.float64).square()
        variance = torch.maximum(variance, variance.mean(0, keepdim=True) * 1e-3).clamp_min(1e-18)
        excess = (squared / variance).mean(0).tolist()
        cases = len(self._subjects)
        if excess[0] <= 1:
            return VolumeModel(0.0, cases=cases)
        for i in range(1, len(excess)):
            if excess[i] <= 1:
                # The excess falls about as a power of the length, so the way to 1 is measured in logarithms.
                share = math.log(excess[i - 1]) / math.log(excess[i - 1] / excess[i]) if excess[i] > 0 else 1.0
                length = self.lengths[i - 1] + share * (self.lengths[i] - self.lengths[i - 1])
                return VolumeModel(length, cases=cases)
        return VolumeModel(self.lengths[-1], inflation=math.sqrt(excess[-1]), cases=cases)


def _voxel_ml(spacing: Sequence[float]) -> float:
    return math.prod(spacing) / 1000


def check_spacing(probability: torch.Tensor, spacing: Sequence[float] | None) -> tuple[float, ...]:
    """The voxel size in mm of probabilities ``(K, *spatial)``; ``ValueError`` unless it is one number an axis."""
    sizes = tuple(float(step) for step in spacing or ())
    if probability.ndim - 1 != len(sizes) or not all(0 < step < math.inf for step in sizes):
        raise ValueError(
            f"spacing: expected a positive voxel size for each of {probability.ndim - 1} axes, got {sizes}"
        )
    return sizes
