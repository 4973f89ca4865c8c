"""Compiled kernels where their machine code can be kept nowhere: a read-only installation without a home."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import numba.core.caching
numba.core.caching.CacheImpl._locator_classes = []  # what numba finds for a foreign user without HOME
import numpy as np
import monai_calib.losses, monai_calib.metrics
from monai_calib.compiled import exp_in_place
x = np.array([-1.0, 0.0], np.float32)
exp_in_place(x, np.empty(2, np.int32))
np.testing.assert_allclose(x, np.exp([-1.0, 0.0]), rtol=1e-6)
"""


def test_without_a_place_for_the_cache_kernels_run_and_one_warning_says_so() -> None:
    done = subprocess.run([sys.executable, "-W", "default", "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Set NUMBA_CACHE_DIR") == 1
