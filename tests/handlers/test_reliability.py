"""Reliability diagrams: what is drawn is what was counted, and where it goes."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine

from monai_calib.handlers import CalibrationHandler, ReliabilityDiagramHandler
from monai_calib.handlers.reliability import draw_reliability
from monai_calib.metrics import CalibrationHistogram, reliability_curve

pytest.importorskip("matplotlib")


def case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(1, 2, 16, 16, generator=generator).softmax(1)
    return prediction, torch.randint(0, 2, (1, 1, 16, 16), generator=generator)


def test_points_and_bars_are_the_curve():
    hist = CalibrationHistogram(2)
    hist.update(*case(), from_logits=False)
    figure = draw_reliability(hist, 10, "all")
    curve = reliability_curve(hist, 10)
    above, below = figure.axes
    torch.testing.assert_close(torch.as_tensor(above.lines[1].get_xdata()), curve.confidence, equal_nan=True)
    torch.testing.assert_close(torch.as_tensor(above.lines[1].get_ydata()), curve.accuracy, equal_nan=True)
    assert [bar.get_height() for bar in below.patches] == pytest.approx((curve.count / 256).tolist())
    assert draw_reliability(CalibrationHistogram(2)).axes  # nothing seen: empty axes, no error


def test_files_and_tensorboard(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    engine = Engine(lambda engine, batch: batch)
    calibration = CalibrationHandler(2, output_transform=lambda output: output, spacing=(1.0, 1.0))
    calibration.attach(engine)
    with tensorboard.SummaryWriter(str(tmp_path / "logs")) as writer:
        handler = ReliabilityDiagramHandler(
            calibration, ["boundary:2mm"], output_dir=tmp_path / "eval", summary_writer=writer
        )
        handler.attach(engine)
        engine.run([case()], max_epochs=2)
    assert [file.name for file in (tmp_path / "eval").iterdir()] == ["reliability_boundary2mm.png"]
    assert (tmp_path / "eval" / "reliability_boundary2mm.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert [event.step for event in events.Images("reliability/boundary2mm")] == [1, 2]


def test_wrong_arguments_are_refused(tmp_path):
    calibration = CalibrationHandler(2, ["paper"])
    with pytest.raises(ValueError, match="output_dir for PNG files"):
        ReliabilityDiagramHandler(calibration)
    with pytest.raises(ValueError, match="no protocol measures in 'union'; expected one of foreground"):
        ReliabilityDiagramHandler(calibration, ["union"], output_dir=tmp_path)
