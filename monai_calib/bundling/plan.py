"""The plan of a bundle for a data set: every number with the reason for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.words import counted

from .choices import Choice, Plan
from .crops import share_of_crops
from .fingerprint import Fingerprint
from .grid import plan_grid
from .intensity import plan_intensity

__all__ = ["GIVEN", "make_plan"]

GIVEN = ("dimensions", "spacing", "patch_size", "batch_size", "epochs")
"""Numbers of a plan that a user may give; the others follow."""
LEAST_STEPS = 50
ALL_STEPS = 3000
FEW_SUBJECTS = 200
MOST_IN_MEMORY = 8e9
SMALL, MIDDLE = 2**17, 2**19
RARE = 0.5


def make_plan(seen: Fingerprint, given: Mapping[str, Any] | None = None) -> Plan:
    """Plan grid, patch, network, crops, intensities and length of training from a fingerprint.

    Args:
        seen: the fingerprint.
        given: numbers that the user asks for, out of :data:`GIVEN`.

    Raises: ``ValueError`` naming the option, for numbers that do not fit the data.
    """
    asked = {name: value for name, value in (given or {}).items() if value is not None}
    plan = Plan(*_dimensions(seen, asked.get("dimensions")))
    shape = plan_grid(plan, seen, asked.get("spacing"), asked.get("patch_size"))
    patch = plan.choices["patch_size"].value
    filters, why = _filters(plan.dims, patch, seen)
    plan.add("filters", filters, why)
    samples = _batch(plan, seen, asked.get("batch_size"))
    balanced, reason = _crops(plan.dims, patch, shape, seen)
    plan.add("crops", "balanced" if balanced else "random", reason)
    _length(plan, seen, shape, samples, asked.get("epochs"))
    plan_intensity(plan, seen)
    few = seen.subjects["training"] < FEW_SUBJECTS
    plan.add(
        "augmentation",
        few,
        f"{counted(seen.subjects['training'], 'training subject')}, "
        f"{'fewer than' if few else 'at least'} {FEW_SUBJECTS}: "
        + ("rotation, scaling, noise and contrast keep the network from learning them by heart" if few else "enough"),
    )
    _memory(plan, seen, shape)
    plan.entry |= {
        "channels": [min(filters * 2**k, 512 if plan.dims == 2 else 320) for k in range(5)],
        "crops": plan.choices["crops"].value,
        "augmentation": few,
    }
    return plan


def _dimensions(seen: Fingerprint, asked: int | None) -> tuple[int, dict[str, Choice]]:
    if seen.pictures:
        if asked == 3:
            raise ValueError("--dimensions 3: expected volumes, got images of one slice. Leave --dimensions out.")
        return 2, {"dimensions": Choice("dimensions", 2, "images of one slice")}
    slices = round(float(seen.shape[2]))
    if asked:
        return asked, {"dimensions": Choice("dimensions", asked, "asked for")}
    dims = 3 if slices >= 5 else 2
    far = "far apart" if seen.anisotropic else "beside each other"
    reason = f"{counted(slices, 'slice')}, {far}" + (
        ": too few for 3D" if dims == 2 else ": 3D kernels see their neighbours"
    )
    return dims, {"dimensions": Choice("dimensions", dims, reason)}


def _filters(dims: int, patch: Sequence[int], seen: Fingerprint) -> tuple[int, str]:
    """Filters of the first level; each further one of five has twice as many, up to 320 in 3D."""
    if dims == 2:
        few = seen.cases["training"] < 1000
        return (16, "fewer than 1000 training images") if few else (32, "the papers' number, in 2D")
    voxels = math.prod(patch)
    filters = 8 if voxels <= SMALL else 16 if voxels <= SMALL * 4 else 32
    return filters, f"in the first level, for a patch of {voxels} voxels (8 up to {SMALL}, 16 up to {MIDDLE}, else 32)"


def _batch(plan: Plan, seen: Fingerprint, asked: int | None) -> int:
    """Batch size; returns how many crops are cut from an image read."""
    images = seen.cases["training"]
    samples = 4 if plan.dims == 2 and not seen.pictures else 1
    usual = 2 if plan.dims == 3 else 8 if seen.pictures else 4
    why = {2: "two patches a step", 8: "8 pictures a step", 4: "4 volumes a step, 4 slices of each"}[usual]
    size = asked or min(usual, images)
    plan.add("batch_size", size, "asked for" if asked else f"{why}; {counted(images, 'training case')}")
    plan.entry |= {"batch_size": size, "samples_per_volume": samples}
    return samples


def _crops(dims: int, patch: Sequence[int], shape: NDArray[np.float64], seen: Fingerprint) -> tuple[bool, str]:
    window = list(patch) if dims == 3 else [*patch, 1]
    hits = share_of_crops(seen.boxes, window, shape / seen.shape)
    if not hits:
        return False, "no training label read bears a class"
    rarest = min(hits, key=lambda k: hits[k])
    share = f"a random crop holds some of {seen.labels[rarest]}, the class most missed, {100 * hits[rarest]:.0f} %"
    if hits[rarest] < RARE:
        return True, f"{share} of the time: half of the crops are centred on background, half on the classes"
    return False, f"{share} of the time: the network sees the classes as often as they are"


def _length(plan: Plan, seen: Fingerprint, shape: NDArray[np.float64], samples: int, asked: int | None) -> None:
    images, batch = seen.cases["training"], plan.choices["batch_size"].value
    visits = math.ceil(LEAST_STEPS * batch / images)
    reason = f"{counted(images, 'training case')}, so that an epoch has at least {LEAST_STEPS} steps"
    slices = math.ceil(shape[2] / samples) if plan.dims == 2 and not seen.pictures else 1
    if slices > visits:
        visits, reason = slices, f"an epoch sees about each of some {shape[2]:.0f} slices"
    plan.add("visits_per_epoch", visits, reason)
    steps = math.ceil(images * visits / batch)
    epochs = asked or min(100, max(10, round(ALL_STEPS / steps)))
    plan.add(
        "epochs",
        epochs,
        "asked for"
        if asked
        else f"{steps} steps each, some {ALL_STEPS} in all (10 to 100 epochs); the learning rate "
        "falls along a cosine, whatever --epochs says",
    )
    small = plan.choices["filters"].value <= 8
    rate = plan.add(
        "learning_rate",
        0.004 if small else 0.001,
        "measured on the hippocampus with as many filters" if small else "of Adam, the papers'",
    )
    plan.entry |= {"visits_per_epoch": visits, "epochs": epochs, "learning_rate": rate}


def _memory(plan: Plan, seen: Fingerprint, shape: NDArray[np.float64]) -> None:
    size = 4.0 * (len(seen.channels) + 1) * math.prod(shape) * (seen.cases["training"] + seen.cases["validation"])
    cache = "memory" if size <= MOST_IN_MEMORY else "disk"
    plan.add("cache", cache, f"prepared training and validation cases need {size / 1e9:.2g} GB; up to 8 stay in memory")
    plan.entry |= {"cache": cache, "num_workers": 0 if cache == "memory" else 4}
