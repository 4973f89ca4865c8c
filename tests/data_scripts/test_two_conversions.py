"""Of two conversions of one folder one is refused with one line, and masks in colours are not averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from official_layouts import msd_hippocampus, script
from PIL import Image

from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import SourceError
from monai_calib.datasets.pictures import read_mask
from monai_calib.lock import FolderLock


def test_the_second_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = msd_hippocampus(tmp_path / "download").source
    with FolderLock(tmp_path / ".out.partial", "a conversion"):
        monkeypatch.setattr("monai_calib.lock._held", {})  # as another process sees it
        assert run(script("msd_hippocampus"), [str(source), str(tmp_path / "out")]) == 1
        monkeypatch.undo()
    [line] = capsys.readouterr().err.splitlines()
    assert "in use by process" in line
    assert "a conversion" in line
    assert run(script("msd_hippocampus"), [str(source), str(tmp_path / "out")]) == 0


def test_a_mask_in_colours_is_refused(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), "P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    mask.save(tmp_path / "mask.png")
    with pytest.raises(SourceError, match=r"mask\.png: a mask in colours"):
        read_mask([tmp_path / "mask.png"])
