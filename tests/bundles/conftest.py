"""The rendered bundles, and tiny data for them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundle_runs import BUNDLES
from monai.utils import set_determinism

from monai_calib.phantom import write_phantom

sys.path.insert(0, str(Path(__file__).parents[1] / "data_scripts"))  # official_layouts


@pytest.fixture(autouse=True)
def _determinism_ends_with_the_test() -> Iterator[None]:
    yield
    set_determinism(None)


@pytest.fixture(scope="session", params=BUNDLES, ids=lambda path: path.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(folder, cases=6, shape=(18, 25, 18), spacing=(2, 2, 2))
    return folder


@pytest.fixture(scope="session")
def schema() -> Path:
    default = Path(__file__).parents[3] / "shared" / "schema" / "meta_schema_20240725.json"
    path = Path(os.environ.get("MONAI_BUNDLE_SCHEMA", default))
    if not path.is_file():
        pytest.skip("MONAI's metadata schema is not here: name it in MONAI_BUNDLE_SCHEMA")
    return path
