"""The version stands in one place; what must repeat it is held to it, and nothing else names it."""

from __future__ import annotations

import json
import re

import pytest
from written_pages import ROOT

from monai_calib import __version__

NAMED = re.compile(rf"(monai_calib\W{{1,6}}|_v|version: ){re.escape(__version__)}")
REPEATED = {"monai_calib/version.py", "CITATION.cff", "CHANGELOG.md"}


def test_bundles_are_of_this_version() -> None:
    for path in sorted(ROOT.glob("bundles/*/configs/metadata.json")):
        metadata = json.loads(path.read_text(encoding="utf-8"))
        assert metadata["version"] == metadata["required_packages_version"]["monai_calib"] == __version__
        assert __version__ in metadata["changelog"]


@pytest.mark.parametrize("folder", ["monai_calib", "docs", "data_scripts", ".github", "."])
def test_no_other_file_repeats_it(folder: str) -> None:
    """Else the next release forgets one."""
    found = []
    for path in (ROOT / folder).glob("*" if folder == "." else "**/*"):
        if path.suffix in {".py", ".md", ".json", ".yaml", ".yml", ".cfg", ".toml", ".j2", ".cff"}:
            name = path.relative_to(ROOT).as_posix()
            if NAMED.search(path.read_text(encoding="utf-8")) and name not in REPEATED:
                found.append(name)
    assert not found
