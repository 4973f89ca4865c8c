"""A series in, and what a clinician is told of it out."""

from __future__ import annotations

import csv

import numpy as np
import torch
from monai.bundle import ConfigParser
from pydicom import dcmread
from synthetic_series import identifiers_in, ras_affine, rotation, write_series
from test_commands import BUNDLE

from monai_calib.__main__ import main
from monai_calib.clinical import ClinicalModel, write_clinical_model
from monai_calib.dicom import read_segmentation, read_series

PLACE = ras_affine(rotation(2, 10), (1.0, 1.0, 2.0), (3.0, 4.0, 5.0))


def test_a_series_gets_margins_sets_page_and_row(tmp_path, capfd):
    values = np.random.default_rng(3).integers(0, 900, (30, 36, 24)).astype(np.int16)
    write_series(tmp_path / "series", values, PLACE)
    torch.manual_seed(3)
    parser = ConfigParser({**ConfigParser.load_config_file(BUNDLE / "configs" / "inference.json")})
    parser["bundle_root"] = str(BUNDLE)
    models = tmp_path / "run" / "models"
    models.mkdir(parents=True)
    torch.save(parser.get_parsed_content("network_def").state_dict(), models / "model.pt")
    model = ClinicalModel(["background", "anterior", "posterior"], level=0.5, share=0.8)
    for subject in range(4):
        label = torch.zeros(12, 12, 12, dtype=torch.long)
        label[2:8, 2:6] = 1
        label[2:8, 6:10] = 2
        p = (2 * torch.nn.functional.one_hot(label.roll(subject % 3, 1), 3).movedim(-1, 0).float()).softmax(0)
        model.update(p, label, (1.0, 1.0, 1.0), str(subject))
    write_clinical_model(model, models / "clinical.json", models / "model.pt")
    output = tmp_path / "out"
    run = ["--run_dir", str(tmp_path / "run"), "--set", "device=cpu", "--clinical"]
    assert main(["dicom", "segment", str(tmp_path / "series"), str(BUNDLE), str(output), *run]) == 0
    told = {path.name for path in output.glob("[!.]*")}
    assert told == {
        "segmentation.dcm", "probabilities.dcm", "confidence.dcm", "margins.dcm", "sets.dcm", "clinical.html",
        "clinical.csv",
    }  # fmt: skip
    series = read_series(tmp_path / "series")
    labels, margins, sets = (
        read_segmentation(output / f"{name}.dcm", series) for name in ("segmentation", "margins", "sets")
    )
    assert labels.shape == margins.shape == sets.shape == (2, *series.shape)
    assert (margins >= labels).all()
    assert (sets >= labels).all()
    named = [segment.SegmentLabel for segment in dcmread(output / "margins.dcm").SegmentSequence]
    assert named == ["anterior with its margin", "posterior with its margin"]
    with (output / "clinical.csv").open() as file:
        (row,) = csv.DictReader(file)
    millilitres = labels.sum((1, 2, 3)) * abs(np.linalg.det(series.affine[:3, :3])) / 1000
    assert [float(row[f"{name} label_ml"]) for name in ("anterior", "posterior")] == list(millilitres.round(4))
    said = capfd.readouterr()
    page = (output / "clinical.html").read_text()
    assert not identifiers_in(said.out + said.err + page + str(row))


def test_a_bundle_that_was_not_fitted_is_told_in_one_line(tmp_path, capsys):
    values = np.random.default_rng(3).integers(0, 900, (30, 36, 24)).astype(np.int16)
    write_series(tmp_path / "series", values, PLACE)
    run = ["--run_dir", str(tmp_path / "run"), "--clinical"]
    assert main(["dicom", "segment", str(tmp_path / "series"), str(BUNDLE), str(tmp_path / "out"), *run]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("monai_calib:")]
    assert len(said) == 1
    assert "clinical.json: no such file. Write it with:" in said[0]
