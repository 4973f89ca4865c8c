"""What a recipe is asked for, measured of each case: a network alone or averaged, as it is or corrected."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pages import write_json
from posthoc_results import NONE, dice, histogram_of
from results import floor
from run_logits import RunLogits
from torch import Tensor

from monai_calib.metrics import CalibrationHistogram, Region, ace, brier, ece, nll
from monai_calib.posthoc import Calibrator, LogitCase, TemperatureScaling, build_calibrator, fit

CORRECTIONS = {
    NONE: None,
    "temperature": ("temperature", "dilated:2mm"),
    "boundary temperature": ("boundary_temperature", "all"),
    "isotonic": ("isotonic", "all"),
    "own temperature": ("temperature", "dilated:2mm"),
}
"""Method, and the region whose voxels count in the fit."""
OWN = "own temperature"
"""Fitted on each test case itself: no recipe, but what the best guess of each case's temperature would come to."""
SIGNS = {
    "entropy": "its entropy",
    "disagreement": "the networks' disagreement",
    "confidence": "its confidence",
    "volume": "the volume",
}
"""What of a prediction might tell its temperature: means near the structures, and the voxels of the label map."""
ALONE, AVERAGED = "alone", "averaged"


def averaged(members: Sequence[RunLogits]) -> RunLogits:
    """Mean probabilities of several networks, as logits, with the mean of the networks' entropies beside them."""
    cases = []
    for several in zip(*(member.cases for member in members), strict=True):
        logs = torch.stack([case.logits.log_softmax(0) for case in several])
        kept = {"entropy": torch.stack([entropy(each) for each in logs]).mean(0)}
        cases.append(replace(several[0], logits=logs.logsumexp(0) - math.log(len(several)), data=kept))
    return replace(members[0], cases=cases)


def entropy(log_probability: Tensor) -> Tensor:
    return -(log_probability.exp() * log_probability).sum(0)


def corrections(name: str) -> list[str]:
    """Those measured of a prediction: a case's own temperature is fitted on averages only."""
    return [correction for correction in CORRECTIONS if correction != OWN or name.endswith(AVERAGED)]


def measure(name: str, splits: Mapping[str, RunLogits], cache: Path) -> None:
    """Fit and measure the corrections that ``cache`` does not hold."""
    for correction in corrections(name):
        method, kept = CORRECTIONS[correction], cache / "recipe" / name / f"{correction}.json"
        if kept.is_file():
            continue
        cases = splits["test"].cases
        if correction == OWN:
            rows = [own_figures_of(case, fitted(method, [case])) for case in cases]
        else:
            calibrator = fitted(method, splits["validation"].cases)
            rows = [figures_of(case, calibrator) for case in cases]
        figures = {key: [row[key] for row in rows] for key in rows[0]}
        write_json(kept, {"subjects": splits["test"].subjects, "figures": figures})
        print(f"{name}: {correction}", flush=True)


def fitted(method: tuple[str, str] | None, cases: Sequence[LogitCase]) -> Calibrator | None:
    if method is None:
        return None
    calibrator = build_calibrator(method[0], len(cases[0].logits), method[1])
    fit([calibrator], cases)
    return calibrator


def figures_of(case: LogitCase, calibrator: Calibrator | None) -> dict[str, float]:
    """What is asked of a recipe, of one case. Regions are drawn from the labels before the correction."""
    logits = case.logits if calibrator is None else calibrator.apply(case.logits[None])[0]
    of = {name: histogram_of(case, logits, Region.parse(name)) for name in ("foreground", "boundary:2mm", "all")}
    band, whole = of["boundary:2mm"], of["all"]
    foreground = range(1, len(logits))
    true = float((case.label != 0).sum())
    expected = float(1 - logits.softmax(0)[0].double().mean()) * case.label.numel()
    predicted = logits.argmax(0)
    return {
        "dsc": dice(predicted, case.label, len(logits)),
        "ece_foreground": ece(of["foreground"]),
        "ece_band": ece(band),
        "ece_band_floor": ece_floor(band),
        "ece_all": ece(whole),
        "nll_all": nll(whole),
        "brier_all": brier(whole),
        "volume_excess": (abs(expected - true) - abs(float((predicted != 0).sum()) - true)) / true,
        "monai_ace": statistics.fmean(ace(whole, 20, k) for k in foreground),
        "monai_ace_floor": statistics.fmean(floor(whole, k) for k in foreground),
    }


def own_figures_of(case: LogitCase, calibrator: Calibrator | None) -> dict[str, float]:
    """With the case's own temperature, and what might have told it."""
    assert isinstance(calibrator, TemperatureScaling)
    log_probability = case.logits.log_softmax(0)
    near = case.mask(Region.parse("dilated:2mm"))
    whole = entropy(log_probability)[near].mean()
    return {
        **figures_of(case, calibrator),
        "log_temperature": math.log(calibrator.temperature),
        "entropy": float(whole),
        "disagreement": float(whole - case.data["entropy"][near].mean()),
        "confidence": float(log_probability.max(0).values.exp()[near].mean()),
        "volume": float((case.logits.argmax(0) != 0).sum()),
    }


def ece_floor(histogram: CalibrationHistogram) -> float:
    """The ECE in 15 bins that a perfect forecaster would score if voxels were independent, by the mean of
    ``|accuracy - p|`` of n draws, ``sqrt(2 p (1 - p) / (pi n))``."""
    bins = histogram.bins(15)
    count = bins.count[bins.count > 0].double()
    p = bins.confidence[bins.count > 0] / count
    return float(((2 / math.pi * p * (1 - p) * count).clamp_min(0).sqrt()).sum() / count.sum())


def averaged_name(name: str) -> str:
    return f"{name.rpartition('_seed')[0]}_{AVERAGED}"


def missing(cache: Path, name: str) -> bool:
    return any(not (cache / "recipe" / name / f"{correction}.json").is_file() for correction in corrections(name))
