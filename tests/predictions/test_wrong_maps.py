"""Input that is wrong: named with what to do, exit status 1, and nothing half-written."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from stored_maps import AFFINE, SHAPE, case_name, softmax, volume, write_data, write_label, write_map

from monai_calib.__main__ import main
from monai_calib.files import FileError
from monai_calib.predictions.pickles import read_properties, unpickle

FIRST, SECOND, THIRD = (case_name(number) for number in range(3))


def no_map_has_a_labels_name(root: Path) -> None:
    for path in (root / "labels").iterdir():
        path.rename(path.with_name(f"gt_{path.name}"))


def a_map_without_label(root: Path) -> None:
    (root / "labels" / f"{SECOND}.nii.gz").unlink()


def an_unknown_value(root: Path) -> None:
    label = volume(1)[1]
    label[0, 0, 0] = 5
    write_label(root / "labels", 1, label)


def a_fraction(root: Path) -> None:
    nib.save(nib.Nifti1Image(volume(1)[1].astype(np.float32) / 2, AFFINE), root / "labels" / f"{SECOND}.nii.gz")


def another_shape(root: Path) -> None:
    write_map(root / "maps", 1, softmax(volume(1, (12, 9, 8))[0]))


def two_channels(root: Path) -> None:
    write_map(root / "maps", 1, softmax(volume(1)[0][:2]))


def no_class(root: Path) -> None:
    np.savez(root / "maps" / f"{SECOND}.npz", probabilities=softmax(volume(1)[0])[:0].transpose(0, 3, 2, 1))


def no_sum_of_one(root: Path) -> None:
    write_map(root / "maps", 1, softmax(volume(1)[0]) * 0.9)


def logits(root: Path) -> None:
    write_map(root / "maps", 1, volume(1)[0])


def per_cent(root: Path) -> None:
    write_map(root / "maps", 1, 100 * softmax(volume(1)[0]))


def one_hot(root: Path) -> None:
    write_map(root / "maps", 1, np.eye(3)[volume(1)[1]].transpose(3, 0, 1, 2))


def not_a_number(root: Path) -> None:
    values = softmax(volume(1)[0])
    values[0, 0, 0, 0] = np.nan
    write_map(root / "maps", 1, values)


def axes_swapped(root: Path) -> None:
    np.savez(root / "maps" / f"{SECOND}.npz", probabilities=softmax(volume(1)[0]))


def no_maps(root: Path) -> None:
    for path in (root / "maps").iterdir():
        path.unlink()


def no_folder(root: Path) -> None:
    (root / "maps").rename(root / "elsewhere")


def no_labels(root: Path) -> None:
    for path in (root / "labels").iterdir():
        path.unlink()


def cut_short(root: Path) -> None:
    path = root / "maps" / f"{SECOND}.npz"
    path.write_bytes(path.read_bytes()[:-200])


def several_arrays(root: Path) -> None:
    np.savez(root / "maps" / f"{SECOND}.npz", a=np.zeros(2), b=np.zeros(2))


def a_pickle_that_runs(root: Path) -> None:
    (root / "maps" / f"{SECOND}.pkl").write_bytes(b"cos\nsystem\n(S'touch %s/ran'\ntR." % str(root).encode())


def another_spacing(root: Path) -> None:
    path = root / "maps" / f"{SECOND}.pkl"
    path.write_bytes(pickle.dumps({"spacing": [2.0, 1.0, 1.5]}))


def another_place(root: Path) -> None:
    properties = pickle.loads((root / "maps" / f"{SECOND}.pkl").read_bytes())
    properties["sitk_stuff"]["origin"] = (-5.0, 3.0, 20.0)
    (root / "maps" / f"{SECOND}.pkl").write_bytes(pickle.dumps(properties))


def regions(root: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    (root / "maps" / "dataset.json").write_text(json.dumps({"labels": labels}))


def the_evaluation_of_a_network(root: Path) -> None:
    (root / "run/eval").mkdir(parents=True)
    (root / "run/eval/calibration.json").write_text(json.dumps({"run": {"loss_name": "ce"}}))


FAULTS: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (no_map_has_a_labels_name, ("maps", FIRST, f"gt_{FIRST}", "rename one of the two")),
    (a_map_without_label, (SECOND, "expected a label for each map", "Add the labels")),
    (an_unknown_value, (f"labels/{SECOND}", "unknown label value 5" , "--ignore_index")),
    (a_fraction, (f"labels/{SECOND}", "0.5", "whole number", "--classes")),
    (another_shape, (f"{SECOND}.npz", "(3, 8, 9, 12)", str(SHAPE), "resample")),
    (two_channels, (f"{SECOND}.npz", "(2, 7, 9, 12)", "--classes")),
    (no_class, (f"{SECOND}.npz", "(0, 7, 9, 12)", "--classes")),
    (no_sum_of_one, (f"{SECOND}.npz", "sum to 1", "0.9", "100 %", "sigmoid")),
    (logits, (f"{SECOND}.npz", "--logits True")),
    (per_cent, (f"{SECOND}.npz", "Divide by what stands for 1")),
    (one_hot, (f"{SECOND}.npz", "one-hot", "before argmax")),
    (not_a_number, (f"{SECOND}.npz", "1 NaN or infinite", "float32")),
    (axes_swapped, (f"{SECOND}.npz", "axes are swapped", "--axes kxyz")),
    (no_maps, ("maps", "probability maps", "--save_probabilities")),
    (no_folder, ("maps", "got nothing", "Check the path")),
    (no_labels, ("labels", "expected labels")),
    (cut_short, (f"{SECOND}.npz", "cannot be read", "Write or copy it again")),
    (several_arrays, (f"{SECOND}.npz", "a, b", "Save the map under one of these names")),
    (a_pickle_that_runs, (f"{SECOND}.pkl", "os.system", "nothing of it was run", "Properties are optional")),
    (another_spacing, (f"{SECOND}.npz", "[1.5, 1.0, 2.0]", "name the right folder")),
    (another_place, (f"{SECOND}.npz", "12 mm apart", "map is of another volume")),
    (regions, ("dataset.json", "regions", "--classes")),
    (the_evaluation_of_a_network, ("calibration.json", "Name another folder")),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "told"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_it_is_named_and_nothing_is_written(fault, told, tmp_path, capsys):
    write_data(tmp_path, 3)
    named = [] if fault is regions else ["--classes", "background", "organ", "lesion"]
    fault(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    arguments = ["measure", str(tmp_path / "maps"), str(tmp_path / "labels"), str(tmp_path / "run")]
    assert main([*arguments, "--protocols", "paper", *named]) == 1
    said = capsys.readouterr().err
    for part in told:
        assert part in said, said
    assert sorted(tmp_path.rglob("*")) == before


def test_without_names_a_label_with_more_classes_than_the_map_has_is_named(tmp_path, capsys):
    write_data(tmp_path, 2)
    an_unknown_value(tmp_path)
    arguments = ["measure", str(tmp_path / "maps"), str(tmp_path / "labels"), str(tmp_path / "run")]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert f"labels/{SECOND}" in said
    assert "from 0 to 2" in said
    assert "got 5" in said


def test_segmentations_beside_the_maps_are_not_taken_for_the_truth(tmp_path, capsys):
    write_data(tmp_path, 2)
    assert main(["measure", str(tmp_path / "maps"), str(tmp_path / "maps"), str(tmp_path / "run")]) == 1
    assert "Name the folder of the true labels" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["suffix", "folders"])
def test_a_missing_class_is_named(kind, tmp_path, capsys):
    write_data(tmp_path, 2, kind)
    path = tmp_path / "maps" / (f"{SECOND}_lesion.nii.gz" if kind == "suffix" else f"lesion/{SECOND}.nii.gz")
    path.unlink()
    named = ["--classes", "background", "organ", "lesion"]
    assert main(["measure", str(tmp_path / "maps"), str(tmp_path / "labels"), str(tmp_path / "run"), *named]) == 1
    said = capsys.readouterr().err
    assert SECOND in said
    assert "none of lesion" in said


@pytest.mark.parametrize("kind", ["suffix", "folders"])
def test_a_sum_other_than_one_names_the_files_of_all_classes(kind, tmp_path, capsys):
    write_data(tmp_path, 2, kind)
    lesion = f"{SECOND}_lesion.nii.gz" if kind == "suffix" else f"lesion/{SECOND}.nii.gz"
    image = nib.load(tmp_path / "maps" / lesion)
    nib.save(nib.Nifti1Image(image.get_fdata() / 2, image.affine, image.header), tmp_path / "maps" / lesion)
    named = ["--classes", "background", "organ", "lesion"]
    assert main(["measure", str(tmp_path / "maps"), str(tmp_path / "labels"), str(tmp_path / "run"), *named]) == 1
    said = capsys.readouterr().err
    assert "sum to 1" in said
    assert lesion in said


def test_a_nifti_map_of_another_place_is_named(tmp_path, capsys):
    write_data(tmp_path, 2, "nifti")
    moved = AFFINE.copy()
    moved[0, 3] += 3
    path = tmp_path / "maps" / f"{SECOND}.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(nib.nifti1.load(path).dataobj), moved), path)
    assert main(["measure", str(tmp_path / "maps"), str(tmp_path / "labels"), str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert str(path) in said
    assert "label and map" in said
    assert "3 mm apart" in said


def test_swapped_axes_of_equal_length_are_told_by_the_overlap(tmp_path, capsys):
    for number in range(3):
        given, label = volume(number, (10, 10, 10))
        given, label = np.roll(given, (3, -2), (1, 3)), np.roll(label, (3, -2), (0, 2))
        write_label(tmp_path / "labels", number, label)
        (tmp_path / "maps").mkdir(exist_ok=True)
        np.savez(tmp_path / "maps" / f"{case_name(number)}.npz", probabilities=softmax(given))
    arguments = ["measure", str(tmp_path / "maps"), str(tmp_path / "labels"), str(tmp_path / "run")]
    assert main(arguments) == 1
    assert "--axes kxyz" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--axes", "kxyz"]) == 0
    assert main([*arguments, "--axes", "kzyx"]) == 0  # said so, and believed


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--axes", "kij"], "k (class), x, y and z"),
        (["--classes", "background=0", "organ=x"], "name=value"),
        (["--classes", "background=0", "organ=0"], "a value of its own"),
        (["--subjects", "(unclosed"], "regular expression"),
        (["--subjects", "nobody"], "expected a subject for each case"),
        (["--protocols", "mine"], "unknown protocol"),
        (["--images", "IMAGES"], "leave --images out"),
    ],
)
def test_arguments(given, told, tmp_path, capsys):
    write_data(tmp_path, 1)
    (tmp_path / "images").mkdir()
    more = [str(tmp_path / "images") if word == "IMAGES" else word for word in given]
    assert main(["measure", str(tmp_path / "maps"), str(tmp_path / "labels"), str(tmp_path / "run"), *more]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class _Evil:
    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        {"spacing": np.array([1.0, 2.0]), "n": np.float32(2), "i": np.int64(-3), "s": {1, 2}, "t": (None, b"x", "ä")},
        {"f": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)), "b": np.array(["a", "bc"])},
        {"nested": [{"deep": np.zeros((0, 3))}], "c": 1j, "l": slice(1, 2), "big": 2**70},
    ],
)
def test_plain_pickles_of_every_protocol_are_read(value, protocol, tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    np.testing.assert_equal(unpickle(path), value)


@pytest.mark.parametrize(
    "value", [_Evil(), {"a": [_Evil()]}, np.array([_Evil()], dtype=object), Path("a"), np.array, print]
)
def test_what_is_not_plain_is_refused_by_name(value, tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(FileError, match=r"a\.pkl: expected containers.*nothing of it was run"):
        unpickle(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x05", b"not a pickle", pickle.dumps([1, 2])[:-2]])
def test_a_damaged_pickle_is_named(content, tmp_path):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(FileError, match=r"a\.pkl: cannot be read as a pickle"):
        unpickle(tmp_path / "a.pkl")


def test_properties_must_be_a_mapping_and_may_be_absent(tmp_path):
    assert read_properties(tmp_path / "a") == {}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(FileError, match="expected a mapping"):
        read_properties(tmp_path / "a")
