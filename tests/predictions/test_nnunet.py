"""nnU-Net's own export is read as it was meant, and what is written in its place nnU-Net reads alike.

Needs ``MONAI_CALIB_NNUNET``: the Python of an environment with nnunetv2, which is no dependency of this project.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from stored_maps import case_name, write_data

from monai_calib.__main__ import main
from monai_calib.labels import top_class
from monai_calib.predictions.cases import StoredCases
from monai_calib.predictions.classes import Classes
from monai_calib.predictions.settings import Settings

PYTHON = os.environ.get("MONAI_CALIB_NNUNET", "")
PAGE = Path(__file__).parents[2] / "docs" / "nnunet.md"
SCRIPT = Path(__file__).with_name("nnunet_export.py")


def by_nnunet(step: str, folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {f"nnUNet_{name}": str(folder) for name in ("raw", "preprocessed", "results")}
    subprocess.run([PYTHON, str(SCRIPT), step, str(folder)], env=environment, check=True, timeout=600)


def segmentation(path: Path) -> np.ndarray:
    return np.asarray(nib.nifti1.load(path).dataobj)


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="MONAI_CALIB_NNUNET does not name a Python with nnunetv2")
def test_every_reader_crop_and_turn_of_nnunet_there_and_back(tmp_path):
    by_nnunet("export", tmp_path)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 16
    swapped = torch.tensor([0, 2, 1])
    for folder in folders:
        maps = folder / "maps"
        cases = StoredCases(Settings(maps, folder / "labels", Classes.from_dataset([maps])))
        assert len(cases) == 2
        (folder / "written").mkdir()
        for case in cases:
            beside = segmentation(maps / f"{case.name}.nii.gz")
            np.testing.assert_array_equal(top_class(case.probabilities), beside, folder.name)
            truth = case.label.numpy()
            assert np.mean(beside == truth) > 0.98, folder.name
            assert not (beside[truth.shape[0] // 2 :] == 0).all()
            values = case.found.values[swapped]
            cases.maps.write(case.name, folder / "written", case.found, values)
            cases.maps.write_labels(case.name, folder / "written", values.argmax(0).astype(np.uint8))
        cases.maps.finish(folder / "written")
    by_nnunet("ensemble", tmp_path)
    for folder in folders:
        for number in range(2):
            written, again, came = (
                segmentation(folder / name / f"{case_name(number)}.nii.gz") for name in ("written", "again", "maps")
            )
            np.testing.assert_array_equal(written, again, folder.name)
            np.testing.assert_array_equal(written, np.array([0, 2, 1])[came], folder.name)


def test_the_page_corrects_new_maps_as_the_command_does(tmp_path, monkeypatch):
    write_data(tmp_path, 5)
    monkeypatch.chdir(tmp_path)
    Path("fit.txt").write_text("".join(f"{case_name(number)}\n" for number in range(3)))
    named = ["--classes", "background", "organ", "lesion"]
    assert main(["measure", "maps", "labels", "runs/test", "--protocols", "by_region", *named]) == 0
    method = ["--method", "boundary_temperature", "--force", "True"]  # one that knows the order of the axes
    assert main(["correct", "runs/test", "runs/corrected", "--fit_on", "fit.txt", *method]) == 0
    Path("predicted").mkdir()
    Path("maps", f"{case_name(4)}.npz").rename("predicted/new.npz")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), {})
    found, expected = (
        np.load(path)["probabilities"] for path in ("new.npz", f"runs/corrected/maps/{case_name(4)}.npz")
    )
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1e-6)
