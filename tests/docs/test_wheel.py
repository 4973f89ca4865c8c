"""What a release is made of, built from what is committed, without a network: the wheel and the source distribution."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from written_pages import ROOT

from monai_calib import __version__

BUILD = "import sys, setuptools.build_meta as b; out = sys.argv[1]; b.build_wheel(out); b.build_sdist(out)"
pytestmark = pytest.mark.slow


def _committed() -> list[str]:
    """Return the files that git knows, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("needs a git checkout")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both in a copy, since a build leaves folders beside what it reads."""
    pytest.importorskip("setuptools", minversion="70.1", reason="needs setuptools with bdist_wheel")
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in _committed():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    ended = subprocess.run([sys.executable, "-c", BUILD, str(output)], cwd=source, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return output


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"monai_calib-{__version__}-py3-none-any.whl"


def test_the_wheel_is_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == {name for name in _committed() if name.startswith("monai_calib/")}
    assert {"monai_calib/py.typed", "monai_calib/report/page.js", "monai_calib/bundling/template/train.json"} <= names
    assert any(name.endswith("/LICENSE") for name in about)
    assert wheel.stat().st_size < 2_000_000


def test_the_source_distribution_is_the_repository(built: Path) -> None:
    """Links of the README lead somewhere in it, and its tests run."""
    root = f"monai_calib-{__version__}/"
    with tarfile.open(built / f"monai_calib-{__version__}.tar.gz") as archive:
        names = {member.name.removeprefix(root) for member in archive if member.isfile()}
    made = {name for name in names if ".egg-info/" in name} | {"PKG-INFO"}
    assert set(_committed()) - names <= {".gitignore", ".gitattributes"}
    assert names - made - set(_committed()) == set()


def test_the_wheel_alone_plans_a_bundle_and_answers_help(wheel: Path, tmp_path: Path) -> None:
    """Outside the repository, the wheel on the path in its place: a phantom, its plan, and a bundle by name."""
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")

    def call(*words: str) -> str:
        code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from monai_calib.__main__ import main; "
        code += "import monai_calib; print(monai_calib.__file__); sys.exit(main(sys.argv[1:]))"
        ended = subprocess.run([sys.executable, "-I", "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        place, _, said = ended.stdout.partition("\n")
        assert place.startswith(str(tmp_path))
        return said

    call("phantom", "data", "--cases", "5", "--shape", "16", "16", "16", "--spacing", "3", "3", "3")
    assert "Next: python -m monai_calib run data" in call("bundle", "data", "data_segmentation_3d")
    assert (tmp_path / "data_segmentation_3d" / "configs" / "train.json").is_file()
    call("bundle", "acdc_segmentation_2d", "acdc_segmentation_2d")
    for path in (tmp_path / "acdc_segmentation_2d").rglob("*.*"):
        name = path.relative_to(tmp_path).as_posix()
        assert path.read_bytes() == (ROOT / "bundles" / name).read_bytes()
