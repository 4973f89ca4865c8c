"""Compiled kernels: on several threads, and where their machine code can be kept nowhere."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_calib.compiled import on_threads

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


@pytest.fixture
def _two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_two_threads")
@given(st.integers(1, 3000), st.integers(1, 70), st.integers(1, 40))
def test_parts_come_back_in_order_and_cover_everything_once(size: int, smallest: int, step: int) -> None:
    parts = on_threads(lambda start, stop: list(range(start, stop)), size, smallest, step)
    assert [item for part in parts for item in part] == list(range(size))
    assert all(part[0] % step == 0 for part in parts if part)


@pytest.mark.usefixtures("_two_threads")
def test_a_late_thread_delays_nothing_and_an_error_is_raised_from_whichever() -> None:
    main = threading.current_thread()

    def slow_elsewhere(start: int, stop: int) -> str:
        if threading.current_thread() is not main:
            time.sleep(0.2)
        return threading.current_thread().name

    names = on_threads(slow_elsewhere, 800, 1, 1)
    assert len(names) == 8
    assert sum(name == main.name for name in names) >= 7, "the main thread takes what the other has not begun"

    def fails(start: int, stop: int) -> None:
        raise ValueError(f"part from {start}")

    with pytest.raises(ValueError, match="part from"):
        on_threads(fails, 800, 1, 1)
