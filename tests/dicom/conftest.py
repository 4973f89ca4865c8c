"""Series for the tests: one oblique and anisotropic with shuffled files, and the real one where it is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from synthetic_series import ras_affine, rotation, write_series

from monai_calib.dicom import Series, read_series

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (7, 9, 6)  # columns, rows, slices
AFFINE = ras_affine(rotation(0, 25) @ rotation(2, -15), (0.9, 0.7, 2.5), (-31.0, 12.5, 80.25))


@pytest.fixture(scope="session")
def stored() -> np.ndarray:
    """Voxels that all differ, ``(columns, rows, slices)``."""
    return np.random.default_rng(0).permutation(np.prod(SHAPE)).reshape(SHAPE) - 100


@pytest.fixture(scope="session")
def oblique_folder(tmp_path_factory, stored) -> Path:
    folder = tmp_path_factory.mktemp("oblique")
    write_series(folder, stored, AFFINE, names=[f"{name}.dcm" for name in "dafceb"])
    return folder


@pytest.fixture(scope="session")
def oblique(oblique_folder) -> Series:
    return read_series(oblique_folder)


@pytest.fixture(scope="session")
def real_series() -> Path:
    folder = Path(os.environ.get("MONAI_CALIB_DATA", ROOT.parent / "shared/data")) / "dicom_hippocrop"
    if not folder.is_dir():
        pytest.skip(f"no real series at {folder}")
    return folder
