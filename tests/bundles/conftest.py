"""The rendered bundles, tiny data for them, and one run of each from training to inference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundle_runs import BUNDLES, run_bundle
from monai.utils import set_determinism

from monai_calib.phantom import write_phantom


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


@pytest.fixture(scope="session")
def trained(bundle: Path, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a bundle after training and evaluation on the phantom, and inference on its images."""
    run = tmp_path_factory.mktemp(bundle.name)
    run_bundle(bundle, "train", dataset_dir=str(phantom), run_dir=str(run), epochs=1, loss_name="nacl_outer", seed=3)
    run_bundle(bundle, "evaluate", dataset_dir=str(phantom), run_dir=str(run))
    run_bundle(bundle, "inference", dataset_dir=str(phantom / "imagesTr"), run_dir=str(run))
    return run
