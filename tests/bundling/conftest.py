"""Folders of tests/bundles, whose helpers run a bundle, are at hand here too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from monai.utils import set_determinism

sys.path.append(
    str(Path(__file__).parents[1] / "bundles")
)  # bundle_runs; behind this folder, whose conftest is another


@pytest.fixture(autouse=True)
def _determinism_ends_with_the_test() -> Iterator[None]:
    yield
    set_determinism(None)
