"""Archives: the whole and honest ones convert as folders do, the others are refused before a byte is written."""

import io
import resource
import shutil
import stat
import tarfile
import zipfile

import pytest
from official_layouts import LAYOUTS, script

from monai_calib.datasets.archives import open_source, unpack
from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import SourceError


def make_tar(path, source, mode="w"):
    with tarfile.open(path, mode) as tar:
        tar.add(source, arcname=source.name)
    return path


def make_zip(path, source):
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted(source.rglob("*")):
            packed.write(file, file.relative_to(source.parent))
    return path


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive_converts_to_the_same_files_as_its_folder(kind, tmp_path):
    official = LAYOUTS["msd_hippocampus"](tmp_path)
    archive = tmp_path / f"Task04_Hippocampus.{kind}"
    if kind == "zip":
        make_zip(archive, official.source)
    else:
        make_tar(archive, official.source, "w:gz" if kind == "tar.gz" else "w")
    place = tmp_path / "target"
    for name, source in (("folder", official.source), ("archive", archive)):
        assert run(script("msd_hippocampus"), [str(source), str(place / name)]) == 0
    assert sorted(path.name for path in place.iterdir()) == ["archive", "folder"]
    first, second = (
        {path.relative_to(place / name): path.read_bytes() for path in (place / name).rglob("*") if path.is_file()}
        for name in ("folder", "archive")
    )
    assert first == second


@pytest.mark.parametrize(
    ("key", "kind"), [("msd_hippocampus", "tar"), ("msd_hippocampus", "zip"), *((key, "tar.gz") for key in LAYOUTS)]
)
def test_a_half_downloaded_archive_is_named_and_leaves_nothing(key, kind, tmp_path, capsys):
    official = LAYOUTS[key](tmp_path)
    archive = tmp_path / f"half.{kind}"
    if kind == "zip":
        make_zip(archive, official.source)
    else:
        make_tar(archive, official.source, "w:gz" if kind == "tar.gz" else "w")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    place = tmp_path / "target"
    place.mkdir()
    assert run(script(key), [str(archive), str(place / "out")]) == 1
    assert f"half.{kind}" in capsys.readouterr().err
    assert list(place.iterdir()) == []


def test_a_disk_that_takes_no_more_is_not_the_archives_fault(tmp_path, capsys):
    official = LAYOUTS["msd_hippocampus"](tmp_path)
    archive = make_tar(tmp_path / "whole.tar", official.source)
    place = tmp_path / "target"
    place.mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))  # no file of more than 500 bytes
    try:
        assert run(script("msd_hippocampus"), [str(archive), str(place / "out")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = capsys.readouterr().err
    assert "File too large" in message
    assert "ownload it again" not in message
    assert list(place.iterdir()) == []


def tar_with(path, name, kind=tarfile.REGTYPE, target=""):
    with tarfile.open(path, "w") as tar:
        good = tarfile.TarInfo("good.txt")
        good.size = 4
        tar.addfile(good, io.BytesIO(b"good"))
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)
    return path


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:\\evil", "..\\evil", "\\\\host\\evil"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_path_that_leads_out_is_refused(name, kind, tmp_path):
    archive, folder = tmp_path / f"bad.{kind}", tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    if kind == "tar":
        tar_with(archive, name)
    else:
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("good.txt", "good")
            packed.writestr(name, "evil")
    with pytest.raises(SourceError, match="outside its folder; nothing was unpacked"):
        unpack(archive, folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([archive.name, "deep", "folder"])


@pytest.mark.parametrize(
    ("kind", "target"),
    [(tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "good.txt"), (tarfile.CHRTYPE, ""), (tarfile.FIFOTYPE, "")],
)
def test_links_and_devices_are_refused(kind, target, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match="'odd' is a link or a device"):
        unpack(tar_with(tmp_path / "bad.tar", "odd", kind, target), tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_link_in_a_zip_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        link = zipfile.ZipInfo("odd")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(SourceError, match="'odd' is a link or a device"):
        unpack(tmp_path / "bad.zip", tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_member_that_occurs_twice_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match=r"holds good\.txt twice"):
        unpack(tar_with(tmp_path / "bad.tar", "good.txt"), tmp_path / "folder")


@pytest.mark.parametrize("content", [b"", b"no archive at all"])
def test_a_file_that_is_no_archive_and_a_missing_one_are_named(content, tmp_path):
    (tmp_path / "notes.txt").write_bytes(content)
    workplace = tmp_path / "unpacked"
    with pytest.raises(SourceError, match=r"notes\.txt"), open_source(tmp_path / "notes.txt", workplace):
        pass
    with pytest.raises(SourceError, match="no such folder or archive"), open_source(tmp_path / "absent", workplace):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused_before_it_is_unpacked(kind, tmp_path):
    archive, folder = tmp_path / f"bomb.{kind}", tmp_path / "folder"
    folder.mkdir()
    content = bytes(60_000_000)
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("dataset.json", content)
    else:
        with tarfile.open(archive, "w:gz") as tar:
            member = tarfile.TarInfo("dataset.json")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(SourceError, match="would unpack to 60 MB; nothing was unpacked"):
        unpack(archive, folder)
    assert list(folder.iterdir()) == []


def test_a_sparse_member_counts_with_its_full_size(tmp_path):
    """A header of 512 bytes that stands for 10 GB of zeros."""
    (tmp_path / "folder").mkdir()
    header = tarfile.TarInfo("zeros.nii")
    header.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[482] = 0
    block[483:495] = b"%011o\0" % 10_000_000_000
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "sparse.tar").write_bytes(bytes(block) + bytes(1024))
    with pytest.raises(SourceError, match=r"sparse\.tar: .* would unpack to 10000 MB; nothing was unpacked"):
        unpack(tmp_path / "sparse.tar", tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []


def test_what_does_not_fit_on_the_disk_is_told_before(tmp_path, monkeypatch):
    official = LAYOUTS["msd_hippocampus"](tmp_path)
    archive = make_tar(tmp_path / "whole.tar", official.source)
    (tmp_path / "folder").mkdir()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(SourceError, match=r"whole\.tar: needs .* GB unpacked, and 0\.0 GB are free"):
        unpack(archive, tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []
