"""A calibration that dies while it exports has left no record that says it is done."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from monai_calib.posthoc import NoCorrection, model_files
from monai_calib.posthoc.files import FOLDED, PARAMETERS, PROGRAM, TORCHSCRIPT, calibrated_model

IMAGE = torch.zeros(1, 1, 8, 8)
CORRECTION = NoCorrection(2)
ABOUT = {"model": FOLDED, "run": {}}


def write(folder: Path, bias: float) -> Path:
    network = nn.Conv2d(1, 2, 1)
    nn.init.constant_(network.bias, bias)  # type: ignore[arg-type]
    return model_files.write_model(network, CORRECTION, IMAGE, folder, ABOUT, ["pt2", "ts"])


def die(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("dying", ["export_program", "export_torchscript"])
def test_killed_while_it_exports_it_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dying: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model_files, dying, die)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, 1.0)
    assert not (tmp_path / PARAMETERS).exists()
    with pytest.raises(FileNotFoundError, match="calibrate the run"):
        calibrated_model(tmp_path)

    write(tmp_path, 1.0)
    assert Path(calibrated_model(tmp_path)).name == FOLDED
    assert {path.name for path in tmp_path.iterdir()} == {FOLDED, PARAMETERS, PROGRAM, TORCHSCRIPT}


def test_a_former_record_does_not_speak_for_what_a_killed_call_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(model_files, "export_torchscript", die)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, 2.0)
    with pytest.raises(ValueError, match=r"expected model_calibrated\.pt with SHA-256"):
        calibrated_model(tmp_path)
