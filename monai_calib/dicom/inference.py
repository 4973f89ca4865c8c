"""A bundle's ``inference.json`` run on a series, its outputs written back as DICOM SEG."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_calib.files import write_text
from monai_calib.lock import FolderLock

from .concepts import Structure, read_labels
from .grid import load_on_grid
from .parametric_map import CONFIDENCE_MAP, probability_of, write_parametric_map
from .segmentation import write_confidence, write_labels, write_masks, write_probabilities
from .series import Series
from .volume import write_nifti

__all__ = ["segment_series"]

TABLE = "clinical.csv"
_NAME = "series"  # of the volume the bundle sees, and so of its outputs: nothing of the patient


def segment_series(
    series: Series,
    bundle: str | Path,
    output_dir: str | Path,
    settings: Mapping[str, Any] | None = None,
    omit_empty_frames: bool = False,
    parametric_maps: bool = False,
    clinical: bool = False,
) -> list[Path]:
    """Predict a series with a bundle of this project and write labels, probabilities and confidence as DICOM SEG.

    The bundle sees the series as one NIfTI volume; its own ``inference.json`` runs unchanged but for one more output,
    the class probabilities before the decision.

    Args:
        series: what to segment.
        bundle: the bundle's folder.
        output_dir: folder for ``segmentation.dcm``, ``probabilities.dcm`` and ``confidence.dcm``.
        settings: options of ``inference.json``, as on ``monai.bundle``'s command line: ``run_dir``, ``network_name``,
            ``model_path``, ``device``.
        omit_empty_frames: as for :func:`monai_calib.dicom.write_labels`.
        parametric_maps: also write ``confidence_pm.dcm`` and ``probability_pm_LABEL.dcm`` for every label.
        clinical: run ``clinical.json`` instead and also write ``margins.dcm`` and ``sets.dcm``, structures with their
            margins and voxels that they may take up, as binary SEG, and ``clinical.html`` and ``clinical.csv``.

    Raises:
        FileNotFoundError: the folder is no bundle.
        FolderInUseError: another process writes to the output folder.
        ValueError: its configuration does not know a setting, or fails; its postprocessing is not that of this
            project's bundles, or it wrote no prediction.
    """
    root, target = Path(bundle), Path(output_dir)
    config = root / "configs" / ("clinical.json" if clinical else "inference.json")
    metadata = root / "configs" / "metadata.json"
    for needed in (config, metadata):
        if not needed.is_file():
            raise FileNotFoundError(f"there is no {str(needed)!r}; expected the folder of a bundle")
    structures, algorithm = read_labels(metadata)
    _check_settings(config, settings or {})
    with FolderLock(target, "dicom segment"), tempfile.TemporaryDirectory(dir=target, prefix=".unfinished-") as name:
        folder = Path(name)
        write_nifti(series, folder / "images" / f"{_NAME}.nii.gz")
        places = {
            "bundle_root": str(root),
            "dataset_dir": str(folder / "images"),
            "output_dir": str(folder),
            "postprocessing#transforms": _with_probabilities(config),
        }
        workflow = ConfigWorkflow(
            str(config),
            meta_file=str(metadata),
            logging_file=False,
            workflow_type="inference",
            **{**(settings or {}), **places},
        )
        try:
            workflow.initialize()
            workflow.run()
            workflow.finalize()
        except Exception as error:  # MONAI wraps the cause, often more than once
            raise ValueError(
                f"{root.name}: its {config.name} failed on series {series.uid}: {_cause(error)}"
            ) from error
        labels = load_on_grid(_output(folder, "seg"), series)
        probabilities = load_on_grid(_output(folder, "prob"), series)
        confidence = load_on_grid(_output(folder, "confidence"), series)
        channels = np.moveaxis(probabilities, -1, 0)[sorted(structures)]
        options: dict[str, Any] = {"algorithm": algorithm, "omit_empty_frames": omit_empty_frames}
        written = [
            write_labels(series, labels, structures, target / "segmentation.dcm", **options),
            write_probabilities(
                series, channels, [structures[k] for k in sorted(structures)], target / "probabilities.dcm", **options
            ),
            write_confidence(series, confidence / 100.0, target / "confidence.dcm", **options),
        ]
        if clinical:
            written += _clinical(series, folder, target, structures, options)
        if parametric_maps:
            # of the probabilities themselves: the bundle's own confidence map is rounded to percent
            maps = {"confidence_pm": (probabilities.max(-1), CONFIDENCE_MAP)} | {
                f"probability_pm_{label}": (probabilities[..., label], probability_of(structure))
                for label, structure in structures.items()
            }
            for name, (values, quantity) in maps.items():
                written.append(write_parametric_map(series, values, quantity, target / f"{name}.dcm", algorithm))
        return written


def _clinical(
    series: Series, folder: Path, target: Path, structures: Mapping[int, Structure], options: Mapping[str, Any]
) -> list[Path]:
    """Bring margins, sets, page and table from where the bundle wrote them."""
    written = []
    for kind, words, name in (("margin", "{} with its margin", "margins"), ("set", "possibly {}", "sets")):
        named = {k: replace(one, name=words.format(one.name)) for k, one in sorted(structures.items())}
        maps = [load_on_grid(next(folder.glob(f"{_NAME}_{kind}_{k}_*.nii.gz")), series) for k in named]
        masks = np.stack([values > 0 for values in maps])
        written.append(
            write_masks(series, masks, list(named.values()), target / f"{name}.dcm", name.title(), **options)
        )
    for source, name in ((f"{_NAME}.html", "clinical.html"), (TABLE, TABLE)):
        write_text(target / name, (folder / source).read_text(encoding="utf-8"))
        written.append(target / name)
    return written


def _check_settings(config: Path, settings: Mapping[str, Any]) -> None:
    """MONAI adds a setting that nothing reads, so that a misspelt one would change nothing."""
    known = sorted(key.lstrip("+") for key in ConfigParser.load_config_file(str(config)))
    for name in settings:
        first = name.replace("::", "#").partition("#")[0]
        if first not in known:
            near = difflib.get_close_matches(first, known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"--set {name}: {config} has no {first!r}.{hint} There are {', '.join(known)}.")


def _cause(error: BaseException) -> str:
    """The first of the chained errors, in one line; what an error hides on purpose stays hidden."""
    while (before := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = before
    return " ".join(f"{type(error).__name__}: {error}".split())


def _with_probabilities(config: Path) -> list[dict[str, Any]]:
    """The bundle's postprocessing, which also saves the probabilities just before they become labels."""
    transforms = ConfigParser.load_config_file(str(config))["postprocessing"]["transforms"]
    decision = [k for k, one in enumerate(transforms) if one.get("_target_") == "AsDiscreted"]
    if len(decision) != 1:
        raise ValueError(
            f"{config}: postprocessing has {len(decision)} AsDiscreted; expected one, as in the bundles of this "
            "project. Run the bundle by itself and write its output with to-seg"
        )
    save = {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "prob",
        "output_dtype": "$torch.float32",
        "separate_folder": False,
        "print_log": False,
    }
    return [*transforms[: decision[0]], save, *transforms[decision[0] :]]


def _output(folder: Path, what: str) -> Path:
    path = folder / f"{_NAME}_{what}.nii.gz"
    if not path.is_file():
        raise ValueError(f"the bundle wrote no {path.name}; expected *_seg.nii.gz and *_confidence.nii.gz")
    return path
