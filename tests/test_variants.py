"""Choice of a variant by validation, against sorting by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_calib.variants import choose_variant

SEEDS = st.dictionaries(st.integers(0, 4), st.floats(-5, 5), max_size=5)


@given(st.dictionaries(st.text(max_size=3), SEEDS, min_size=1, max_size=5))
def test_the_lowest_mean_over_common_seeds_wins(values: dict[str, dict[int, float]]) -> None:
    found = choose_variant(values)
    common = set.intersection(*(set(of_seed) for of_seed in values.values()))
    assert set(found.seeds) == common
    if not common:
        assert found.best == -1
        return
    means = [sum(of_seed[seed] for seed in common) / len(common) for of_seed in values.values()]
    assert found.means == pytest.approx(means, abs=1e-12)
    assert means[found.best] <= min(means) + 1e-12


def test_a_diverged_variant_is_out() -> None:
    assert choose_variant({"a": {1: math.nan}, "b": {1: 3.0}, "c": {1: math.inf}}).best == 1
