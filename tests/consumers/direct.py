"""The bundle run directly in a consumer's environment, and label maps compared voxel by voxel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

__all__ = ["few_cases", "run_bundle", "volumes_apart", "voxels_apart"]


def run_bundle(bundle: Path, configs: Sequence[str], **settings: object) -> None:
    """``python -m monai.bundle run`` with this environment's MONAI."""
    files = str([str(bundle / "configs" / f"{name}.json") for name in configs])
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    call = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, "--bundle_root", str(bundle)]
    subprocess.run([*call, *options], check=True, stdout=sys.stderr)


def few_cases(data: Path, target: Path, training: int, validation: int) -> Path:
    """The data folder ``target``: the first cases of each split of ``data``, whose volumes it links to."""
    target.mkdir(parents=True)
    listed = json.loads((data / "datalist.json").read_text())
    listed |= {"training": listed["training"][:training], "validation": listed["validation"][:validation]}
    (target / "datalist.json").write_text(json.dumps(listed))
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).symlink_to(data / folder)
    return target


def voxels_apart(one: Path, other: Path) -> tuple[int, int]:
    """How many voxels differ of how many, ``(-1, n)`` where the grids do; places that differ are an error."""
    first, second = nib.load(one), nib.load(other)
    a, b = np.asanyarray(first.dataobj), np.asanyarray(second.dataobj)
    if a.shape != b.shape or not np.allclose(first.affine, second.affine, atol=1e-4):
        return -1, a.size
    return int((a != b).sum()), a.size


def volumes_apart(folder: Path, direct: Path) -> tuple[bool, str]:
    """Whether the label maps of two folders are equal in every voxel, and that in numbers.

    A structure must be found in them: of a network that has learned nothing, equal maps would say little.
    """
    pairs = [(path, direct / path.name) for path in sorted(folder.glob("*_seg.nii.gz"))]
    counts = [voxels_apart(one, other) for one, other in pairs]
    apart, voxels = sum(count for count, _ in counts), sum(size for _, size in counts)
    labels = [np.asanyarray(nib.load(other).dataobj).ravel().astype(int) for _, other in pairs]
    sizes = np.bincount(np.concatenate(labels), minlength=2)
    equal = all(count == 0 for count, _ in counts) and bool(sizes[1:].any())
    text = f"{apart} of {voxels} voxels differ in {len(pairs)} volumes; labels in {', '.join(map(str, sizes))} voxels"
    return equal, text
