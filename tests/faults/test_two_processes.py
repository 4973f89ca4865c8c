"""Of two processes that write one folder, the second is refused with a line, whatever the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from other_process import held
from readers import readers

from monai_calib.files import atomic_folder
from monai_calib.lock import FolderInUseError
from monai_calib.posthoc import calibrate

READERS = {(reader.name, reader.kind): reader for reader in readers()}


@pytest.mark.parametrize(
    ("reader", "output", "lock"),
    [
        (("measure .npz", "maps NPZ"), "out", ".eval.lock"),
        (("correct, maps", "maps NPZ"), ".", ".out.lock"),
        (("report", "JSON"), ".", ".page_tables.lock"),
        (("convert", "NIfTI"), ".out.partial", ".lock"),
        (("prepare volumes", "NIfTI"), ".out.partial", ".lock"),
    ],
    ids=["measure", "correct", "report", "convert", "prepare"],
)
def test_a_command_is_refused_while_another_process_writes_there(
    reader: tuple[str, str], output: str, lock: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    READERS[reader].prepare(tmp_path)
    capsys.readouterr()
    with held(tmp_path / output, lock) as pid:
        assert READERS[reader].call(tmp_path) == 1
        assert f"is in use by process {pid}" in capsys.readouterr().err.splitlines()[-1]
    assert READERS[reader].call(tmp_path) not in (1, 2)
    assert not list(tmp_path.glob(f"{output}/{lock}*")), "the lock's file goes with its holder"


def test_a_calibration_is_refused_while_another_writes_its_model(tmp_path: Path) -> None:
    def run() -> object:
        batches = [
            {"image": torch.randn(1, 1, 6, 6), "label": torch.randint(0, 2, (1, 1, 6, 6)), "case": [f"c{number}"]}
            for number in range(2)
        ]
        models, network = tmp_path / "models", torch.nn.Conv2d(1, 2, 1)
        return calibrate(
            network, batches, num_classes=2, models_dir=models, method="temperature", force=True, spacing=(1, 1)
        )

    with held(tmp_path, ".models.lock"), pytest.raises(FolderInUseError, match="in use by process"):
        run()
    assert not (tmp_path / "models").exists()
    run()
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_folder(tmp_path / "out") as partial:
            (partial / "a").write_text("a")

    write()
    with held(tmp_path, ".out.lock"), pytest.raises(FolderInUseError, match=r"out is in use"):
        write()
    write()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
