"""Files are whole or absent, folders change in one step, and errors name the path."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from monai_calib.files import FileError, atomic_folder, atomic_path, read_json, write_json


def _break_off(block: AbstractContextManager[Path], write: Callable[[Path], object]) -> None:
    with block as partial:
        write(partial)
        raise KeyError("x")


def _into(block: AbstractContextManager[Path], other: Path) -> None:
    with block:
        other.write_text("x" * 100_000)


def test_a_failed_write_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(KeyError):
        _break_off(atomic_path(tmp_path / "a.json"), lambda partial: partial.write_text("half"))
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("a.json", "old")]


def test_a_failed_folder_leaves_the_former_one(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "eval") as partial:
        (partial / "a").write_text("1")
    with pytest.raises(KeyError):
        _break_off(atomic_folder(tmp_path / "eval"), lambda partial: (partial / "b").write_text("2"))
    assert [str(f.relative_to(tmp_path)) for f in sorted(tmp_path.rglob("*"))] == ["eval", "eval/a"]
    with atomic_folder(tmp_path / "eval") as partial:
        (partial / "b").write_text("2")
    assert [str(f.relative_to(tmp_path)) for f in sorted(tmp_path.rglob("*"))] == ["eval", "eval/b"]


def test_what_a_killed_process_left_is_removed_by_the_next_writer(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom monai_calib.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as partial:\n    partial.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], check=False)
    assert [f.name.endswith(".partial.a.txt") for f in tmp_path.iterdir()] == [True]
    write_json(tmp_path / "a.txt", {"x": 1})
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


def test_a_killed_process_of_the_same_number_is_no_hindrance(tmp_path: Path) -> None:
    """In a container every process is number 1, and the host's name may stay."""
    code = (
        "import os, sys\nfrom monai_calib.files import atomic_folder, atomic_path\n"
        "os.getpid = lambda: 1\nwhere, word = sys.argv[1:]\n"
        "with atomic_path(where + '/a.txt') as file, atomic_folder(where + '/b') as folder:\n"
        "    file.write_text(word)\n    (folder / word).write_text(word)\n"
        "    if word == 'half':\n        os.abort()\n"
    )
    for word in ("half", "whole"):
        run = subprocess.run([sys.executable, "-c", code, str(tmp_path), word], check=False, capture_output=True)
        assert (run.returncode == 0) is (word == "whole"), run.stderr
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert [str(f.relative_to(tmp_path)) for f in sorted(tmp_path.rglob("*"))] == ["a.txt", "b", "b/whole"]


def test_nothing_of_host_and_process_gets_into_what_pytorch_writes(tmp_path: Path) -> None:
    """It writes the file's name into the archive; a partial one named the machine, and no two files were alike."""
    for name in ("one", "other"):
        with atomic_path(tmp_path / name / "model.pt") as partial:
            torch.save({"weight": torch.ones(2)}, partial)
    with zipfile.ZipFile(tmp_path / "one" / "model.pt") as archive:
        assert {entry.partition("/")[0] for entry in archive.namelist()} == {"model"}
    assert (tmp_path / "one" / "model.pt").read_bytes() == (tmp_path / "other" / "model.pt").read_bytes()


def test_a_folder_killed_between_two_renames_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".eval.former").mkdir()
    (tmp_path / ".eval.former" / "a").write_text("1")
    with pytest.raises(KeyError):
        _break_off(atomic_folder(tmp_path / "eval"), lambda partial: None)
    assert (tmp_path / "eval" / "a").read_text() == "1"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[" * 100_000, b'{"format": "b"}', b"[]"])
def test_whatever_is_wrong_with_a_json_file_it_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(FileError, match=r"x\.json.*Write it again\."):
        read_json(tmp_path / "x.json", "a", "Write it again.")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_named_with_its_free_space(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    with pytest.raises(OSError, match=r"no space left \([\d.]+ MB free\).*a\.json"):
        _into(atomic_path(target), Path("/dev/full"))
