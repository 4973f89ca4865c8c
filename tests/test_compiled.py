"""Compiled kernels whose machine code can be kept nowhere: installed read-only without a home, or a full disk."""

from __future__ import annotations

import subprocess
import sys

import pytest

NO_PLACE = "caching.CacheImpl._locator_classes = []"  # what numba finds for a foreign user without HOME
FULL_DISK = """
def full(*arguments):
    raise OSError(28, "No space left on device")
caching.IndexDataCacheFile.save, caching.IndexDataCacheFile.load = full, lambda *arguments: None
"""
CODE = """
import numpy as np
import monai_calib.losses, monai_calib.metrics
from monai_calib.compiled import exp_in_place
x = np.array([-1.0, 0.0], np.float32)
exp_in_place(x, np.empty(2, np.int32))
np.testing.assert_allclose(x, np.exp([-1.0, 0.0]), rtol=1e-6)
"""


@pytest.mark.parametrize("broken", [NO_PLACE, FULL_DISK])
def test_without_a_place_for_the_cache_kernels_run_and_one_warning_says_so(broken: str) -> None:
    code = f"from numba.core import caching\n{broken}\n{CODE}"
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Set NUMBA_CACHE_DIR") == 1
