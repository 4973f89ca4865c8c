"""A page, a row and maps for each case of a clinical run."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.transforms import Transform
from numpy.typing import NDArray

from monai_calib.clinical.case_model import CaseStatement, ClinicalModel
from monai_calib.datasets.case import case_name
from monai_calib.datasets.layouts.layout import is_picture
from monai_calib.files import atomic_path, write_text

from .case_slices import slice_views
from .page import render_document, require_extra
from .slices import class_colour
from .tables import csv_text

__all__ = ["ClinicalReportd", "case_page", "case_row"]

TABLE = "clinical.csv"


class ClinicalReportd(Transform):
    """Writes what is said of a case: ``CASE.html``, a row of ``clinical.csv``, and a map of each margin and set.

    ``CASE_margin_NAME`` is 2 in the predicted structure, 1 in its margin, 0 elsewhere; ``CASE_set_NAME`` is 2 where no
    other class is possible, 1 where others are too, 0 where the structure is not. Both are uint8 on the grid of the
    image: NIfTI, or PNG for a picture. The table holds the cases of this run, and is whole after each of them.

    Args:
        model: the fitted :class:`~monai_calib.clinical.ClinicalModel`.
        output_dir: folder to write to.
        names: of all channels as files have them; the names of the classes by default.
        keys: the image on the grid of the file, ``(C, *spatial)``.
        statement_key: of :class:`~monai_calib.transforms.Clinicald`.

    Raises: ``ModuleNotFoundError`` without the extra ``report``.
    """

    def __init__(
        self,
        model: ClinicalModel,
        output_dir: str | Path,
        names: Sequence[str] | None = None,
        keys: str = "image",
        statement_key: str = "statement",
    ) -> None:
        require_extra()
        self.model, self.output_dir = model, Path(output_dir)
        self.names = list(names or model.class_names)
        self.key, self.statement_key = keys, statement_key
        self._rows: dict[str, dict[str, str]] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image: MetaTensor = data[self.key]
        said: CaseStatement = data[self.statement_key]
        file = str(image.meta.get("filename_or_obj", ""))
        name = case_name(data.get("case"), file)
        affine = image.affine.numpy(force=True)
        picture = is_picture(Path(file))
        for postfix, values in self._maps(said):
            _write_map(self.output_dir / f"{name}_{postfix}", values, affine, picture)
        page = case_page(name, said, self.model, image[0].numpy(force=True), affine, placed=not picture)
        write_text(self.output_dir / f"{name}.html", page)
        self._rows[name] = case_row(name, said, self.model)
        rows = list(self._rows.values())
        write_text(self.output_dir / TABLE, csv_text(list(rows[0]), [list(row.values()) for row in rows]))
        return dict(data)

    def _maps(self, said: CaseStatement) -> list[tuple[str, NDArray[np.uint8]]]:
        label = said.label.numpy(force=True)
        margins, sets = said.margins.numpy(force=True), said.sets.numpy(force=True)
        alone = sets.sum(0) == 1
        maps = []
        for k, name in enumerate(self.names[1:], 1):
            grown, possible = margins[k - 1].astype(np.uint8), sets[k].astype(np.uint8)
            maps.append((f"margin_{name}", grown + (label == k).astype(np.uint8)))
            maps.append((f"set_{name}", possible + (sets[k] & alone).astype(np.uint8)))
        return maps


def case_row(name: str, said: CaseStatement, model: ClinicalModel) -> dict[str, str]:
    """One line of the table, by column; empty where nothing can be promised or there is nothing to measure."""
    unit, factor = _volume_unit(model)
    row = {"case": name, "flag": said.flag, "reasons": "; ".join(said.reasons)}
    row["image_p_value"] = "" if said.image is None else f"{said.image.p_value:.4f}"
    for one in said.structures:
        volume = {"": one.volume.ml, "low_": one.volume.low_ml, "high_": one.volume.high_ml}
        possible = math.isfinite(one.volume.high_ml)
        for which, value in volume.items():
            row[f"{one.name} {which}{unit}"] = f"{factor * value:.4f}" if possible or not which else ""
        row[f"{one.name} label_{unit}"] = f"{factor * one.volume.label_ml:.4f}"
        row[f"{one.name} expected_dice"] = "" if math.isnan(one.dice) else f"{one.dice:.4f}"
        row[f"{one.name} margin_{model.unit}"] = f"{one.margin.mm:.4g}" if one.margin.possible else ""
    return row


def case_page(
    name: str,
    said: CaseStatement,
    model: ClinicalModel,
    image: NDArray[Any],
    affine: NDArray[Any],
    placed: bool = True,
) -> str:
    """The page of a case, one file with all in it.

    Args:
        name: of the case.
        said: what is said of it.
        model: what said it.
        image: ``(x, y, z)`` on the grid of the statement.
        affine: voxel to mm.
        placed: whether the affine says where in the patient the image is.
    """
    unit, factor = _volume_unit(model)
    digits = 2 if model.unit == "mm" else 0
    rows = []
    for k, one in enumerate(said.structures, 1):
        low, high = factor * one.volume.low_ml, factor * one.volume.high_ml
        margin = one.margin.in_words() if model.unit == "mm" else one.margin.in_words().replace(" mm", f" {model.unit}")
        found = one.volume.label_ml > 0
        rows.append(
            {
                "name": one.name,
                "colour": class_colour(k),
                "volume": f"{factor * one.volume.ml:.{digits}f}",
                "interval": f"{low:.{digits}f} … {high:.{digits}f}" if math.isfinite(high) else "none can be promised",
                "label_volume": f"{factor * one.volume.label_ml:.{digits}f}",
                "dice": "–" if math.isnan(one.dice) else f"{one.dice:.2f}",
                "margin": one.margin,
                "margin_words": margin
                if found or not one.margin.possible
                else f"nothing predicted to grow by {margin}",
            }
        )
    open_classes = said.sets.numpy(force=True).sum(0) > 1
    settled = not open_classes.all()
    views = slice_views(
        image,
        said.label.numpy(force=True),
        said.margins.numpy(force=True),
        open_classes & settled,
        affine,
        [one.name for one in said.structures],
        placed,
    )
    return render_document(
        "case.html.j2",
        case=name,
        statement=said,
        told=model,
        rows=rows,
        views=views,
        volume_unit=unit,
        length_unit="millimetres" if model.unit == "mm" else "pixels",
        level=f"{100 * model.level:g} %",
        any_settled=settled,
        any_margin=any(edge.what.endswith("margin") for view in views for edge in view.outlines),
        image_words=_image_words(said),
    )


def _image_words(said: CaseStatement) -> str:
    if said.image is None:
        return ""
    share = 100 * said.image.p_value
    return f"{share:.3g} % of them, or fewer, are as unusual as this one"


def _volume_unit(model: ClinicalModel) -> tuple[str, float]:
    """Unit of volumes, and how many of it a millilitre is: pixels of no known size count as 1 mm."""
    return ("ml", 1.0) if model.unit == "mm" else (model.unit, 1000.0)


def _write_map(path: Path, values: NDArray[np.uint8], affine: NDArray[Any], picture: bool) -> None:
    if picture:
        from PIL import Image

        with atomic_path(path.with_name(f"{path.name}.png")) as partial:
            Image.fromarray(np.ascontiguousarray(values.reshape(values.shape[:2]).T)).save(partial)
        return
    volume = nib.Nifti1Image(values, affine)
    volume.header.set_xyzt_units("mm")
    with atomic_path(path.with_name(f"{path.name}.nii.gz")) as partial:
        nib.save(volume, partial)
