"""Margins, sets, thresholds and intervals: one interface, and promises that a simulation holds them to."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from monai_calib.clinical import (
    Conformal,
    ConformalMargin,
    ConformalSets,
    ConformalVolumeFit,
    FalseNegativeControl,
    TooFewSubjectsWarning,
    conformal_from_json,
    conformal_threshold,
    fewest_subjects,
    subject_quantile,
)
from monai_calib.clinical.margins import covering_distance, within

SPACING = (1.0, 0.75, 3.0)
SHAPE = (12, 14, 6)
KINDS: dict[str, Callable[..., Conformal[Any]]] = {
    "margin": ConformalMargin,
    "sets": ConformalSets,
    "volumes": ConformalVolumeFit,
    "false negatives": FalseNegativeControl,
}
NAMES = ["background", "heart", "vessel"]


def subject(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A case with two balls, seen by a network that shifts and blurs them, and sometimes misses one altogether."""
    rng = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(*[np.arange(n) * h for n, h in zip(SHAPE, SPACING, strict=True)], indexing="ij"), -1)
    label, logits = np.zeros(SHAPE, np.int64), np.zeros((3, *SHAPE))
    for k, centre in ((1, (3.5, 4.0, 6.0)), (2, (8.0, 6.0, 10.0))):
        true = centre + rng.normal(0, 0.7, 3)
        radius = rng.uniform(2.2, 3.4)
        label[np.linalg.norm(place - true, axis=-1) <= radius] = k
        seen = true + rng.exponential(0.5) * rng.normal(0, 1, 3)
        strength = -6 if rng.random() < 0.03 else 2
        logits[k] = strength * (radius * rng.uniform(0.7, 1.1) - np.linalg.norm(place - seen, axis=-1))
    logits += rng.normal(0, 0.3, logits.shape)
    return torch.from_numpy(logits).softmax(0).float(), torch.from_numpy(label)


def fitted(kind: str, subjects: int = 12, **settings: Any) -> Conformal[Any]:
    made = KINDS[kind](3, class_names=NAMES, **settings)
    for seed in range(subjects):
        made.update(*subject(seed), spacing=SPACING, subject=f"Jane Doe {seed}")
    made.fit()
    return made


# ---------------------------------------------------------------- formulas against brute force


def distances_by_hand(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.float64]:
    """From each voxel of ``a`` to the nearest of ``b``, over all pairs."""
    first, second = (np.argwhere(mask) * np.array(SPACING) for mask in (a, b))
    return np.sqrt(((first[:, None] - second[None]) ** 2).sum(-1)).min(1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.5, 0.95, 1.0])
def test_covering_distance_is_the_smallest_that_covers(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    predicted, reference = rng.random(SHAPE) < 0.01, rng.random(SHAPE) < 0.1
    predicted[tuple(rng.integers(0, SHAPE))] = True
    by_hand = distances_by_hand(reference, predicted)
    candidates = [r for r in np.unique(by_hand) if (by_hand <= r).sum() >= share * reference.sum()]
    found = covering_distance(predicted, reference, SPACING, share)
    assert found == pytest.approx(min(candidates))
    grown = within(predicted, found, SPACING)
    everywhere = distances_by_hand(np.ones(SHAPE, bool), predicted).reshape(SHAPE)
    assert (grown == (everywhere <= found + 1e-9)).all()
    assert (grown & reference).sum() >= share * reference.sum()
    assert found == 0 or (within(predicted, found * 0.999, SPACING) & reference).sum() < share * reference.sum()


def test_nothing_predicted_is_covered_by_no_distance() -> None:
    empty, something = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    assert covering_distance(empty, something, SPACING, 0.5) == math.inf
    assert not within(empty, 5.0, SPACING).any()
    assert within(empty, math.inf, SPACING).all()


def quantile_by_hand(scores: list[list[float]], level: Fraction) -> float:
    for candidate in sorted(score for row in scores for score in row):
        served = sum(Fraction(sum(score <= candidate for score in row), len(row)) for row in scores)
        if served >= level * (len(scores) + 1):
            return candidate
    return math.inf


def test_subject_quantile_is_the_first_score_that_serves_the_level() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        scores = [rng.integers(0, 9, rng.integers(1, 4)).astype(float).tolist() for _ in range(rng.integers(1, 25))]
        level = Fraction(int(rng.integers(1, 40)), 40)
        assert subject_quantile(scores, float(level)) == quantile_by_hand(scores, level)


def test_sets_leave_out_no_more_of_a_class_than_they_may() -> None:
    sets = fitted("sets", share=0.9, level=0.75)
    assert isinstance(sets, ConformalSets)
    kept = []
    for seed in range(12):
        p, label = subject(seed)
        kept.append([float((p[k] >= sets.thresholds[k].threshold)[label == k].float().mean()) for k in range(3)])
    served = (np.array(kept) >= 0.9).sum(0)
    assert served.tolist() == [math.ceil(0.75 * 13)] * 3  # 10 of 12, and not one more


# ---------------------------------------------------------------- promises


REPEATS, SUBJECTS, LEVEL = 4000, 20, 0.9


def coverage(scores: NDArray[np.float64], rank: int, seed: int = 0) -> tuple[float, float]:
    """Share of random splits in which the next subject's score is within the one of ``rank`` of ``SUBJECTS``, and the
    standard error of that share."""
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(len(scores)), (REPEATS, 1)), axis=1)
    known = np.sort(scores[order[:, :SUBJECTS]], axis=1)
    covered = scores[order[:, SUBJECTS]] <= known[:, rank - 1]
    return float(covered.mean()), float(np.sqrt(0.25 / REPEATS))


RANK = math.ceil(LEVEL * (SUBJECTS + 1))


def test_quantile_covers_the_next_subject_as_often_as_ranks_say_and_the_usual_quantile_does_not() -> None:
    scores = np.random.default_rng(1).lognormal(size=200)
    assert subject_quantile([[score] for score in scores[:SUBJECTS]], LEVEL) == np.sort(scores[:SUBJECTS])[RANK - 1]
    share, error = coverage(scores, RANK)
    assert abs(share - RANK / (SUBJECTS + 1)) < 5 * error
    usual, _ = coverage(scores, math.ceil(LEVEL * SUBJECTS))  # forgets the next subject
    assert usual < LEVEL - 4 * error


def test_cases_of_a_subject_may_resemble_each_other_as_they_like() -> None:
    rng = np.random.default_rng(2)
    levels = rng.lognormal(size=300)
    subjects = [(level * rng.lognormal(0, 0.1, rng.integers(1, 6))).tolist() for level in levels]
    covered = []
    for _ in range(2000):
        drawn = rng.permutation(len(subjects))[: SUBJECTS + 1]
        quantile = subject_quantile([subjects[i] for i in drawn[:-1]], LEVEL)
        covered.append(np.mean(np.array(subjects[drawn[-1]]) <= quantile))
    error = np.std(covered) / np.sqrt(len(covered))
    assert LEVEL - 4 * error <= np.mean(covered) <= LEVEL + 1 / (SUBJECTS + 1) + 4 * error


@cache
def pool(kind: str) -> dict[str, Any]:
    return fitted(kind, 120).to_json()


@pytest.mark.parametrize("kind", ["margin", "sets", "volumes"])
def test_the_next_subject_is_served_as_often_as_promised(kind: str) -> None:
    for of_class in pool(kind)["scores"]:
        scores = np.array([math.inf if row[0] is None else row[0] for row in of_class])
        if len(scores):
            share, error = coverage(scores, RANK)
            assert share >= LEVEL - 4 * error
            short, _ = coverage(scores, RANK - 4)
            assert short < LEVEL - 4 * error  # so that a rank too low would be seen


def test_the_next_subject_misses_no_more_on_average_than_promised() -> None:
    control = fitted("false negatives", 120)
    limit, repeats = 0.1, 3000
    order = np.random.default_rng(0).permuted(np.tile(np.arange(120), (repeats, 1)), axis=1)[:, : SUBJECTS + 1]
    for of_class in control._scores[1:]:
        curves = torch.stack([rows[0] for rows in of_class.values()])
        thresholds = [conformal_threshold(curves[drawn[:-1]], limit).threshold for drawn in order]
        places = np.rint(np.array(thresholds) * (curves.shape[1] - 1)).astype(int)
        missed = curves[order[:, -1], places].numpy()
        error = missed.std() / np.sqrt(repeats)
        assert limit - 2 / (SUBJECTS + 1) - 4 * error <= missed.mean() <= limit + 4 * error


@pytest.mark.parametrize("seed", range(4))
def test_what_is_applied_serves_the_cases_whose_scores_are_within(seed: int) -> None:
    """The link between scores, which the simulation draws, and what a case gets."""
    chosen = np.random.default_rng(seed).permutation(120)
    known, new = chosen[:SUBJECTS], chosen[SUBJECTS : SUBJECTS + 5]

    def of(kind: str) -> tuple[Any, Callable[[int, int], bool]]:
        data = pool(kind)
        scores = [[[math.inf if s is None else s for s in row] for row in of_class] for of_class in data["scores"]]
        drawn = [[of_class[i] for i in known] if of_class else [] for of_class in scores]
        plain = [[[None if s == math.inf else s for s in row] for row in of_class] for of_class in drawn]
        made = conformal_from_json({**data, "scores": plain})
        return made, lambda k, i: scores[k][i][0] <= subject_quantile(drawn[k], LEVEL)

    for i in new.tolist():
        p, label = subject(i)
        margin, served = of("margin")
        for k, mask in enumerate(margin.apply(p, SPACING), 1):
            assert (float(mask[label == k].float().mean()) >= margin.share) == served(k, i)
        volumes, served = of("volumes")
        for k, estimate in enumerate(volumes.apply(p, SPACING), 1):
            true = float((label == k).sum()) * math.prod(SPACING) / 1000
            inside = estimate.low_ml - 1e-9 <= true <= estimate.high_ml + 1e-9
            assert inside == served(k, i) or estimate.low_ml == 0
        sets, served = of("sets")
        for k, mask in enumerate(sets.apply(p)):
            assert not served(k, i) or float(mask[label == k].float().mean()) >= sets.share


# ---------------------------------------------------------------- the interface


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_and_read_does_the_same_and_names_nobody(kind: str) -> None:
    made = fitted(kind)
    text = json.dumps(made.to_json(), allow_nan=False)
    assert "Jane" not in text
    again = conformal_from_json(json.loads(text))
    assert type(again) is type(made)
    p, _ = subject(99)
    ours, theirs = made.apply(p, SPACING), again.apply(p, SPACING)
    assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    with pytest.raises(ValueError, match="format: expected 'monai_calib"):
        type(made).from_json({**made.to_json(), "format": "other"})


WHOLE: dict[str, Callable[[Any], bool]] = {
    "margin": lambda masks: bool(masks.all()),
    "sets": lambda sets: bool(sets.all()),
    "volumes": lambda estimates: all((e.low_ml, e.high_ml) == (0.0, math.inf) for e in estimates),
    "false negatives": lambda kept: bool(kept.all()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_subjects_promise_nothing_and_say_how_many_it_takes(kind: str) -> None:
    made = KINDS[kind](3, class_names=NAMES)
    for number in range(8):  # 16 cases of 8 subjects are no 16 subjects
        for seed in (number, 100 + number):
            made.update(*subject(seed), spacing=SPACING, subject=str(number))
    with pytest.warns(TooFewSubjectsWarning, match="heart: held by 8 validation subjects.* fewer than 9"):
        made.fit()
    assert WHOLE[kind](made.apply(subject(50)[0], SPACING))
    assert WHOLE[kind](conformal_from_json(made.to_json()).apply(subject(50)[0], SPACING))
    made.update(*subject(60), spacing=SPACING, subject="the ninth")
    with warnings.catch_warnings():
        warnings.simplefilter("error", TooFewSubjectsWarning)
        made.fit()


def test_a_structure_that_nobody_has_is_told_apart_from_one_that_is_missed() -> None:
    margins = ConformalMargin(3, class_names=NAMES)
    p, label = subject(0)
    nothing = torch.stack([torch.ones(SHAPE), torch.zeros(SHAPE), torch.zeros(SHAPE)])
    for number in range(10):
        margins.update(nothing, label.where(label == 1, 0), SPACING, str(number))
    with pytest.warns(TooFewSubjectsWarning, match="vessel: held by 0 validation subjects"):
        margins.fit()
    heart, vessel = margins.margins
    assert heart.in_words() == "no margin: nothing of it was found in 10 of 10 validation subjects"
    assert vessel.in_words() == "no margin: held by 0 validation subjects, the promise needs 9"
    assert margins.apply(p, SPACING).all()


def test_a_few_missed_subjects_leave_a_margin_to_the_others() -> None:
    margins = ConformalMargin(2, share=1.0, level=0.8)
    p = torch.zeros(9)
    p[4] = 1.0
    for number in range(14):
        label = torch.zeros(9)
        label[4 : 6 if number < 12 else 9] = 1
        found = p if number < 12 else torch.zeros(9)
        margins.update(torch.stack([1 - found, found]), label, [2.0], str(number))
    margins.fit()
    assert margins.margins[0][:3] == (2.0, 14, 2)
    assert margins.apply(torch.stack([1 - p, p]), [2.0])[0].nonzero().flatten().tolist() == [3, 4, 5]
    empty = torch.zeros(9)
    assert not margins.apply(torch.stack([1 - empty, empty]), [2.0]).any()  # nothing to grow


@pytest.mark.parametrize("kind", KINDS)
def test_ignored_voxels_change_no_score(kind: str) -> None:
    plain, ignoring = KINDS[kind](3), KINDS[kind](3, ignore_index=255)
    for seed in range(3):
        p, label = subject(seed)
        left_out = torch.zeros(SHAPE, dtype=torch.bool)
        left_out[:, :, 4:] = True
        ignoring.update(p, label.masked_fill(left_out, 255), SPACING, str(seed))
        rubbish = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(seed))
        other = torch.where(left_out, rubbish / rubbish.sum(0), p)
        plain.update(other[..., :4], label[..., :4], SPACING, str(seed))
    ignored, cropped = (made._scores for made in (ignoring, plain))
    for ours, theirs in zip(ignored, cropped, strict=True):
        assert ours.keys() == theirs.keys()
        for key, rows in ours.items():
            for first, second in zip(rows, theirs[key], strict=True):
                assert np.asarray(first) == pytest.approx(np.asarray(second))


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_cases_are_refused_by_name_and_leave_nothing(kind: str) -> None:
    made = KINDS[kind](3)
    p, label = subject(0)
    for wrong in ((p * 3, label), (p, label + 1), (p, label[:-1]), (p[:2], label)):
        with pytest.raises(ValueError, match=r"^scan 7: "):
            made.update(*wrong, spacing=SPACING, subject="a", case="scan 7")
    with pytest.raises(ValueError, match="Name the subject as subject="):
        made.update(p, label, "a")  # type: ignore[arg-type]
    assert not any(made._scores)
    with pytest.raises(RuntimeError, match="call fit"):
        made.apply(p, SPACING)
    if kind in ("margin", "volumes"):
        with pytest.raises(ValueError, match="expected a positive voxel size for each of 3 axes"):
            made.update(p, label, subject="a")
        assert not any(made._scores)


def test_levels_and_the_fewest_subjects_for_them() -> None:
    for level in (0.5, 0.8, 0.9, 0.95, 0.99):
        fewest = fewest_subjects(level)
        assert subject_quantile([[1.0]] * fewest, level) == 1.0
        assert subject_quantile([[1.0]] * (fewest - 1), level) == math.inf
    with pytest.raises(ValueError, match="level"):
        subject_quantile([[1.0]], 1.0)
