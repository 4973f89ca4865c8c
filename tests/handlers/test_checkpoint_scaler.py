"""A resumed training in mixed precision goes on with the scale of the gradients that it had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_calib.handlers import TrainingCheckpoint


def trained(folder: Path, epochs: int, resume: bool) -> tuple[torch.Tensor, dict[str, Any]]:
    """Weights and scaler after so many of four epochs; the third step overflows, which halves the scale."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=3)
    validator = Engine(lambda engine, batch: None)
    validator.state.metrics["dice"] = 0.5

    def step(engine: Engine, batch: int) -> None:
        optimizer.zero_grad()
        overflow = float("inf") if engine.state.iteration == 3 else 1.0
        scaler.scale(network(torch.full((2, 3), 0.1 * engine.state.iteration)).sum() * overflow).backward()
        scaler.step(optimizer)
        scaler.update()

    trainer = Engine(step)
    trainer.scaler = scaler  # type: ignore[attr-defined]  # as MONAI's SupervisedTrainer has it
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: schedule.step())
    TrainingCheckpoint(
        folder, network, optimizer, schedule, validator, "dice", resume=resume, settings={"epochs": 4}
    ).attach(trainer)
    trainer.run([0, 1], max_epochs=epochs)
    return network.weight.detach().clone(), scaler.state_dict()


def test_scale_and_weights_are_those_of_the_uninterrupted_training(tmp_path: Path) -> None:
    weights, scale = trained(tmp_path / "whole", 4, False)
    trained(tmp_path / "killed", 2, False)
    again, its_scale = trained(tmp_path / "killed", 4, True)
    assert torch.equal(weights, again)
    assert its_scale == scale
    assert scale["scale"] == 2.0**8  # halved once, doubled once: a new scaler would have doubled once
