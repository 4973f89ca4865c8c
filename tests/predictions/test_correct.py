"""``correct``: maps written back as they came, figures of cases that were not fitted on, nothing worse unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its customary name
import torch
from numpy.typing import NDArray
from PIL import Image
from stored_maps import AFFINE, FORMATS, case_name, read_map, softmax, volume, write_data, write_label, write_map

from monai_calib.__main__ import main
from monai_calib.metrics.evaluated import read_evaluated
from monai_calib.posthoc import Calibrator, LogitCase, TemperatureScaling, fit

PROTOCOLS = ["--protocols", "by_region"]
NAMED = ["--classes", "background", "organ", "lesion"]
FITTED, LEFT = range(3), range(3, 5)


def measure(root: Path, *more: str) -> int:
    return main(["measure", str(root / "maps"), str(root / "labels"), str(root / "run"), *PROTOCOLS, *NAMED, *more])


def correct(root: Path, *more: str, fitted: Any = FITTED) -> int:
    (root / "fit.txt").write_text("# to fit on\n" + "".join(f"{case_name(i)}\n" for i in fitted))
    return main(["correct", str(root / "run"), str(root / "out"), "--fit_on", str(root / "fit.txt"), *more])


def temperature_of(numbers: Any) -> float:
    """The temperature fitted in memory on the network's own logits."""
    scaling = TemperatureScaling(3, region="all")
    fit([scaling], [LogitCase(str(i), *map(torch.from_numpy, volume(i))) for i in numbers])
    return scaling.temperature


@pytest.mark.parametrize(("kind", "dtype"), [*((kind, np.float32) for kind in FORMATS), ("npz", np.float16)])
def test_maps_come_back_in_their_format_corrected(kind, dtype, tmp_path):
    write_data(tmp_path, 5, kind, dtype)
    assert measure(tmp_path) == 0
    assert correct(tmp_path, "--method", "temperature") == 0
    temperature = temperature_of(FITTED)
    assert 1.6 < temperature < 2.5
    written = sorted(path.relative_to(tmp_path / "out/maps") for path in (tmp_path / "out/maps").rglob("*.*"))
    came = sorted(path.relative_to(tmp_path / "maps") for path in (tmp_path / "maps").rglob("*.*"))
    assert written == [path for path in came if any(case_name(i) in path.name for i in LEFT)]
    for number in LEFT:
        before, after = (read_map(folder, number, kind) for folder in (tmp_path / "maps", tmp_path / "out/maps"))
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        expected = softmax(volume(number)[0].astype(np.float64) / temperature)
        np.testing.assert_allclose(after, expected, atol=2e-3 if dtype is np.float16 else 2e-5)
        assert not np.allclose(after, before, atol=0.02)


def test_headers_properties_and_other_arrays_stay(tmp_path):
    write_data(tmp_path, 5)
    for number in LEFT:
        path = tmp_path / "maps" / f"{case_name(number)}.npz"
        np.savez_compressed(path, probabilities=np.load(path)["probabilities"], extra=np.arange(3))
    (tmp_path / "maps/plans.json").write_text("{}")
    assert measure(tmp_path) == 0
    assert correct(tmp_path, "--method", "temperature") == 0
    for number in LEFT:
        name = case_name(number)
        for suffix in (".pkl", ".nii.gz"):  # labels stay, so the segmentation does
            assert (tmp_path / f"out/maps/{name}{suffix}").read_bytes() == (
                tmp_path / f"maps/{name}{suffix}"
            ).read_bytes()
        assert np.load(tmp_path / f"out/maps/{name}.npz")["extra"].tolist() == [0, 1, 2]
    assert (tmp_path / "out/maps/plans.json").is_file()


def test_a_nifti_header_stays(tmp_path):
    write_data(tmp_path, 5, "nifti")
    path = tmp_path / "maps" / f"{case_name(4)}.nii.gz"
    image = nib.nifti1.load(path)
    image.header["descrip"] = b"by a network"
    image.set_sform(AFFINE, 2)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
    assert measure(tmp_path) == 0
    assert correct(tmp_path, "--method", "temperature") == 0
    written = nib.nifti1.load(tmp_path / "out/maps" / f"{case_name(4)}.nii.gz")
    np.testing.assert_array_equal(written.affine, AFFINE)
    assert bytes(written.header["descrip"].item()).rstrip(b"\0") == b"by a network"
    assert int(written.header["sform_code"]) == 2


def test_logits_come_back_as_logits(tmp_path):
    write_data(tmp_path, 5, "nifti", logits=True)
    assert measure(tmp_path, "--logits", "True") == 0
    assert correct(tmp_path, "--method", "temperature") == 0
    after = read_map(tmp_path / "out/maps", 4, "nifti")
    np.testing.assert_allclose(after, volume(4)[0] / temperature_of(FITTED), rtol=1e-4, atol=1e-5)


def test_what_is_reported_is_what_measuring_the_written_maps_gives(tmp_path):
    write_data(tmp_path, 5, "npz", np.float16)
    assert measure(tmp_path) == 0
    assert correct(tmp_path, "--method", "vector", "--force", "True") == 0
    assert (
        main(["measure", str(tmp_path / "out/maps"), str(tmp_path / "labels"), str(tmp_path / "again"), *PROTOCOLS])
        == 0
    )
    again, told = (read_evaluated(tmp_path / folder / "eval") for folder in ("again", "out/corrected"))
    assert [case.case for case in told.cases] == [case_name(i) for i in LEFT]
    assert told.summary == pytest.approx(again.summary, rel=1e-9, nan_ok=True)
    whole, part = (read_evaluated(tmp_path / folder / "eval") for folder in ("run", "out/as_measured"))
    by_case = {case.case: case.values for case in whole.cases}
    for case in part.cases:
        np.testing.assert_equal(dict(case.values), dict(by_case[case.case]))


def test_a_segmentation_follows_labels_that_change_with_the_values_of_the_labels(tmp_path):
    for number in range(5):
        logits, label = volume(number)
        write_label(tmp_path / "labels", number, np.array([0, 4, 7], np.uint8)[label])
        logits[1] += 3  # too much organ: a correction per class takes it back
        write_map(tmp_path / "maps", number, softmax(logits))
    named = ["--classes", "background=0", "organ=4", "lesion=7"]
    assert main(["measure", str(tmp_path / "maps"), str(tmp_path / "labels"), str(tmp_path / "run"), *named]) == 0
    assert correct(tmp_path, "--method", "vector", "--force", "True") == 0
    record = json.loads((tmp_path / "out/correction.json").read_text())
    assert record["labels_changed"] > 0
    assert record["guards"]
    for number in LEFT:
        written = np.asarray(nib.nifti1.load(tmp_path / "out/maps" / f"{case_name(number)}.nii.gz").dataobj)
        values = read_map(tmp_path / "out/maps", number, "npz")
        np.testing.assert_array_equal(written, np.array([0, 4, 7])[values.argmax(0)])


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd", ".png"])
@pytest.mark.parametrize("labels_stay", [True, False])
def test_a_segmentation_stays_in_its_file_type(ending, labels_stay, tmp_path):
    slices = slice(3, 4) if ending == ".png" else slice(None)
    (tmp_path / "labels").mkdir()
    for number in range(5):
        logits, label = (values[..., slices] for values in volume(number))
        logits[1] += 3  # a correction per class takes it back
        write_map(tmp_path / "maps", number, softmax(logits))
        (tmp_path / "maps" / f"{case_name(number)}.nii.gz").unlink()
        (tmp_path / "maps" / f"{case_name(number)}.pkl").unlink()
        write_volume(tmp_path / "labels" / f"{case_name(number)}{ending}", label)
        write_volume(tmp_path / "maps" / f"{case_name(number)}{ending}", logits.argmax(0).astype(np.uint8))
    assert measure(tmp_path) == 0
    assert correct(tmp_path, "--method", "temperature" if labels_stay else "vector", "--force", "True") == 0
    record = json.loads((tmp_path / "out/correction.json").read_text())
    assert (record["labels_changed"] == 0) == labels_stay
    for number in LEFT:
        came, written = (tmp_path / folder / f"{case_name(number)}{ending}" for folder in ("maps", "out/maps"))
        assert labels_stay == (written.read_bytes() == came.read_bytes())
        values, place = read_volume_or_picture(written)
        np.testing.assert_array_equal(values, read_map(tmp_path / "out/maps", number, "npz").argmax(0))
        np.testing.assert_allclose(place, read_volume_or_picture(came)[1])


def write_volume(path: Path, values: NDArray[np.uint8]) -> None:
    """Write ``(x, y, z)`` by the ending of the path, at :data:`AFFINE`."""
    if path.suffix == ".png":
        Image.fromarray(values[..., 0].T).save(path)
        return
    image = sitk.GetImageFromArray(values.transpose(2, 1, 0))
    image.SetSpacing(np.abs(np.diag(AFFINE)[:3]).tolist())
    image.SetOrigin((AFFINE[:3, 3] * [-1, -1, 1]).tolist())
    image.SetDirection((np.sign(AFFINE[:3, :3]) * [[-1], [-1], [1]]).ravel().tolist())
    sitk.WriteImage(image, str(path))


def read_volume_or_picture(path: Path) -> tuple[NDArray[Any], list[float]]:
    """Values ``(x, y, z)`` and where they lie, by PIL or SimpleITK."""
    if path.suffix == ".png":
        return np.asarray(Image.open(path)).T[..., None], []
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), [
        *image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()
    ]  # fmt: skip


def test_what_nnunet_wants_comes_from_the_trained_model_for_a_folds_validation(tmp_path):
    model = tmp_path / "Trainer__Plans__3d_fullres"
    write_data(model, 5)
    for name in ("plans.json", "dataset.json"):
        (model / name).write_text(json.dumps({"labels": {"background": 0, "organ": 1, "lesion": 2}}))
    (model / "fold_0").mkdir()
    (model / "maps").rename(model / "fold_0/validation")
    arguments = ["measure", str(model / "fold_0/validation"), str(model / "labels"), str(tmp_path / "run")]
    assert main([*arguments, *PROTOCOLS]) == 0
    assert correct(tmp_path, "--method", "temperature") == 0
    for name in ("plans.json", "dataset.json"):
        assert (tmp_path / "out/maps" / name).read_bytes() == (model / name).read_bytes()


def test_the_record_makes_the_correction_again(tmp_path):
    write_data(tmp_path, 5)
    assert measure(tmp_path) == 0
    assert correct(tmp_path, "--method", "temperature") == 0
    record = json.loads((tmp_path / "out/correction.json").read_text())
    fitted = Calibrator.from_json(record["correction"])
    logits = torch.from_numpy(read_map(tmp_path / "maps", 4, "npz").copy()).log()
    np.testing.assert_allclose(
        fitted.apply(logits[None])[0].softmax(0), read_map(tmp_path / "out/maps", 4, "npz"), atol=1e-6
    )
    assert record["fit_on"] == [case_name(i) for i in FITTED]
    assert record["corrected"] == [case_name(i) for i in LEFT]


def test_auto_makes_over_confident_maps_better_and_the_report_compares(tmp_path, capsys):
    write_data(tmp_path, 10)
    assert measure(tmp_path, "--subjects", r"(patient\d+)_") == 0
    assert correct(tmp_path, fitted=range(6)) == 0
    before, after = (read_evaluated(tmp_path / "out" / name / "eval").summary for name in ("as_measured", "corrected"))
    assert after["nll_all_macro"] < before["nll_all_macro"]
    assert after["ece_all_15bins_macro"] < before["ece_all_15bins_macro"]
    said = capsys.readouterr().out
    assert f"{before['nll_all_macro']:.4f} -> {after['nll_all_macro']:.4f}" in said
    assert "4 cases not used for the fit" in said
    assert f"Next: python -m monai_calib report {tmp_path / 'out'}" in said
    pytest.importorskip("plotly")
    assert main(["report", str(tmp_path / "out"), "--output", str(tmp_path / "page.html")]) == 0
    method = read_evaluated(tmp_path / "out/corrected/eval").run["posthoc"]
    assert f"run + {method}" in (tmp_path / "page.html").read_text()


def test_maps_that_need_no_correction_stay_as_they_are(tmp_path, capsys):
    for number in range(8):
        logits, label = volume(number)
        write_label(tmp_path / "labels", number, label)
        write_map(tmp_path / "maps", number, softmax(logits / 2))
    assert measure(tmp_path) == 0
    assert correct(tmp_path, fitted=range(1)) == 0  # a single case decides nothing
    assert "No correction makes these maps better" in capsys.readouterr().out
    np.testing.assert_array_equal(read_map(tmp_path / "out/maps", 5, "npz"), read_map(tmp_path / "maps", 5, "npz"))


def test_auto_says_what_the_candidates_it_passed_over_make_worse(tmp_path, capsys):
    for number in range(12):
        logits, label = volume(number)
        logits[1] += 3  # too much organ: a correction per class takes it back, and moves labels
        write_label(tmp_path / "labels", number, label)
        write_map(tmp_path / "maps", number, softmax(logits))
    assert measure(tmp_path) == 0
    assert correct(tmp_path, fitted=range(8)) == 0
    guards = json.loads((tmp_path / "out/correction.json").read_text())["choice"]["guards"]
    assert guards["vector"]
    told = capsys.readouterr().out
    for name, worse in guards.items():
        assert all((f"not {name}: " in told, text in told) == (True, True) for text in worse)


def test_another_measured_folder_to_fit_on(tmp_path):
    for number in range(5):
        given, label = volume(number)
        root = tmp_path / ("validation" if number in FITTED else "test")
        write_label(root / "labels", number, label)
        write_map(root / "maps", number, softmax(given))
    assert measure(tmp_path / "validation") == 0
    assert measure(tmp_path / "test") == 0
    arguments = [str(tmp_path / "test/run"), str(tmp_path / "out"), "--fit_on", str(tmp_path / "validation/run")]
    assert main(["correct", *arguments, "--method", "temperature"]) == 0
    expected = softmax(volume(4)[0].astype(np.float64) / temperature_of(FITTED))
    np.testing.assert_allclose(read_map(tmp_path / "out/maps", 4, "npz"), expected, atol=2e-5)
    assert (tmp_path / "out/maps" / f"{case_name(3)}.npz").is_file()


def test_a_method_by_name_that_makes_it_worse_is_refused(tmp_path, capsys):
    worse = np.array([3.0, -4.0, 0.5])  # of each case another class too much: a fit on two fails on the third
    for number in range(4):
        logits, label = volume(number)
        write_label(tmp_path / "labels", number, label)
        shift = np.roll(worse, number).reshape(3, 1, 1, 1)
        write_map(tmp_path / "maps", number, softmax(logits / 2 + shift))
    assert measure(tmp_path) == 0
    before = sorted(tmp_path.rglob("*"))
    assert correct(tmp_path, "--method", "vector") == 1
    assert "makes the network worse on cases it was not fitted on" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "fit.txt"])
    assert correct(tmp_path, "--method", "vector", "--force", "True") == 0


@pytest.mark.parametrize(
    ("fitted", "more", "told"),
    [
        ([0, 9], [], (case_name(9), "not among its 5")),
        (range(5), [], ("names all of 5 cases", "Shorten the list")),
        ([], [], ("fit.txt", "expected one case a line")),
        ([0], ["--method", "magic"], ("--method", "magic", "temperature")),
        ([0], ["--method", "local_temperature"], ("reads images", "--method auto")),
        ([0], ["--region", "union"], ("--region", "Name a method")),
    ],
)
def test_wrong_arguments(fitted, more, told, tmp_path, capsys):
    write_data(tmp_path, 5)
    assert measure(tmp_path) == 0
    assert correct(tmp_path, *more, fitted=fitted) == 1
    said = capsys.readouterr().err
    for part in told:
        assert part in said, said
    assert not (tmp_path / "out").exists()


def test_folders_that_do_not_fit(tmp_path, capsys):
    write_data(tmp_path, 5)
    assert measure(tmp_path) == 0
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("kept")
    assert correct(tmp_path, "--method", "temperature") == 1
    assert "expected a new folder" in capsys.readouterr().err
    assert (tmp_path / "out/mine.txt").read_text() == "kept"
    fit_on = ["--fit_on", str(tmp_path / "fit.txt")]
    assert main(["correct", str(tmp_path / "run"), str(tmp_path / "run"), *fit_on]) == 1
    assert "holds what is to be corrected" in capsys.readouterr().err
    assert main(["correct", str(tmp_path / "nowhere"), str(tmp_path / "new"), *fit_on]) == 1
    assert "Measure first" in capsys.readouterr().err
    path = tmp_path / "run/eval/calibration.json"
    content = json.loads(path.read_text())
    del content["run"]["maps"]
    path.write_text(json.dumps(content))
    assert main(["correct", str(tmp_path / "run"), str(tmp_path / "new"), *fit_on]) == 1
    assert "that of a network" in capsys.readouterr().err


def test_maps_that_are_read_are_not_replaced(tmp_path, capsys):
    write_data(tmp_path, 5)
    assert measure(tmp_path) == 0
    assert correct(tmp_path, "--method", "temperature", fitted=range(1)) == 0
    again = ["measure", str(tmp_path / "out/maps"), str(tmp_path / "labels"), str(tmp_path / "run"), *PROTOCOLS, *NAMED]
    assert main(again) == 0
    before = sorted((tmp_path / "out").rglob("*"))
    assert correct(tmp_path, "--method", "temperature", fitted=[1]) == 1
    assert "which is read. Name a new folder" in capsys.readouterr().err
    assert sorted((tmp_path / "out").rglob("*")) == before


def test_a_map_that_went_missing_or_changed_is_named_and_nothing_written(tmp_path, capsys):
    write_data(tmp_path, 5)
    assert measure(tmp_path) == 0
    values: NDArray[Any] = read_map(tmp_path / "maps", 4, "npz")
    write_map(tmp_path / "maps", 4, 0.5 * values)
    assert correct(tmp_path, "--method", "temperature") == 1
    assert f"{case_name(4)}.npz" in capsys.readouterr().err
    (tmp_path / "maps" / f"{case_name(4)}.npz").unlink()
    assert correct(tmp_path, "--method", "temperature") == 1
    assert "Put the maps back" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "out"))]


def test_subjects_in_both_parts_are_told(tmp_path, capsys):
    write_data(tmp_path, 6)
    assert measure(tmp_path, "--subjects", r"(patient\d+)_") == 0
    assert correct(tmp_path, "--method", "temperature") == 0
    assert "Beware: in the fit and among the corrected, 1 subject: patient01" in capsys.readouterr().out


def test_voxels_of_several_sizes_leave_out_what_goes_by_distance(tmp_path, capsys):
    write_data(tmp_path, 5, "nifti")
    for folder in ("maps", "labels"):
        path = tmp_path / folder / f"{case_name(4)}.nii.gz"
        other = AFFINE.copy()
        other[:3, 2] *= 1.5
        nib.save(nib.Nifti1Image(np.asarray(nib.nifti1.load(path).dataobj), other), path)
    assert measure(tmp_path) == 0
    assert correct(tmp_path, "--method", "boundary_temperature") == 1
    assert "voxels of one size" in capsys.readouterr().err
    assert correct(tmp_path) == 0
    candidates = json.loads((tmp_path / "out/correction.json").read_text())["choice"]
    assert not any("boundary" in name for name in [*candidates["candidates"], *candidates["dropped"]])
