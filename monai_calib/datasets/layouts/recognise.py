"""Tell which layout a source has, and read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...files import read_json
from ..dataset import SourceError
from .folders import read_folders, read_raters
from .layout import Found
from .msd import read_decathlon
from .nnunet import read_nnunet
from .table import read_table

__all__ = ["recognise"]

LAYOUTS = """\
  a Medical Segmentation Decathlon task: dataset.json with "training", imagesTr/, labelsTr/
  an nnU-Net v2 raw data set: dataset.json with "channel_names", imagesTr/, labelsTr/
  a folder with images/ and masks/ (or labels/), or two folders, matched by name
  a table, CSV or JSON, with the columns image and label"""


def recognise(source: Path, labels: str | Path | None = None, raters: str | None = None) -> Found:
    """Read a source in whichever layout it has.

    Args:
        source: a folder, or a table.
        labels: a second folder, or a pattern such as ``masks/{case}_seg.png``.
        raters: a pattern with ``{rater}`` and ``{case}`` in place of a folder of labels.

    Raises: :class:`SourceError` where nothing is recognised; what is wrong with single cases is in ``problems``.
    """
    pattern = raters if raters is not None else str(labels) if labels is not None and "{case}" in str(labels) else None
    if raters is not None and labels is not None:
        raise SourceError(f"--raters {raters}: given beside a place of labels, {labels}. Leave one of them out.")
    if source.is_file() and source.suffix.lower() in (".csv", ".json"):
        if labels is not None or raters is not None:
            raise SourceError(f"{source}: a table names the labels itself. Leave {labels or '--raters'} out.")
        return read_table(source)
    if source.is_file():
        raise SourceError(f"{source}: expected a folder or a table (CSV, JSON), got a file. Unpack an archive first.")
    if not source.is_dir():
        raise SourceError(f"{source}: no such folder. Expected one of\n{LAYOUTS}")
    if pattern is not None:
        return read_raters(source, pattern, needs_rater=raters is not None)
    if labels is not None:
        if not Path(labels).is_dir():
            raise SourceError(
                f"{labels}: no such folder. Name the folder of the labels, or a pattern as 'masks/{{case}}_seg.png'."
            )
        return read_folders(source, Path(labels))
    described = _described(source)
    if isinstance(described, dict) and "channel_names" in described:
        return read_nnunet(source, described)
    if isinstance(described, dict) and "training" in described and (source / "imagesTr").is_dir():
        return read_decathlon(source, described)
    if described is not None:
        return read_table(source / "dataset.json") if _is_list_of_cases(described) else _refuse(source)
    places = [source / name for name in ("images", "imagesTr") if (source / name).is_dir()]
    beside = [source / name for name in ("masks", "labels", "labelsTr") if (source / name).is_dir()]
    if len(places) == 1 and len(beside) == 1:
        found = read_folders(places[0], beside[0])
        found.sources = (source,)
        return found
    if len(places) == 1 and len(beside) > 1:
        listed = " and ".join(map(str, beside))
        raise SourceError(f"{source}: labels in {listed}. Say which: prepare {places[0]} {beside[0]} OUT.")
    if (source / "datalist.json").is_file():
        return read_table(source / "datalist.json")
    return _refuse(source)


def _described(source: Path) -> Any:
    path = source / "dataset.json"
    return read_json(path, error=SourceError, advice="Mend the file.") if path.is_file() else None


def _is_list_of_cases(described: Any) -> bool:
    return isinstance(described, dict) and isinstance(described.get("training"), list)


def _refuse(source: Path) -> Found:
    there = sorted(path.name for path in source.iterdir() if not path.name.startswith("."))
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    advice = ""
    if any(name.lower().endswith(".dcm") for name in there):
        advice = "\nDICOM series are read by python -m monai_calib dicom to-nifti."
    elif there:
        advice = (
            "\nIf the labels lie elsewhere, name them: prepare IMAGES LABELS OUT; if beside the images, by a pattern: "
            "prepare SOURCE '{case}_seg.nii.gz' OUT."
        )
    raise SourceError(
        f"{source}: no layout recognised. Expected one of\n{LAYOUTS}\nfound: {shown or 'nothing'}{advice}"
    )
