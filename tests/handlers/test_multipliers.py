"""The multipliers of CRaC and CALS: their update, over ranks, and through a checkpoint, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import CheckpointLoader, CheckpointSaver, ValidationHandler
from monai.losses import DeepSupervisionLoss
from torch import Tensor, nn

from monai_calib.handlers.multipliers import MultiplierHandler
from monai_calib.handlers.ranks import leave_process_group
from monai_calib.losses import build_loss
from monai_calib.losses.adaptive import AdaptivePenalty
from monai_calib.losses.base import ConstrainedLoss
from monai_calib.losses.lagrangian import PENALTY_LAGRANGIANS
from monai_calib.losses.target import prepare

Batch = dict[str, Tensor]


def batches(seed: int, number: int) -> list[Batch]:
    """Noisy two-dimensional images of a square; batches of different sizes, so that means of means would be wrong."""
    generator = torch.Generator().manual_seed(seed)
    data = []
    for i in range(number):
        label = torch.zeros(1 + i % 2, 1, 8, 8)
        label[:, :, 2:6, 3 : 5 + i] = 1
        label[:, :, 6:, :2] = 2
        data.append({"image": label + torch.randn(label.shape, generator=generator), "label": label})
    return data


def evaluator_of(network: nn.Module, data: Sequence[Batch]) -> SupervisedEvaluator:
    return SupervisedEvaluator(torch.device("cpu"), data, network)


def penalty_of(loss: nn.Module) -> AdaptivePenalty:
    return next(part for part in loss.modules() if isinstance(part, AdaptivePenalty))


def state_of(loss: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in penalty_of(loss).state_dict().items()}


@pytest.mark.parametrize("name", ["crac", "cals"])
@pytest.mark.parametrize("function", ["phr", "p2", "p3"])
def test_update_is_the_mean_slope_over_all_validation_voxels(name: str, function: str) -> None:
    torch.manual_seed(0)
    network, data = nn.Conv2d(1, 3, 3, padding=1), batches(0, 3)
    arguments = {"penalty_function": function, "multiplier": 0.2, "margin": 1.5}
    loss = build_loss(name, num_classes=3, **arguments)
    rho = penalty_of(loss).first_rho
    evaluator = evaluator_of(network, data)
    MultiplierHandler(loss).attach(evaluator)
    evaluator.run()

    # independently: autograd of the penalty of every voxel and class in h, through its value alone
    slopes: list[list[float]] = [[] for _ in range(2 * 3)]
    fresh = penalty_of(build_loss(name, num_classes=3, **arguments))
    for batch in data:
        logits = network(batch["image"]).detach()
        target = prepare(logits, batch["label"])
        outer = fresh.outer(target)
        h = fresh.constraint(logits, target, outer).requires_grad_()
        PENALTY_LAGRANGIANS[function].value(h, torch.tensor(0.2), torch.tensor(rho)).sum().backward()
        assert h.grad is not None
        region = torch.zeros_like(target.index, dtype=torch.long) if outer is None else outer.long()
        for k in range(3):
            for r in range(len(fresh.regions)):
                # outside its region a constraint is 0, and the slope there is the multiplier
                slopes[3 * r + k] += h.grad[:, k][region == r].tolist() + [0.2] * int((region != r).sum())
    expected = [float(np.clip(np.mean(values), 1e-6, 1e6)) for values in slopes if values]
    assert penalty_of(loss).multiplier.flatten().tolist() == pytest.approx(expected, rel=1e-5)
    for region, row in zip(fresh.regions, penalty_of(loss).multiplier, strict=True):
        for k in range(3):
            assert evaluator.state.metrics[f"multiplier_{region}_class{k}"] == row[k].item()
        assert isinstance(evaluator.state.metrics[f"rho_{region}_max"], float)
        assert isinstance(evaluator.state.metrics[f"constraint_{region}_mean"], float)


class Scaled(nn.Module):
    """Logits that a test may scale between validations."""

    def __init__(self, scale: Sequence[float]) -> None:
        super().__init__()
        self.scale = torch.tensor(scale)

    def forward(self, image: Tensor) -> Tensor:
        return torch.ones_like(image) * self.scale.view(1, -1, 1, 1)


def test_rho_grows_for_the_constraints_that_did_not_fall() -> None:
    network = Scaled([0.0, -10.0, -20.0])
    loss = build_loss("cals", margin=1.0, num_classes=3)
    evaluator = evaluator_of(network, batches(0, 1))
    MultiplierHandler(loss, rho_every=2, rho_largest=1.3).attach(evaluator)
    rhos = []
    # distances of the three classes: 0, d_1, d_2; the constraint is d - 1
    for scale in ([0, -10, -20], [0, -10, -15], [0, -9, -14], [0, -8, -12.5], [0, -8, -9], [0, -8, -9]):
        network.scale = torch.tensor(scale, dtype=torch.float32)
        evaluator.run()
        rhos.append(penalty_of(loss).rho[0].tolist())
    # class 0 keeps its constraint with room to spare
    assert [row[0] for row in rhos] == [1.0] * 6
    # class 1: 9 -> 9 grows at the second look; 8 -> 7 falls below 0.9 * 8; 7 -> 7 grows, up to 1.3
    assert [row[1] for row in rhos] == pytest.approx([1, 1.2, 1.2, 1.2, 1.2, 1.3])
    # class 2: 19 -> 14 falls; 13 -> 11.5 falls; 8 -> 8 grows
    assert [row[2] for row in rhos] == pytest.approx([1, 1, 1, 1, 1, 1.2])
    assert int(penalty_of(loss).updates) == 6


def test_a_region_without_a_voxel_keeps_its_multipliers_and_bounds_hold() -> None:
    data = [{"image": torch.zeros(1, 1, 8, 8), "label": torch.zeros(1, 1, 8, 8)}]
    loss = build_loss("crac", num_classes=2, multiplier=0.3)
    evaluator = evaluator_of(Scaled([100.0, 0.0]), data)
    MultiplierHandler(loss, largest=2.0, smallest=0.01).attach(evaluator)
    evaluator.run()
    inner, outer = penalty_of(loss).multiplier.tolist()
    assert inner == pytest.approx([2.0, 0.3])  # 0.3 + 0.1 * 95, bounded; 0.3 + 0.1 * 0
    assert outer == pytest.approx([0.3, 0.3])
    assert penalty_of(loss).last_constraint[1].isnan().all()


@pytest.mark.parametrize("name", ["crac+mdca", "deep supervision", "ignore"])
def test_finds_the_penalty_wherever_it_is(name: str) -> None:
    ignore = {"ignore_index": 2} if name == "ignore" else {}
    inner = build_loss("crac" if name != "crac+mdca" else name, num_classes=3, **ignore)
    loss = DeepSupervisionLoss(inner) if name == "deep supervision" else inner
    evaluator = evaluator_of(Scaled([3.0, 1.0, 0.0]), batches(0, 2))
    MultiplierHandler(loss).attach(evaluator)
    evaluator.run()
    assert int(penalty_of(loss).updates) == 1
    assert penalty_of(loss).multiplier[:, :2].min() > 1e-3
    # the third class has logits of 0: only its own voxels break its constraint, and they are ignored in one case
    assert (penalty_of(loss).multiplier[:, 2] > 1e-3).all() == (name != "ignore")


def test_a_loss_without_multipliers_is_left_alone() -> None:
    evaluator = evaluator_of(Scaled([3.0, 1.0, 0.0]), batches(0, 1))
    MultiplierHandler(build_loss("nacl")).attach(evaluator)
    evaluator.run()
    assert not any("multiplier" in key for key in evaluator.state.metrics)
    for arguments in ({"rho_every": 0}, {"rho_factor": 0.5}, {"smallest": 0.0}, {"smallest": 2.0, "largest": 1.0}):
        with pytest.raises(ValueError, match=r"must be at least 1|Multipliers need"):
            MultiplierHandler(build_loss("crac"), **arguments)


def _validate(loss: nn.Module, network: nn.Module, data: Sequence[Batch], epochs: int) -> None:
    """Validation epochs of one rank; ignite refuses an empty loader, so the events are called by hand."""
    handler = MultiplierHandler(loss, rho_every=1)
    engine = evaluator_of(network, data)
    for _ in range(epochs):
        handler.epoch_started(engine)
        for batch in data:
            engine.state.output = {"pred": network(batch["image"]), "label": batch["label"]}
            handler.forward_completed(engine)
        handler.epoch_completed(engine)


def _rank(rank: int, folder: str, shares: Sequence[Sequence[int]]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(shares))
    torch.manual_seed(0)
    network, data = nn.Conv2d(1, 3, 3, padding=1), batches(0, 3)
    states = {}
    for name in ("crac", "cals"):
        loss = build_loss(name, margin=0.5)  # the number of classes is not known to a rank without a case
        _validate(loss, network, [data[i] for i in shares[rank]], epochs=2)
        states[name] = state_of(loss)
    torch.save(states, f"{folder}/{rank}.pt")
    leave_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("shares", [[[0, 1], [2]], [[0, 1, 2], []]], ids=["both ranks", "an empty rank"])
def test_ranks_agree_with_one_process(tmp_path: Path, shares: list[list[int]]) -> None:
    mp.spawn(_rank, (str(tmp_path), shares), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    torch.manual_seed(0)
    network, data = nn.Conv2d(1, 3, 3, padding=1), batches(0, 3)
    for name in ("crac", "cals"):
        loss = build_loss(name, margin=0.5)
        _validate(loss, network, data, epochs=2)
        for key, value in state_of(loss).items():
            assert torch.equal(first[name][key], second[name][key])
            torch.testing.assert_close(first[name][key], value)


def _train(folder: Path, name: str, until: int, resume: bool) -> tuple[dict[str, Tensor], ConstrainedLoss]:
    """A real trainer with validation every epoch; Adam, so that the optimizer has a state of its own."""
    torch.manual_seed(3 if not resume else 99)  # a resumed process starts from other random numbers
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    loss = build_loss(name, margin=0.5)
    evaluator = evaluator_of(network, batches(1, 2))
    MultiplierHandler(loss, rho_every=2).attach(evaluator)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=until,
        train_data_loader=batches(0, 3),
        network=network,
        optimizer=optimizer,
        loss_function=loss,
    )
    ValidationHandler(1, evaluator).attach(trainer)
    saved: dict[str, Any] = {"network": network, "optimizer": optimizer, "loss": loss, "trainer": trainer}
    CheckpointSaver(str(folder), saved, save_final=True, final_filename="last.pt").attach(trainer)
    if resume:
        CheckpointLoader(str(folder / "last.pt"), saved).attach(trainer)
    trainer.run()
    assert trainer.state.epoch == until
    return {key: value.clone() for key, value in network.state_dict().items()}, loss


@pytest.mark.parametrize("name", ["crac", "cals", "dice_ce+crac"])
def test_a_resumed_run_continues_bit_for_bit(tmp_path: Path, name: str) -> None:
    uninterrupted, loss = _train(tmp_path / "whole", name, until=6, resume=False)
    _train(tmp_path / "parts", name, until=3, resume=False)
    resumed, loss_resumed = _train(tmp_path / "parts", name, until=6, resume=True)
    assert all(torch.equal(uninterrupted[key], resumed[key]) for key in uninterrupted)
    for key, value in state_of(loss).items():
        assert torch.equal(value, state_of(loss_resumed)[key])
    # and the multipliers made a difference, or this would prove nothing
    assert penalty_of(loss).multiplier.max() > 0.01
    assert penalty_of(loss).rho.max() > penalty_of(loss).first_rho
