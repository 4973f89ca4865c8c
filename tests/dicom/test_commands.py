"""The command line, from a series to its segmentations; and what it says without the extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from other_process import held
from pydicom import dcmread
from synthetic_series import identifiers_in, ras_affine, rotation, write_series

from monai_calib.__main__ import main
from monai_calib.dicom import read_parametric_map, read_segmentation, read_series

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "msd_hippocampus_segmentation_3d"


def test_from_a_series_to_its_segmentations(oblique_folder, oblique, tmp_path, capfd):
    volume = tmp_path / "volume.nii.gz"
    assert main(["dicom", "to-nifti", str(oblique_folder), str(volume)]) == 0
    shares = np.random.default_rng(8).dirichlet([1, 1, 1], oblique.shape).astype(np.float32)
    affine = nib.load(volume).affine
    files = {
        "seg": shares.argmax(-1).astype(np.uint8),
        "prob": shares,
        "confidence": np.rint(100 * shares.max(-1)).astype(np.uint8),
    }
    for name, values in files.items():
        nib.save(nib.Nifti1Image(values, affine), tmp_path / f"{name}.nii.gz")
    wanted = ["--probabilities", str(tmp_path / "prob.nii.gz"), "--confidence", str(tmp_path / "confidence.nii.gz")]
    names = ["--labels", str(BUNDLE / "configs" / "metadata.json")]
    output = tmp_path / "out" / "result.dcm"
    arguments = ["dicom", "to-seg", str(oblique_folder), str(tmp_path / "seg.nii.gz"), str(output)]
    assert main([*arguments, *wanted, *names]) == 0
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "result.dcm",
        "result_confidence.dcm",
        "result_probabilities.dcm",
    ]
    np.testing.assert_array_equal(read_segmentation(output, oblique), np.stack([files["seg"] == k for k in (1, 2)]))
    read = read_segmentation(output.with_name("result_probabilities.dcm"), oblique)
    assert np.abs(read - np.moveaxis(shares, -1, 0)[1:]).max() <= 0.5001 / 255
    read = read_segmentation(output.with_name("result_confidence.dcm"), oblique)[0]
    np.testing.assert_array_equal(np.rint(100 * read), files["confidence"])
    said = capfd.readouterr()
    assert not identifiers_in(said.out + said.err)
    assert not identifiers_in(str(list(tmp_path.rglob("*"))))
    assert not identifiers_in(repr(oblique))
    assert not identifiers_in(nib.load(volume).header.binaryblock.decode("latin1"))


def test_labels_without_names_are_said_to_have_no_code(oblique_folder, oblique, tmp_path, capsys):
    labels = np.zeros(oblique.shape, np.uint8)
    labels[1, 2, 3] = 5
    nib.save(nib.Nifti1Image(labels, oblique.affine), tmp_path / "seg.nii.gz")
    output = tmp_path / "seg.dcm"
    assert main(["dicom", "to-seg", str(oblique_folder), str(tmp_path / "seg.nii.gz"), str(output)]) == 0
    assert "No code is known for 'label 5'" in capsys.readouterr().out
    assert dcmread(output).SegmentSequence[0].SegmentLabel == "label 5"


def test_another_grid_is_refused_or_resampled_on_demand(oblique_folder, oblique, tmp_path, capsys):
    moved = oblique.affine.copy()
    moved[:3, 3] += moved[:3, 0]  # by one column
    labels = np.zeros(oblique.shape, np.uint8)
    labels[2, 3, 4] = 1
    nib.save(nib.Nifti1Image(labels, moved), tmp_path / "seg.nii.gz")
    output = tmp_path / "seg.dcm"
    arguments = ["dicom", "to-seg", str(oblique_folder), str(tmp_path / "seg.nii.gz"), str(output)]
    assert main(arguments) == 1
    assert "expected the series' own grid" in capsys.readouterr().err
    assert not output.exists()
    assert main([*arguments, "--resample"]) == 0
    assert [tuple(voxel) for voxel in np.argwhere(read_segmentation(output, oblique)[0])] == [(3, 3, 4)]


def test_wrong_probabilities_are_told(oblique_folder, oblique, tmp_path, capsys):
    nib.save(nib.Nifti1Image(np.ones(oblique.shape, np.uint8), oblique.affine), tmp_path / "seg.nii.gz")
    output, seg = str(tmp_path / "seg.dcm"), str(tmp_path / "seg.nii.gz")
    assert main(["dicom", "to-seg", str(oblique_folder), seg, output, "--probabilities", seg]) == 1
    assert "expected at least 2 channels" in capsys.readouterr().err
    assert main(["dicom", "to-nifti", str(tmp_path / "nowhere"), str(tmp_path / "a.nii")]) == 1
    assert "no folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_bundle_segments_a_series(tmp_path):
    affine = ras_affine(rotation(2, 10), (1.0, 1.0, 1.0), (3.0, 4.0, 5.0))
    voxels = np.random.default_rng(9).integers(0, 1000, (22, 26, 18))
    write_series(tmp_path / "series", voxels, affine)
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    torch.manual_seed(0)
    (tmp_path / "run" / "models").mkdir(parents=True)
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "run" / "models" / "model.pt")
    output = tmp_path / "out"
    run = ["--run_dir", str(tmp_path / "run"), "--set", "device=cpu", "--parametric_maps"]
    assert main(["dicom", "segment", str(tmp_path / "series"), str(BUNDLE), str(output), *run]) == 0
    assert sorted(path.name for path in output.glob("[!.]*")) == [
        "confidence.dcm",
        "confidence_pm.dcm",
        "probabilities.dcm",
        "probability_pm_1.dcm",
        "probability_pm_2.dcm",
        "segmentation.dcm",
    ]
    series = read_series(tmp_path / "series")
    labels = read_segmentation(output / "segmentation.dcm", series)
    shares = read_segmentation(output / "probabilities.dcm", series)
    confidence = read_segmentation(output / "confidence.dcm", series)[0]
    maps = np.stack([read_parametric_map(output / f"probability_pm_{label}.dcm", series) for label in (1, 2)])
    assert np.abs(maps - shares).max() <= 0.5001 / 255
    confidence_map = read_parametric_map(output / "confidence_pm.dcm", series)
    np.testing.assert_allclose(confidence_map, np.maximum(maps.max(0), 1 - maps.sum(0)), atol=1e-6)
    assert np.abs(confidence_map - confidence).max() <= 0.005 + 0.5001 / 255
    every = np.stack([1 - shares.sum(0), *shares])
    assert labels.any()
    np.testing.assert_allclose(confidence, every.max(0), atol=0.005 + 3 / 255)  # of percents, and of three roundings
    ordered = np.sort(every, axis=0)
    sure = ordered[-1] - ordered[-2] > 3 / 255
    assert sure.mean() > 0.3
    np.testing.assert_array_equal(every.argmax(0)[sure], np.einsum("k,kxyz->xyz", [1, 2], labels)[sure])


def test_a_folder_without_a_bundle_is_told(oblique_folder, tmp_path, capsys):
    assert main(["dicom", "segment", str(oblique_folder), str(tmp_path), str(tmp_path / "out")]) == 1
    assert "metadata.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["--set", "devise=cpu"], "Did you mean 'device'?"),
        (["--set", "device=cpu"], "model.pt"),  # there is none in RUN
    ],
)
def test_a_bundle_that_cannot_run_is_told_in_one_line(settings, told, oblique_folder, tmp_path, capsys):
    run = ["--run_dir", str(tmp_path / "run")]
    assert main(["dicom", "segment", str(oblique_folder), str(BUNDLE), str(tmp_path / "out"), *run, *settings]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("monai_calib:")]
    assert len(said) == 1
    assert told in said[0]
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_an_output_folder_in_use_is_refused_with_one_line(oblique_folder, tmp_path, capsys):
    output = tmp_path / "out"
    with held(output) as process:
        assert main(["dicom", "segment", str(oblique_folder), str(BUNDLE), str(output)]) == 1
        said = capsys.readouterr().err
        assert f"{output} is in use by process {process}" in said
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize("missing", ["highdicom", "pydicom"])
def test_without_the_extra_the_error_says_what_to_install(missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from monai_calib.__main__ import main; "
        "sys.exit(main(['dicom', 'to-nifti', 'series', 'out.nii']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs highdicom and pydicom" in done.stderr
    assert 'pip install "monai_calib[dicom]"' in done.stderr
    assert "Traceback" not in done.stderr
