"""Conversion as a whole: all or nothing, resumable, verifiable, from anywhere; and the real hippocampus volumes."""

import gzip
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_layouts import LAYOUTS, script, snapshot

from monai_calib.datasets import convert_case as conversion
from monai_calib.datasets.command import run
from monai_calib.datasets.convert import convert
from monai_calib.datasets.dataset import SourceError, Volume
from monai_calib.datasets.download import fetch
from monai_calib.datasets.known import hippocampus_subject as subject
from monai_calib.datasets.volumes import remap_labels, write_nifti

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("MONAI_CALIB_DATA", ROOT.parent / "shared/data")) / "Task04_Hippocampus"


@pytest.fixture
def official(tmp_path):
    return LAYOUTS["msd_hippocampus"](tmp_path / "download")


def test_a_subject_has_its_two_sides():
    numbers = {number: subject(f"hippocampus_{number:03d}") for number in range(1, 395)}
    assert numbers[1] == numbers[2] == "1"
    assert numbers[393] == numbers[394] == "197"
    assert len(set(numbers.values())) == 197
    with pytest.raises(SourceError, match="hippocampus_x"):
        subject("hippocampus_x")


def test_unchanged_files_keep_their_bytes_and_share_nothing_with_the_download(official, tmp_path):
    case = "hippocampus_003"
    image = official.source / f"imagesTr/{case}.nii.gz"
    label = official.source / f"labelsTr/{case}.nii.gz"
    official.write(label, np.asanyarray(nib.load(label).dataobj).astype(np.float32))
    convert(script("msd_hippocampus"), official.source, tmp_path / "out")
    copy = tmp_path / f"out/imagesTr/{case}.nii.gz"
    assert copy.read_bytes() == image.read_bytes()
    assert image.stat().st_nlink == copy.stat().st_nlink == 1
    assert nib.load(tmp_path / f"out/labelsTr/{case}.nii.gz").get_data_dtype() == np.uint8


def test_all_that_is_wrong_is_told_at_once(official, tmp_path):
    folder = official.source / "labelsTr"
    official.write(folder / "hippocampus_001.nii.gz", np.full((9, 12, 8), 7, np.uint8))
    official.write(folder / "hippocampus_002.nii.gz", np.full((9, 12, 8), 0.5, np.float32))
    nib.save(nib.Nifti1Image(np.zeros((9, 12, 8), np.uint8), np.eye(4)), folder / "hippocampus_003.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((9, 12, 8, 2), np.uint8), nib.load(official.image_file).affine),
             folder / "hippocampus_004.nii.gz")  # fmt: skip
    path = official.source / "imagesTr/hippocampus_006.nii.gz"
    official.write(path, np.full((9, 12, 8), np.nan, np.float32))
    with pytest.raises(SourceError) as error:
        convert(script("msd_hippocampus"), official.source, tmp_path / "new" / "out")
    said = str(error.value)
    for expected in (
        "5 of 10 cases cannot be used; nothing was written",
        "unknown label value 7; expected [0, 1, 2]",
        "label value 0.5 is not a whole number",
        "mm apart",
        "expected a label of 3 axes, got shape (9, 12, 8, 2)",
        "values that are not finite",
    ):
        assert expected in said
    assert list((tmp_path / "new").iterdir()) == []


def test_cases_can_be_left_out_by_name(official, tmp_path, capsys):
    official.label_file.write_bytes(b"broken")
    arguments = [str(official.source), str(tmp_path / "out"), "--exclude"]
    assert run(script("msd_hippocampus"), [*arguments, "hippocampus_999"]) == 1
    assert "no case of MSD Hippocampus: hippocampus_999" in capsys.readouterr().err
    assert run(script("msd_hippocampus"), [*arguments, "hippocampus_001"]) == 0
    datalist = json.loads((tmp_path / "out/datalist.json").read_text())
    assert datalist["excluded"] == ["hippocampus_001"]
    assert not (tmp_path / "out/labelsTr/hippocampus_001.nii.gz").exists()


def test_images_labels_and_the_list_must_agree(official, tmp_path):
    extra = official.source / "imagesTr/hippocampus_020.nii.gz"
    shutil.copy(official.image_file, extra)
    with pytest.raises(SourceError, match=r"labelsTr/hippocampus_020\.nii\.gz: missing, though imagesTr has it"):
        convert(script("msd_hippocampus"), official.source, tmp_path / "out")
    shutil.copy(official.label_file, official.source / "labelsTr/hippocampus_020.nii.gz")
    with pytest.raises(SourceError, match=r"hippocampus_020\.nii\.gz: not named in dataset\.json"):
        convert(script("msd_hippocampus"), official.source, tmp_path / "out")


@pytest.mark.parametrize("content", ["{", '{"training": 3}', "{}"])
def test_a_broken_dataset_json_is_named(official, tmp_path, content):
    (official.source / "dataset.json").write_text(content)
    with pytest.raises(SourceError, match=r"dataset\.json: not a Decathlon dataset\.json"):
        convert(script("msd_hippocampus"), official.source, tmp_path / "out")


def test_an_interrupted_conversion_goes_on_where_it_stopped(tmp_path, monkeypatch):
    official = LAYOUTS["brats19"](tmp_path / "download")

    def stop_after_five(cases):
        for number, case in enumerate(cases):
            if number == 5:
                raise KeyboardInterrupt
            yield case

    with pytest.raises(KeyboardInterrupt):
        convert(script("brats19"), official.source, tmp_path / "out", progress=stop_after_five)
    assert not (tmp_path / "out").exists()
    partial = tmp_path / ".out.partial"
    names = sorted(path.stem for path in (partial / "records").iterdir())
    assert len(names) == 5
    images = {name: (partial / f"imagesTr/{name}.nii.gz").stat().st_mtime_ns for name in names}
    # A result that was tampered with, and a source that changed, are done again; the others are kept.
    (partial / f"imagesTr/{names[0]}.nii.gz").write_bytes(b"tampered")
    seg = next(official.source.rglob(f"{names[1]}_seg.nii.gz"))
    official.write(seg, np.zeros((8, 9, 7), np.int16))
    done = []
    convert_case = conversion._convert_case
    monkeypatch.setattr(
        conversion, "_convert_case", lambda d, case, o: done.append(case.name) or convert_case(d, case, o)
    )
    convert(script("brats19"), official.source, tmp_path / "out")
    assert sorted(done) == sorted({*official.cases} - {*names[2:]})
    assert not partial.exists()
    assert run(script("brats19"), ["--check", str(tmp_path / "out")]) == 0
    for name in names[2:]:
        assert (tmp_path / f"out/imagesTr/{name}.nii.gz").stat().st_mtime_ns == images[name]


def pack(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, arcname=folder.name)
    return archive


@pytest.mark.slow
def test_a_killed_conversion_goes_on_and_ends_as_one_that_was_not(tmp_path):
    official = LAYOUTS["brats19"](tmp_path / "download", scale=6)
    archive = pack(official.source, tmp_path / "brats.tar")
    command = [sys.executable, str(ROOT / "data_scripts/brats19.py"), str(archive)]
    running = subprocess.Popen([*command, str(tmp_path / "killed/out")], stderr=subprocess.DEVNULL)
    records = tmp_path / "killed/.out.partial/records"
    while not records.is_dir() or len(list(records.glob("*.json"))) < 2:
        assert running.poll() is None
        time.sleep(0.005)
    running.kill()
    running.wait()
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert left == {".out.partial", ".out.unpacked"}, "killed in the middle"

    for name in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / name / "out")], check=True, capture_output=True)
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["out"]
    first, second = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("killed", "whole")
    )
    assert len(second) > 24
    assert first == second


def test_an_output_that_holds_something_is_left_alone(official, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/kept.txt").write_text("precious")
    assert run(script("msd_hippocampus"), [str(official.source), str(tmp_path / "out")]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept.txt"]


def test_the_download_is_never_written_to(official, capsys):
    before = snapshot(official.source)
    assert run(script("msd_hippocampus"), [str(official.source), str(official.source / "out")]) == 1
    assert "lies inside the download" in capsys.readouterr().err
    assert snapshot(official.source) == before


def test_check_names_what_changed(official, tmp_path, capsys):
    out = tmp_path / "out"
    convert(script("msd_hippocampus"), official.source, out)
    assert run(script("msd_hippocampus"), ["--check", str(out)]) == 0
    assert "10 cases, all as written" in capsys.readouterr().out
    changed = out / "labelsTr/hippocampus_002.nii.gz"
    content = gzip.decompress(changed.read_bytes())
    changed.unlink()
    changed.write_bytes(gzip.compress(content[:-1] + bytes([content[-1] ^ 1])))
    (out / "imagesTr/hippocampus_004.nii.gz").unlink()
    datalist = json.loads((out / "datalist.json").read_text())
    datalist["test"][0]["subject"] = datalist["training"][0]["subject"]
    (out / "datalist.json").write_text(json.dumps(datalist))
    assert run(script("msd_hippocampus"), ["--check", str(out)]) == 1
    said = capsys.readouterr().out
    assert "labelsTr/hippocampus_002.nii.gz is not the file that was written" in said
    assert "imagesTr/hippocampus_004.nii.gz is missing" in said
    assert "is in training and in test" in said
    assert run(script("msd_hippocampus"), ["--check", str(tmp_path)]) == 1
    assert "not the datalist of a conversion" in capsys.readouterr().err
    assert run(script("acdc"), ["--check", str(out)]) == 1
    assert "expected the conversion of ACDC, found that of 'MSD Hippocampus'" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["path", "module"])
def test_a_script_runs_from_a_path_and_as_a_module(how, official, tmp_path):
    place = tmp_path / "a path with blanks"
    command = (
        [str(ROOT / "data_scripts/msd_hippocampus.py")] if how == "path" else ["-m", "data_scripts.msd_hippocampus"]
    )
    done = subprocess.run(
        [sys.executable, *command, str(official.source), str(place)],
        cwd=tmp_path if how == "path" else ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "10 of the official 260 labelled cases" in done.stdout
    assert (place / "datalist.json").is_file()


@pytest.fixture
def server(tmp_path):
    """Serves a folder on this machine; yields the folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, directory=str(folder), **options)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_a_download_appears_only_when_its_sum_is_right(server, tmp_path):
    folder, address = server
    (folder / "archive.tar").write_bytes(b"content")
    target = tmp_path / "data/archive.tar"
    with pytest.raises(SourceError, match="not the expected archive"):
        fetch(f"{address}/archive.tar", target, "0" * 32)
    with pytest.raises(SourceError, match="could not be downloaded"):
        fetch(f"{address}/absent.tar", target, "0" * 32)
    assert list(target.parent.iterdir()) == []
    fetch(f"{address}/archive.tar", target, hashlib.md5(b"content").hexdigest())
    assert target.read_bytes() == b"content"


@pytest.mark.parametrize("key", ["msd_hippocampus", "msd_prostate"])
def test_monai_publishes_an_address_and_a_sum_of_the_archive(key):
    from monai.apps import DecathlonDataset

    name = script(key).archive
    assert DecathlonDataset.resource[name].endswith(f"{name}.tar")
    assert len(DecathlonDataset.md5[name]) == 32


def test_download_asks_for_the_name_of_an_archive(tmp_path, capsys):
    assert run(script("msd_hippocampus"), [str(tmp_path), str(tmp_path / "out"), "--download"]) == 1
    assert "SOURCE names the archive to write, such as Task04_Hippocampus.tar" in capsys.readouterr().err


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="no real volumes")
def test_the_real_hippocampus(tmp_path):
    out = tmp_path / "out"
    assert run(script("msd_hippocampus"), [str(REAL), str(out)]) == 0
    datalist = json.loads((out / "datalist.json").read_text())
    sizes = [len(datalist[split]) for split in ("training", "validation", "test")]
    assert sum(sizes) == 197
    assert np.abs(np.array(sizes) - (106, 23, 68)).max() <= 2
    subjects = [{entry["subject"] for entry in datalist[split]} for split in ("training", "validation", "test")]
    assert sum(map(len, subjects)) == len(set().union(*subjects)) == 130
    assert run(script("msd_hippocampus"), ["--check", str(out)]) == 0
    for entry in datalist["test"][:5]:
        assert (out / entry["image"]).read_bytes() == (REAL / entry["image"]).read_bytes()


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.integers(0, 255), st.integers(0, 255), min_size=1, max_size=6), st.integers(0, 1000))
def test_labels_are_replaced_as_the_map_says(label_map, seed):
    keys = np.array(sorted(label_map))
    array = np.random.default_rng(seed).choice(keys, size=(3, 4, 5))
    for dtype in (np.int16, np.uint8, np.float32, np.float64):
        found = remap_labels(array.astype(dtype), label_map, Path("x.nii.gz"))
        assert found.dtype == np.uint8
        assert found.tolist() == [[[label_map[v] for v in row] for row in part] for part in array.tolist()]


@pytest.mark.parametrize(("value", "said"), [(-1, "-1"), (256, "256"), (3, "3"), (1.4, "1.4 is not a whole")])
def test_labels_outside_the_map_are_named(value, said):
    with pytest.raises(SourceError, match=rf"x\.nii\.gz: .*label value {said}"):
        remap_labels(np.array([[[0, value, 1]]]), {0: 0, 1: 1}, Path("x.nii.gz"))


@pytest.mark.parametrize(("top", "stored"), [(1024.0, np.int16), (1024.5, np.float64), (40000.0, np.float64)])
def test_whole_numbers_are_stored_small_and_others_as_they_are(top, stored, tmp_path):
    array = np.array([[[-1000.0, 0.0, top]]])
    write_nifti(Volume(array, np.eye(4)), tmp_path / "x.nii.gz", "test")
    written = nib.load(tmp_path / "x.nii.gz")
    assert written.get_data_dtype() == stored
    assert np.array_equal(written.get_fdata(), array)
