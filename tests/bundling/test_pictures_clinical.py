"""clinical.json on pictures: the fit on what prepare made of them, new ones as PNG, maps as PNG of their size."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bundle_runs import run_bundle, small_networks
from PIL import Image
from test_pictures_at_inference import HEIGHT, KINDS, WIDTH, prepared


@pytest.mark.parametrize(("unit", "of"), [("px", "px"), ("mm", "ml")])
def test_pictures_get_rows_pages_and_maps_of_their_size(unit: str, of: str, tmp_path: Path) -> None:
    kinds = {name: KINDS[name] for name in ("grey.png", "colours.png", "photograph.jpg", "scan.tif")}
    images, data, bundle = prepared(tmp_path, kinds, unit)
    settings = {**small_networks(bundle), "run_dir": str(bundle)}
    run_bundle(bundle, "clinical_fit", dataset_dir=str(data), split="training", level=0.4, **settings)
    run_bundle(bundle, "clinical", dataset_dir=str(images), **settings)
    with (bundle / "predictions" / "clinical.csv").open(encoding="utf-8") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert set(rows) == {Path(name).stem for name in kinds}
    for name, row in rows.items():
        assert (bundle / "predictions" / f"{name}.html").is_file()
        label = np.asarray(Image.open(bundle / "predictions" / f"{name}_seg.png"))
        assert label.shape == (HEIGHT, WIDTH)
        for k, structure in enumerate(("nerve", "blood vessel"), 1):
            size = int((label == k).sum())
            pixel = 1 if of == "px" else np.prod(nib.load(next(data.rglob("*.nii.gz"))).header.get_zooms()) / 1000
            assert float(row[f"{structure} label_{of}"]) == pytest.approx(size * pixel, abs=1e-4)
            written = bundle / "predictions" / f"{name}_margin_{k}_{structure.replace(' ', '_')}.png"
            margin = np.asarray(Image.open(written))
            assert ((margin == 2) == (label == k)).all()
            possible = np.asarray(Image.open(written.with_name(written.name.replace("_margin_", "_set_"))))
            assert (possible[label == k] >= 1).all()
