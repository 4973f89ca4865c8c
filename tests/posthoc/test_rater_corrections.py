"""A correction fitted on several raters is that of their mean label, by an independent minimisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar

from monai_calib.labels import mean_label
from monai_calib.metrics import nll, read_evaluated
from monai_calib.posthoc import TemperatureScaling, VectorScaling, fit
from monai_calib.posthoc.before_after import evaluate_corrections
from monai_calib.posthoc.kept import KeptCases
from monai_calib.posthoc.stream import EachRater, LogitCase, LogitStream

CLASSES, SHAPE = 3, (9, 8, 7)


def rated(seed: int = 0, count: int = 4) -> LogitCase:
    """A case whose raters drew their labels from a softer distribution than the logits say."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(CLASSES, *SHAPE, generator=generator)
    p = (logits / 2).softmax(0).flatten(1).T
    drawn = torch.multinomial(p, count, replacement=True, generator=generator).T.reshape(count, *SHAPE)
    most = mean_label(drawn, CLASSES).argmax(0)
    return LogitCase(f"case {seed}", logits, most, spacing=(1.0, 1.0, 1.0), raters=drawn)


CASES = [rated(seed) for seed in range(3)]


def soft_cross_entropy(change: np.ndarray, bias: np.ndarray) -> float:
    total = count = 0.0
    for case in CASES:
        assert case.raters is not None
        logits = case.logits.double().flatten(1).numpy() * change[:, None] + bias[:, None]
        shares = mean_label(case.raters, CLASSES).flatten(1).double().numpy()
        log_p = logits - np.log(np.exp(logits - logits.max(0)).sum(0)) - logits.max(0)
        total -= (shares * log_p).sum()
        count += shares.shape[1]
    return float(total / count)


def test_the_temperature_is_that_of_the_mean_human_response() -> None:
    scaling = TemperatureScaling(CLASSES, region="all")
    fit([scaling], EachRater(CASES))
    zero = np.zeros(CLASSES)
    best = minimize_scalar(
        lambda t: soft_cross_entropy(np.full(CLASSES, 1 / t), zero), bounds=(0.2, 10), method="bounded"
    )
    assert scaling.temperature == pytest.approx(best.x, rel=1e-3)
    assert abs(scaling.temperature - 2) < 0.2, "what the raters drew from"


def test_vector_scaling_reaches_the_least_cross_entropy_against_the_mean_label() -> None:
    scaling = VectorScaling(CLASSES, region="all")
    fit([scaling], EachRater(CASES))
    best = minimize(
        lambda x: soft_cross_entropy(x[:CLASSES], np.append(x[CLASSES:], 0)),
        [0.5] * CLASSES + [0] * (CLASSES - 1),
        method="L-BFGS-B",
        options={"ftol": 1e-13, "gtol": 1e-9},
    )
    reached = 0.0
    for case in CASES:
        assert case.raters is not None
        log_p = scaling.apply(case.logits[None])[0].double().log_softmax(0)
        reached -= float((mean_label(case.raters, CLASSES) * log_p).sum(0).mean()) / len(CASES)
    assert reached == pytest.approx(best.fun, abs=1e-5)


@pytest.mark.parametrize("kind", [TemperatureScaling, VectorScaling])
def test_it_equals_a_fit_to_all_pairs_of_case_and_rater(kind: type[TemperatureScaling] | type[VectorScaling]) -> None:
    together, pooled = kind(CLASSES, region="all"), kind(CLASSES, region="all")
    fit([together], EachRater(CASES))
    fit([pooled], [LogitCase(case.name, case.logits, one.label) for case in CASES for one in case.by_rater()])
    for name, value in pooled.head.state_dict().items():
        assert torch.allclose(together.head.state_dict()[name], value)


def test_the_regions_of_a_raters_case_are_those_of_the_whole_and_without_what_he_left_out() -> None:
    case = rated()
    assert case.raters is not None
    case.raters[1, :3] = 255
    case.ignore_index = 255
    first, second = list(case.by_rater())[:2]
    assert torch.equal(first.mask("union"), case.mask("union"))
    left_out = torch.zeros(SHAPE, dtype=torch.bool)
    left_out[:3] = True
    assert torch.equal(second.mask("union"), case.mask("union") & ~left_out)
    agree = torch.tensor(np.ma.masked_equal(case.raters.numpy(), 255).ptp(0) == 0)
    assert torch.equal(case.mask("consensus"), agree)
    assert torch.equal(case.mask("dissensus"), ~agree)


@pytest.mark.parametrize("most_bytes", [2**30, 3000])
def test_raters_are_kept_with_whole_cases_and_with_samples(most_bytes: int) -> None:
    class Stream:
        def numbered(self, without: object = ()) -> object:
            return enumerate(rated(seed) for seed in range(3))

        def __len__(self) -> int:
            return 3

    kept = KeptCases(Stream(), most_bytes)  # type: ignore[arg-type]
    first = [[one.histogram() for one in case.by_rater()] for case in kept]
    assert kept.sampled == (0 if most_bytes > 3000 else 3)
    for case, before in zip(kept, first, strict=True):
        assert case.raters is not None
        for one, again in zip(case.by_rater(), before, strict=True):
            assert int(one.histogram().voxels) == int(np.prod(SHAPE))
            assert nll(one.histogram()) == nll(again)
    if not kept.sampled:
        for case, original in zip(kept, CASES, strict=True):
            assert torch.equal(case.raters, original.raters)  # type: ignore[arg-type]


def test_one_pass_of_the_network_serves_all_raters() -> None:
    runs = []

    class Network(torch.nn.Conv3d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            runs.append(x.shape)
            return super().forward(x)

    batch = {"image": torch.rand(1, 1, *SHAPE), "label": CASES[0].label[None, None], "raters": CASES[0].raters[None]}  # type: ignore[index]
    kept = KeptCases(LogitStream(Network(1, CLASSES, 1), [batch]))
    names = [one.name for one in EachRater(kept)]
    assert names == [f"case_0001, rater {number}" for number in range(1, 5)]
    assert len(list(EachRater(kept))) == 4
    assert len(runs) == 1


def test_corrections_are_measured_against_the_mean_and_against_each_rater(tmp_path: Path) -> None:
    scaling = TemperatureScaling(CLASSES, region="all")
    fit([scaling], EachRater(CASES))
    folders = evaluate_corrections({"temperature": scaling}, CASES, tmp_path, num_classes=CLASSES, protocols=["raters"])
    before, after = (read_evaluated(folders[name]).summary for name in ("as_trained", "temperature"))
    for name in ("nll_all_macro", "ece_all_15bins_macro", "rater_ece_all_15bins_macro"):
        assert after[name] < before[name], name
    for name in ("least_nll_all_macro", "dice_between_raters_macro"):
        assert after[name] == pytest.approx(before[name]), name
    assert after["nll_all_macro"] > after["least_nll_all_macro"]
