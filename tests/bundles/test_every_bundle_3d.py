"""The life of every 3D bundle; the other dimension has its own file, so that two processes share the work."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_runs import BUNDLES
from every_bundle import EveryBundle


@pytest.fixture(
    scope="module", params=[path for path in BUNDLES if path.name.endswith("_3d")], ids=lambda path: path.name
)
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.param


class TestBundles3d(EveryBundle):
    """Every bundle in 3D."""
