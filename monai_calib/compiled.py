"""Shared parts of the compiled CPU kernels of losses and metrics: compiling, threads, exponential and logarithm.

The kernels walk a class-major ``(K, N)`` array in blocks of :data:`BLOCK` voxels, small enough to stay in the
processor's first caches, so that a volume is read once and everything is computed from it while it is there.
They release the interpreter lock and are spread over ``torch.get_num_threads()`` threads.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch

__all__ = ["BLOCK", "exp_in_place", "jit", "log_in_place", "on_threads"]

BLOCK = 1024

# NaN and infinity keep their meaning: a network that diverges must be seen to diverge.
_FASTMATH = {"nsz", "arcp", "contract", "reassoc"}

_compile: Callable[..., Any] = functools.partial(numba.njit, nogil=True, fastmath=_FASTMATH, error_model="numpy")


def jit(function: Callable[..., Any]) -> Any:
    """Compile a kernel, and keep the machine code on disk where there is a folder for it.

    A package that is installed read-only, run by a user without a home, has none: then every process compiles anew,
    and one warning says so.
    """
    try:
        compiled = _compile(cache=True)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        _tell_uncached()
        return _compile()(function)
    save = compiled._cache.save_overload

    def save_if_possible(*arguments: Any) -> None:
        try:
            save(*arguments)
        except OSError:  # a full disk or quota: no reason to end a training
            _tell_uncached()

    compiled._cache.save_overload = save_if_possible
    return compiled


@functools.cache
def _tell_uncached() -> None:
    warnings.warn(
        "compiled kernels: expected a folder to keep them in, got none that can be written to; every process compiles "
        "them anew. Set NUMBA_CACHE_DIR to a folder that can.",
        stacklevel=3,
    )


_LOG2_E = np.float32(1.44269504088896341)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_SMALLEST = np.float32(-87.0)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
# Minimax polynomial of (exp(r) - 1 - r) / r^2 on [-ln2/2, ln2/2], highest power first (Cephes' expf).
_C0 = np.float32(1.9875691500e-4)
_C1 = np.float32(1.3981999507e-3)
_C2 = np.float32(8.3334519073e-3)
_C3 = np.float32(4.1665795894e-2)
_C4 = np.float32(1.6666665459e-1)
_C5 = np.float32(5.0000001201e-1)


@jit
def exp_in_place(x, bits):
    """``x = exp(x)`` for float32 ``x <= 0``, to 2 ulp; below -87 it stays at exp(-87), about 1.6e-38; NaN stays NaN.

    The loop holds nothing a compiler cannot turn into vector instructions, which ``math.exp`` prevents.
    ``bits`` is int32 scratch of at least the length of ``x``.
    """
    n = x.size
    scale = bits.view(np.float32)
    for i in range(n):
        v = x[i]
        if v < _SMALLEST:
            v = _SMALLEST
        k = np.floor(v * _LOG2_E + _HALF)
        r = v - k * _LN2_HIGH
        r = r - k * _LN2_LOW
        p = _C0
        p = p * r + _C1
        p = p * r + _C2
        p = p * r + _C3
        p = p * r + _C4
        p = p * r + _C5
        x[i] = p * r * r + r + _ONE
        bits[i] = (np.int32(k) + np.int32(127)) << np.int32(23)
    for i in range(n):
        x[i] *= scale[i]


_LN2 = np.float32(0.6931471805599453)
_SQRT_HALF = np.float32(0.70710678118654752)
# Minimax polynomial of (log(1 + r) - r + r^2 / 2) / r^3 on [sqrt(1/2) - 1, sqrt(2) - 1] (Cephes' logf).
_L0 = np.float32(7.0376836292e-2)
_L1 = np.float32(-1.1514610310e-1)
_L2 = np.float32(1.1676998740e-1)
_L3 = np.float32(-1.2420140846e-1)
_L4 = np.float32(1.4249322787e-1)
_L5 = np.float32(-1.6668057665e-1)
_L6 = np.float32(2.0000714765e-1)
_L7 = np.float32(-2.4999993993e-1)
_L8 = np.float32(3.3333331174e-1)


@jit
def log_in_place(x, bits):
    """``x = log(x)`` for normal float32 ``x > 0``, to 2 ulp; NaN and infinity become NaN.

    ``bits`` is int32 scratch of at least the length of ``x``.
    """
    n = x.size
    words = x.view(np.int32)
    mantissa = bits.view(np.float32)
    for i in range(n):
        bits[i] = (words[i] & np.int32(0x007FFFFF)) | np.int32(0x3F000000)
    for i in range(n):
        exponent = np.float32((words[i] >> np.int32(23)) - np.int32(126))
        # nothing for a finite number, NaN otherwise
        broken = x[i] * np.float32(0.0)
        m = mantissa[i]
        low = m < _SQRT_HALF
        exponent = exponent - _ONE if low else exponent
        r = m + m - _ONE if low else m - _ONE
        p = _L0
        p = p * r + _L1
        p = p * r + _L2
        p = p * r + _L3
        p = p * r + _L4
        p = p * r + _L5
        p = p * r + _L6
        p = p * r + _L7
        p = p * r + _L8
        x[i] = r * r * r * p - _HALF * r * r + r + exponent * _LN2 + broken


_PARTS_PER_THREAD = 4
_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    # Threads do not survive a fork: a child (a DataLoader worker) makes its own pool when it needs one.
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget_pool)


def on_threads(
    kernel: Callable[[int, int], Any], size: int, smallest: int = 16 * BLOCK, step: int = BLOCK
) -> list[Any]:
    """Call ``kernel(start, stop)`` on contiguous parts of ``range(size)`` and return what they return, in order.

    ``torch.get_num_threads()`` threads take the parts, a few for each, as they come: a thread that the system wakes
    late (milliseconds, on a virtual machine) then delays nothing. Parts start at multiples of ``step`` and hold at
    least ``smallest`` items, so the numbers a kernel sums depend on the number of threads only in the order of
    additions.

    Example:
        >>> on_threads(lambda start, stop: stop - start, 100)
        [100]
    """
    global _pool
    threads = max(1, min(torch.get_num_threads(), size // smallest))
    if threads == 1:
        return [kernel(0, size)]
    parts = min(_PARTS_PER_THREAD * threads, size // smallest)
    blocks = -(-size // step)
    edges = [min(size, step * (blocks * i // parts)) for i in range(parts + 1)]
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="monai_calib")
    found: list[Any] = [None] * parts
    left = iter(range(parts))  # which hands out each number once, to whichever thread asks

    def work() -> None:
        for i in left:
            found[i] = kernel(edges[i], edges[i + 1])

    others = [_pool.submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        for other in others:
            if not other.cancel():  # one that has not begun has nothing left to do
                other.result()
    return found
