"""Write the phantom as a data set: images, labels, posteriors, and the lists of the splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ...files import atomic_folder, write_json
from ..datalist import write_datalist
from .anatomy import draw_anatomy
from .imaging import take_image
from .labels import POSTERIOR_UNIT, draw_labels, quantise_posterior

__all__ = ["CLASS_NAMES", "PhantomCase", "phantom_case", "write_phantom"]

CLASS_NAMES = ("background", "anterior", "posterior")
_DESCRIPTION = (
    "SYNTHETIC data, no patient: bent two-part shapes whose labels are drawn from the posterior in posteriorsTr"
)
_HEADER = b"SYNTHETIC monai_calib phantom, no patient"


@dataclass(frozen=True)
class PhantomCase:
    """One synthetic subject: ``image`` int16 and ``label`` uint8 of ``(X, Y, Z)``, ``posterior`` uint16 of
    ``(X, Y, Z, 3)`` in units of 2^-15, ``spacing`` in mm."""

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    posterior: NDArray[np.uint16]
    spacing: tuple[float, ...]


def phantom_case(
    index: int,
    seed: int = 0,
    shape: Sequence[int] = (36, 50, 36),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    noise: float = 0.08,
    ambiguity: float = 0.2,
) -> PhantomCase:
    """Draw case ``index`` of the population ``seed``: a state, then independently an image and a label of it.

    The state (where the shape lies and how soft its boundary is) fixes the posterior ``q``. The image and the label
    are drawn from the state by separate streams of randomness, so that

    ``p(label | state, image) = p(label | state) = q``:

    nothing in the image, its noise included, tells more about the drawn label than ``q`` does. ``q`` is what the
    best conceivable predictor, one that recovers the state, would answer; a predictor that sees only the image can
    at best answer ``E[q | image]``. Both are perfectly calibrated. See
    :func:`monai_calib.datasets.phantom.true_calibration_error`.

    A case depends on ``seed``, ``index`` and the arguments only, not on how many cases are drawn.

    Args:
        index: number of the case, from 0.
        seed: which population.
        shape: voxels along the three axes, at least 8 each.
        spacing: voxel size in mm; the field of view scales the anatomy.
        noise: see :func:`monai_calib.datasets.phantom.imaging.take_image`.
        ambiguity: see :func:`monai_calib.datasets.phantom.anatomy.draw_anatomy`.

    Raises: ``ValueError`` on sizes that make no volume.

    Example:
        >>> case = phantom_case(0, shape=(18, 25, 18), spacing=(2, 2, 2))
        >>> case.image.shape, case.posterior.shape, sorted(set(case.label.ravel().tolist()))
        ((18, 25, 18), (18, 25, 18, 3), [0, 1, 2])
    """
    if len(shape) != 3 or min(shape) < 8:
        raise ValueError(f"Expected a shape of three sizes of at least 8 voxels, got {tuple(shape)}.")
    if len(spacing) != 3 or not all(0 < step < np.inf for step in spacing):
        raise ValueError(f"Expected a spacing of three positive sizes in mm, got {tuple(spacing)}.")
    if noise < 0 or ambiguity <= 0:
        raise ValueError(f"Expected noise >= 0 and ambiguity > 0, got {noise} and {ambiguity}.")
    streams = np.random.SeedSequence([seed, index]).spawn(3)
    for_anatomy, for_image, for_label = (np.random.default_rng(stream) for stream in streams)
    anatomy = draw_anatomy(for_anatomy, shape, spacing, ambiguity)
    posterior = quantise_posterior(anatomy.posterior)
    return PhantomCase(
        image=take_image(for_image, anatomy, spacing, noise),
        label=draw_labels(for_label, posterior, spacing),
        posterior=posterior,
        spacing=tuple(float(step) for step in spacing),
    )


def _save(array: NDArray[Any], spacing: Sequence[float], path: Path, unit: float | None = None) -> str:
    image = nib.Nifti1Image(array, np.diag([*spacing, 1.0]))
    image.header["descrip"] = _HEADER
    image.header.set_xyzt_units("mm")
    if unit is not None:
        image.header.set_slope_inter(unit, 0.0)
    nib.save(image, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _split(cases: int) -> dict[str, range]:
    """About 60 / 10 / 30 %; the cases are independent, so their order serves as well as any."""
    test, validation = max(1, round(0.3 * cases)), max(1, round(0.1 * cases))
    training = cases - validation - test
    return {
        "training": range(training),
        "validation": range(training, training + validation),
        "test": range(training + validation, cases),
    }


def write_phantom(
    output: str | Path,
    cases: int = 40,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Path:
    """Write a synthetic data set in the layout of the Medical Segmentation Decathlon, and return its datalist.

    ``imagesTr/`` int16, ``labelsTr/`` uint8, ``posteriorsTr/`` 4D ``(X, Y, Z, class)`` as uint16 with the scale
    factor 2^-15 (probabilities that add up to exactly 1), ``dataset.json``, and ``datalist.json`` with the lists
    ``training``, ``validation`` and ``test``. The folder appears only when it is complete.

    Args:
        output: a folder that does not exist yet, or is empty.
        cases: number of cases, at least 3.
        seed: which population; recorded in datalist.json.
        progress: called with (cases written, cases) after each case.
        options: shape, spacing, noise, ambiguity of :func:`phantom_case`.

    Raises: ``FileExistsError`` if the folder holds anything; ``ValueError`` on impossible sizes.

    Example:
        >>> import json, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> path = write_phantom(folder, cases=3, shape=(12, 16, 12), spacing=(3, 3, 3))
        >>> sorted(json.loads(path.read_text())["test"][0])
        ['case', 'image', 'label', 'posterior', 'sha256', 'subject']
    """
    output = Path(output).absolute()
    if cases < 3:
        raise ValueError(f"Expected at least 3 cases, one for each of training, validation and test, got {cases}.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} is not an empty folder: name a new one, or delete it first.")
    with atomic_folder(output) as partial:
        entries = []
        for folder in ("imagesTr", "labelsTr", "posteriorsTr"):
            (partial / folder).mkdir()
        for index in range(cases):
            case = phantom_case(index, seed, **options)
            name = f"synthetic_{index + 1:03d}"
            files = {kind: f"{kind}sTr/{name}.nii.gz" for kind in ("image", "label", "posterior")}
            sums = {
                "image": _save(case.image, case.spacing, partial / files["image"]),
                "label": _save(case.label, case.spacing, partial / files["label"]),
                "posterior": _save(case.posterior, case.spacing, partial / files["posterior"], POSTERIOR_UNIT),
            }
            entries.append({**files, "case": name, "subject": str(index + 1), "sha256": sums})
            if progress is not None:
                progress(index + 1, cases)
        about = {
            "name": "SyntheticPhantom",
            "description": _DESCRIPTION,
            "licence": "Apache-2.0",
            "modality": {"0": "synthetic MRI"},
            "labels": {str(value): name for value, name in enumerate(CLASS_NAMES)},
            "seed": seed,
            "options": {
                key: list(value) if isinstance(value, (tuple, list)) else value for key, value in options.items()
            },
        }
        pairs = [{"image": f"./{entry['image']}", "label": f"./{entry['label']}"} for entry in entries]
        decathlon = {"tensorImageSize": "3D", "numTraining": cases, "numTest": 0, "training": pairs, "test": []}
        write_json(partial / "dataset.json", {**about, **decathlon})
        lists = {split: [entries[i] for i in indices] for split, indices in _split(cases).items()}
        write_datalist(partial / "datalist.json", {**about, **lists})
    return output / "datalist.json"
