"""MONAI's handler and ours give the same class-wise error where they mean the same."""

from __future__ import annotations

import monai.handlers
import pytest
import torch
from ignite.engine import Engine

from monai_calib.metrics import CalibrationHistogram, classwise_ece


@pytest.mark.skipif(not hasattr(monai.handlers, "CalibrationError"), reason="MONAI has this handler from 1.6 on")
@pytest.mark.parametrize("num_bins", [15, 20])
def test_mean_over_images_is_that_of_monais_handler(num_bins: int) -> None:
    generator = torch.Generator().manual_seed(num_bins)
    logits = 3 * torch.randn(3, 4, 12, 11, generator=generator)
    label = torch.randint(0, 4, (3, 12, 11), generator=generator)
    hot = torch.nn.functional.one_hot(label, 4).movedim(-1, 1)
    engine = Engine(lambda engine, batch: batch)
    monai.handlers.CalibrationError(num_bins=num_bins).attach(engine, "theirs")
    theirs = engine.run([(logits[k : k + 1].softmax(1), hot[k : k + 1]) for k in range(3)]).metrics["theirs"]
    ours = []
    for k in range(3):
        histogram = CalibrationHistogram(4)
        histogram.update(logits[k : k + 1], label[k : k + 1, None])
        ours.append(classwise_ece(histogram, num_bins, absent="count"))
    assert sum(ours) / 3 == pytest.approx(theirs, abs=1e-6)
