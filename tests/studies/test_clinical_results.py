"""Every figure on the clinical page comes from the figures kept beside it; its statistics against plain ones."""

from __future__ import annotations

import importlib
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def clinical(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("clinical")


def test_area_is_the_share_of_pairs_in_the_right_order(clinical: ModuleType) -> None:
    rng = np.random.default_rng(0)
    dice = rng.permutation(20) / 20
    score = np.round(dice + rng.normal(size=20), 1)
    worst = np.sort(dice)[3]
    pairs = [
        1.0 if score[i] < score[j] else 0.5 if score[i] == score[j] else 0.0
        for i, j in product(range(20), range(20))
        if dice[i] <= worst < dice[j]
    ]
    assert clinical.area_of_worst(score, dice) == pytest.approx(sum(pairs) / len(pairs))


def test_halves_of_exchangeable_subjects_are_covered_as_promised(clinical: ModuleType) -> None:
    rng = np.random.default_rng(1)
    subjects = [str(i) for i in range(40) for _ in range(1 + i % 2)]
    covered = [clinical.halves_coverage(rng.exponential(size=(1, len(subjects))), subjects)[0] for _ in range(8)]
    # 20 subjects are fitted on, the level is theirs at 20 / 21
    assert np.mean(covered) >= 0.95 - 2.5 * np.std(covered) / np.sqrt(8)


def test_a_statistic_of_identical_subjects_has_no_spread(clinical: ModuleType) -> None:
    expected, true = np.array([[1.0, 2.0, 1.0, 2.0]]), np.array([[2.0, 4.0, 2.0, 4.0]])
    value, low, high = clinical.bootstrapped(clinical.correlation, (expected, true), ["a", "a", "b", "b"])
    assert [value, low, high] == pytest.approx([1.0, 1.0, 1.0])


def test_misses_of_masks(clinical: ModuleType) -> None:
    cases = importlib.import_module("clinical_cases")
    truth, kept = torch.tensor([True, True, True, False]), torch.tensor([True, False, False, True])
    assert cases.missed(kept, truth) == pytest.approx(2 / 3)
