"""An evaluation's files are one result: a reader never sees half of it, nor files of two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from evaluation import evaluator, write_cases
from ignite.engine import Engine
from monai.handlers import MetricsSaver

from monai_calib.handlers import CalibrationHandler, EvaluatedFolder, SlicePreviewHandler, SurfaceHandler
from monai_calib.lock import FolderInUseError
from monai_calib.metrics import read_evaluated


def names(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def evaluation(folder: Path, items: list[dict[str, str]]) -> Engine:
    """The handlers of a bundle, in its order."""
    evaluated = EvaluatedFolder(folder)
    handlers = [
        SurfaceHandler(3),
        CalibrationHandler(3, output_dir=evaluated.partial),
        SlicePreviewHandler(evaluated.partial),
        MetricsSaver(str(evaluated.partial), metric_details="hd95_mm", batch_transform=lambda b: [b[0]["image"].meta]),
        evaluated,
    ]
    return evaluator(items, handlers)


def test_everything_of_a_run_appears_at_once(tmp_path: Path) -> None:
    items, folder = write_cases(tmp_path, 2), tmp_path / "run" / "eval"
    engine = evaluation(folder, items)
    seen: list[object] = []
    engine.add_event_handler("ITERATION_COMPLETED", lambda engine: seen.append(folder.exists()))
    engine.run()
    assert seen == [False, False]
    files = ["calibration.json", "calibration.npz", "hd95_mm_raw.csv", "metrics.csv"]
    assert names(folder) == [*files, "previews/scan_0.npz", "previews/scan_1.npz"]
    assert [case.case for case in read_evaluated(folder).cases] == ["scan_0", "scan_1"]

    # again, on fewer cases: until it has ended the former one is whole, and afterwards nothing of it is left
    again = evaluation(folder, items[:1])
    again.add_event_handler("ITERATION_COMPLETED", lambda engine: seen.append(names(folder)))
    again.run()
    assert seen[2] == [*files, "previews/scan_0.npz", "previews/scan_1.npz"]
    assert names(folder) == [*files, "previews/scan_0.npz"]


def test_a_failed_evaluation_leaves_the_former_one(tmp_path: Path) -> None:
    items = write_cases(tmp_path, 2)
    folder = tmp_path / "run" / "eval"
    evaluation(folder, items).run()
    before = names(folder)
    engine = evaluation(folder, items[:1])
    engine.add_event_handler("ITERATION_COMPLETED", lambda engine: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.run()
    assert names(folder) == before
    evaluation(folder, items).run()  # and the next one may


def test_a_killed_evaluation_is_never_seen_and_cleared_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "eval"
    code = f"""
import os, signal
from pathlib import Path
from ignite.engine import Engine
from monai_calib.handlers.evaluated_folder import EvaluatedFolder
folder = EvaluatedFolder({str(folder)!r})
def step(engine, batch):
    Path(folder.partial, "calibration.json").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
engine = Engine(step)
folder.attach(engine)
engine.run([0])
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert not folder.exists()
    assert not list(tmp_path.glob("eval*"))
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    evaluated = EvaluatedFolder(folder)
    engine = Engine(lambda engine, batch: (evaluated.partial / "new.txt").write_text("new"))
    evaluated.attach(engine)
    engine.run([0])
    assert names(folder) == ["new.txt"]


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    evaluated = EvaluatedFolder(tmp_path / "eval")
    code = f"""
from ignite.engine import Engine
from monai_calib.handlers.evaluated_folder import EvaluatedFolder
engine = Engine(lambda engine, batch: None)
EvaluatedFolder({str(tmp_path / "eval")!r}).attach(engine)
engine.run([0])
"""

    def other(engine: Engine, batch: object) -> str:
        return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True).stderr

    engine = Engine(other)
    evaluated.attach(engine)
    engine.run([0])
    assert FolderInUseError.__name__ in engine.state.output
    assert "evaluating into eval" in engine.state.output
