"""The voxels that the network sees, and the patch that is cut from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .choices import Plan
from .fingerprint import Fingerprint

__all__ = ["plan_grid"]

MOST_2D, MOST_3D = 2**16, 2**21
"""Pixels of 256 x 256, voxels of 128 x 128 x 128: a patch that trains in 16 GB with two to a step."""
FIELD = {2: 4, 3: 8}
"""Patches in an image, at most: half of it along each axis, or it is a detail without surroundings."""
STEP = {2: 16, 3: 8}
LEAST = {2: 32, 3: 16}
LONGEST = 32
"""Least length of the longest axis: four halvings leave more than one voxel, which normalisation needs."""


def plan_grid(
    plan: Plan, seen: Fingerprint, spacing: Sequence[float] | None, patch: Sequence[int] | None
) -> NDArray[np.float64]:
    """Choose spacing and patch; returns the median shape on the network's grid, three axes.

    Raises: ``ValueError`` naming the option where a number is not one an axis, or not above 0.
    """
    _check("--spacing", spacing, plan.dims, seen.pictures or plan.dims == 2)
    _check("--patch_size", patch, plan.dims, False)
    sizes, reason = (_given(spacing, seen), "asked for") if spacing else _spacing(plan.dims, seen)
    shape = seen.shape * seen.spacing / sizes
    needed = (np.abs(sizes / seen.spacing - 1) > 0.01) | seen.spacings_differ
    slices_stay = plan.dims == 2 or (seen.anisotropic and abs(sizes[2] / seen.spacing[2] - 1) <= 0.01)
    if slices_stay:
        resample = "slices" if needed[:2].any() else "none"
    else:
        resample = "volumes" if needed.any() else "none"
    if slices_stay:
        shape[2], sizes[2] = seen.shape[2], seen.spacing[2]
    listed = [float(f"{size:.4g}") for size in sizes]
    how = {"none": "kept", "slices": "within the slice", "volumes": "along all axes"}[resample]
    plan.add("spacing", listed, f"{seen.unit}, {how}; {reason}")
    if patch:
        chosen = list(patch)
        plan.add("patch_size", chosen, "asked for")
    else:
        chosen = _patch(plan.dims, shape)
        whole = all(p >= n for p, n in zip(chosen, shape, strict=False))
        median = " x ".join(f"{n:.0f}" for n in shape[: plan.dims])
        most = f"{MOST_2D} pixels" if plan.dims == 2 else f"{MOST_3D} voxels"
        plan.add(
            "patch_size",
            chosen,
            f"median image of {median}, "
            + ("which it holds whole" if whole else f"of which at most {most} fit into a training step")
            + f"; a multiple of {STEP[plan.dims]} along each axis",
        )
    plan.entry |= {"spacing": listed, "resample": resample, "patch_size": chosen, "orient": seen.orient}
    return shape


def _spacing(dims: int, seen: Fingerprint) -> tuple[NDArray[np.float64], str]:
    sizes, shape = seen.spacing.copy(), seen.shape
    reason = "voxels differ: their median" if seen.spacings_differ.any() else "of all training images"
    if dims == 2:
        wanted = math.prod(shape[:2]) / (FIELD[2] * MOST_2D)
        factor = 2 ** math.ceil(math.log2(max(wanted, 1)) / 2 - 0.02) if seen.unit == "px" else math.sqrt(wanted)
        if factor > 1:
            sizes[:2] *= factor
            reason = f"a median slice of {shape[0]:.0f} x {shape[1]:.0f} is made {factor:.3g} times as coarse, so that "
            reason += f"{FIELD[2]} patches cover it"
        return sizes, reason
    voxels = math.prod(shape)
    axes = 2 if seen.anisotropic else 3
    coarse = sizes.copy()
    while math.prod(shape * sizes / coarse) > FIELD[3] * MOST_3D:
        finest = coarse[:axes] <= coarse[:axes].min() * 1.001
        coarse[:axes][finest] *= 1.02
    if (coarse > sizes).any():
        reason = f"{voxels / 1e6:.0f} million voxels in the median volume are made coarser, the finest axis first, so "
        reason += f"that {FIELD[3]} patches cover it; small structures may want a finer --spacing"
    return coarse, reason


def _patch(dims: int, shape: NDArray[np.float64]) -> list[int]:
    step, most = STEP[dims], MOST_2D if dims == 2 else MOST_3D
    patch = [max(LEAST[dims], math.ceil(round(n, 3) / step) * step) for n in shape[:dims]]
    if max(patch) < LONGEST:
        patch[int(np.argmax(patch))] = LONGEST
    while math.prod(patch) > most:
        largest = int(np.argmax(patch))
        patch[largest] -= step
    return patch


def _given(spacing: Sequence[float], seen: Fingerprint) -> NDArray[np.float64]:
    return np.array([*spacing, *seen.spacing[len(spacing) :]], dtype=np.float64)


def _check(option: str, numbers: Sequence[float] | None, dims: int, two_will_do: bool) -> None:
    if numbers is None:
        return
    lengths = {2, 3} if two_will_do else {dims}
    if len(numbers) not in lengths or not all(0 < number < math.inf for number in numbers):
        raise ValueError(
            f"{option}: expected {' or '.join(map(str, sorted(lengths)))} numbers above 0, one an axis, got "
            f"{' '.join(f'{number:g}' for number in numbers)}. Correct it."
        )
