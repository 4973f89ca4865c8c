"""Several raters: figures against their mean and against each of them equal a direct computation."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine

from monai_calib.handlers import CalibrationHandler
from monai_calib.labels import mean_label
from monai_calib.metrics import CalibrationHistogram, CaseEvaluation, Protocol, read_evaluated
from monai_calib.metrics.overlap import dice_coefficients
from monai_calib.metrics.raters import agreement, dice_table, volume_crps

CLASSES, SHAPE = 3, (7, 6, 5)


def prediction(seed: int = 0) -> torch.Tensor:
    logits = 2 * torch.randn(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return logits.softmax(0)


def raters(count: int = 4, seed: int = 1) -> torch.Tensor:
    """Raters who agree on two thirds of the voxels."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randint(CLASSES, SHAPE, generator=generator)
    own = torch.randint(CLASSES, (count, *SHAPE), generator=generator)
    return torch.where(torch.rand(SHAPE, generator=generator) < 2 / 3, common, own)


def direct_ece(confidence: np.ndarray, hit: np.ndarray, num_bins: int = 15) -> float:
    """Bins (lower, upper], with hits that may be shares."""
    number = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = [abs(confidence[number == b].sum() - hit[number == b].sum()) for b in range(num_bins)]
    return float(sum(gaps) / len(confidence))


def measured(labels: torch.Tensor, p: torch.Tensor | None = None) -> dict[str, list[float]]:
    evaluation = CaseEvaluation(CLASSES, ["raters"])
    return evaluation.measure(prediction() if p is None else p, labels[0], raters=labels).values


def inside(labels: torch.Tensor, region: str) -> torch.Tensor:
    agree = (labels == labels[0]).all(0)
    majority = mean_label(labels, CLASSES).argmax(0)
    union = (majority != 0) | (prediction().argmax(0) != 0)
    return {"all": torch.ones(SHAPE, dtype=torch.bool), "union": union, "consensus": agree, "dissensus": ~agree}[region]


def test_the_histogram_of_the_mean_is_the_mean_of_the_raters_histograms() -> None:
    labels = raters(4)  # a power of two, so that shares are exact
    evaluation = CaseEvaluation(CLASSES, ["raters"])
    found = evaluation.measure(prediction(), labels[0], raters=labels).histograms
    for region, histogram in found.items():
        total = CalibrationHistogram(CLASSES)
        for label in labels:
            total.update(prediction()[None], label[None], inside(labels, region)[None], from_logits=False)
        for row in (None, *range(CLASSES)):
            one, other = histogram.bins(960, row), total.bins(960, row)
            assert torch.equal(4 * one.count, other.count)
            assert torch.equal(4 * one.hits, other.hits.double())
            assert torch.allclose(4 * one.confidence, other.confidence, rtol=1e-12)
        assert torch.allclose(4 * histogram.sums.scores, total.sums.scores, rtol=1e-6)


@pytest.mark.parametrize("region", ["all", "union", "consensus", "dissensus"])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_errors_and_scores_are_those_computed_over_the_raters(region: str, count: int) -> None:
    labels = raters(count)
    where = inside(labels, region)
    p = prediction()[:, where].double().numpy()
    y = labels[:, where].numpy()
    mean = np.stack([(y == k).mean(0) for k in range(CLASSES)])
    top, voxel = p.argmax(0), np.arange(p.shape[1])
    values = measured(labels)
    assert values[f"ece_{region}_15bins"][0] == pytest.approx(direct_ece(p.max(0), mean[top, voxel]), abs=1e-6)
    each = [direct_ece(p.max(0), top == rater) for rater in y]
    assert values[f"rater_ece_{region}_15bins"][0] == pytest.approx(np.mean(each), abs=1e-6)
    for k in range(CLASSES):
        of_mean = direct_ece(p[k], mean[k])
        assert values[f"classwise_ece_{region}_15bins"][k] == pytest.approx(of_mean, abs=1e-6)
        of_each = [direct_ece(p[k], rater == k) for rater in y if (rater == k).any()]
        assert values[f"rater_classwise_ece_{region}_15bins"][k] == pytest.approx(np.mean(of_each), abs=1e-6)
    nll = [-np.log(p[rater, voxel]).mean() for rater in y]
    assert values[f"nll_{region}"][0] == pytest.approx(np.mean(nll), rel=1e-5)
    hot = np.eye(CLASSES)[y]
    assert values[f"brier_{region}"][0] == pytest.approx(((hot - p.T) ** 2).sum(-1).mean(), rel=1e-5)
    entropy = -np.where(mean > 0, mean * np.log(np.where(mean > 0, mean, 1)), 0).sum(0).mean()
    assert values[f"least_nll_{region}"][0] == pytest.approx(entropy, abs=1e-6)
    assert values[f"least_brier_{region}"][0] == pytest.approx((mean * (1 - mean)).sum(0).mean(), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 6))
def test_no_prediction_beats_the_least_scores_and_the_mean_reaches_them(seed: int, count: int) -> None:
    labels = raters(count, seed)
    for p in (prediction(seed + 1), mean_label(labels, CLASSES)):
        values = measured(labels, p)
        for region in ("all", "dissensus"):
            for score in ("nll", "brier"):
                gap = values[f"{score}_{region}"][0] - values[f"least_{score}_{region}"][0]
                assert math.isnan(gap) or gap > -1e-6
    for score in ("nll", "brier"):
        assert values[f"{score}_all"][0] == pytest.approx(values[f"least_{score}_all"][0], abs=1e-6)
    assert values["ece_all_15bins"][0] == pytest.approx(0, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 6))
def test_the_error_against_the_mean_is_at_most_the_raters_average(seed: int, count: int) -> None:
    values = measured(raters(count, seed), prediction(seed + 1))
    for region in ("all", "union", "consensus", "dissensus"):
        gap = values[f"rater_ece_{region}_15bins"][0] - values[f"ece_{region}_15bins"][0]
        assert math.isnan(gap) or gap > -1e-6


def test_one_rater_is_a_plain_label() -> None:
    label = raters(1)[0]
    alone = CaseEvaluation(CLASSES, ["raters", "by_region_px"]).measure(prediction(), label).values
    plain = CaseEvaluation(CLASSES, ["by_region_px"]).measure(prediction(), label).values
    assert {name: alone[name] for name in plain} == plain
    assert alone["rater_ece_all_15bins"] == alone["ece_all_15bins"] == alone["ece_consensus_15bins"]
    assert math.isnan(alone["ece_dissensus_15bins"][0])
    assert alone["least_nll_all"] == [0.0]
    assert alone["dice_raters"] == dice_coefficients(prediction().argmax(0), label, CLASSES)


def test_voxels_that_a_rater_left_out_count_for_the_others() -> None:
    labels = raters(3)
    labels[0, :2] = 255
    labels[:, 0] = 255
    evaluation = CaseEvaluation(CLASSES, ["raters"], ignore_index=255)
    values = evaluation.measure(prediction(), labels[0], raters=labels).values
    known = labels != 255
    each = []
    for rater, knows in zip(labels, known, strict=True):
        p = prediction()[:, knows].numpy()
        each.append(direct_ece(p.max(0), p.argmax(0) == rater[knows].numpy()))
    assert values["rater_ece_all_15bins"][0] == pytest.approx(np.mean(each), abs=1e-6)
    p = prediction()[:, 1:].flatten(1).numpy()
    mean = mean_label(labels[:, 1:], CLASSES, 255).flatten(1).numpy()
    assert values["ece_all_15bins"][0] == pytest.approx(
        direct_ece(p.max(0), mean[p.argmax(0), np.arange(p.shape[1])]), abs=1e-6
    )


def test_dice_between_all_pairs_is_that_of_each_pair() -> None:
    labels = raters(4)
    labels[3][labels[3] == 2] = 0  # a rater who has seen none of a class
    table = dice_table(labels, CLASSES)
    for a, b in permutations(range(4), 2):
        expected = dice_coefficients(labels[a], labels[b], CLASSES)
        assert torch.allclose(table[:, a, b], torch.tensor(expected, dtype=torch.float64), equal_nan=True)
    found = agreement(labels[0], labels[1:], CLASSES)
    for k in range(CLASSES - 1):
        against = [dice_coefficients(labels[0], rater, CLASSES)[k] for rater in labels[1:]]
        assert found["dice_raters"][k] == pytest.approx(np.nanmean(against))
        pairs = [dice_coefficients(a, b, CLASSES)[k] for a, b in permutations(labels[1:], 2)]
        assert found["dice_between_raters"][k] == pytest.approx(np.nanmean(pairs))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 60))
def test_crps_is_the_integral_over_the_raters_distribution(volumes: list[int], volume: int) -> None:
    grid = np.arange(0, 61) + 0.5  # whole volumes: both steps are constant within each unit
    distribution = np.array([np.mean(np.array(volumes) <= v) for v in grid])
    integral = ((distribution - (grid >= volume)) ** 2).sum()
    assert volume_crps(volume, [float(v) for v in volumes]) == pytest.approx(integral, abs=1e-9)


def test_expected_volumes_are_scored_against_the_raters_volumes() -> None:
    labels = raters(5)
    values = measured(labels)["volume_crps"]
    for k in (1, 2):
        counted = [float((rater == k).sum()) for rater in labels]
        expected = volume_crps(float(prediction()[k].double().sum()), counted) / np.mean(counted)
        assert values[k - 1] == pytest.approx(expected, rel=1e-5)


def test_figures_of_raters_are_not_pooled_and_need_class_numbers() -> None:
    with pytest.raises(ValueError, match=r"rater_ece: expected the reduction 'macro' alone"):
        Protocol("mine", ["all"], ["ece", "rater_ece"], reductions=["macro", "micro"])
    with pytest.raises(ValueError, match=r"expected their class numbers .*KeepRatersd"):
        CaseEvaluation(CLASSES, ["raters"]).measure(prediction(), mean_label(raters(), CLASSES))


def test_the_handler_writes_both_named_and_the_mean_label_without_the_protocol(tmp_path: Path) -> None:
    labels = [raters(3, seed) for seed in (1, 2)]
    batches = [
        {"prob": prediction()[None], "label": label[:1], "raters": label[None], "case": [f"case_{number}"]}
        for number, label in enumerate(labels)
    ]
    evaluator = Engine(lambda engine, batch: batch)
    handler = CalibrationHandler(
        CLASSES,
        ["raters"],
        output_transform=lambda output: (output["prob"], output["label"]),
        output_dir=tmp_path,
        spacing=(1, 1, 1),
    )
    handler.attach(evaluator)
    evaluator.run(batches)
    evaluated = read_evaluated(tmp_path)
    for number, label in enumerate(labels):
        expected = measured(label)
        for name, row in expected.items():
            assert evaluated.class_values(name)[number].tolist() == pytest.approx(row, nan_ok=True), name
    described = evaluated.metrics
    assert described["rater_ece_all_15bins"].label == "ECE of each rater, mean, whole volume, 15 bins"
    assert described["ece_dissensus_15bins"].label == "ECE, where raters differ, 15 bins"
    assert "ece_dissensus_15bins_macro" in evaluated.summary
    assert "volume_crps_macro" in evaluated.summary
