"""A run that turns into NaN stops before the weights do, and names the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.handlers import CheckpointSaver, StatsHandler

from monai_calib.handlers import AlphaSchedule, NonFiniteGuard
from monai_calib.losses import build_loss


def _trainer(batches: list[dict[str, Any]], handlers: list[Any], **settings: Any) -> SupervisedTrainer:
    network = settings.pop("network", torch.nn.Conv2d(1, 3, 1))
    return SupervisedTrainer(
        device="cpu",
        max_epochs=settings.pop("max_epochs", 1),
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=settings.pop("lr", 0.1)),
        loss_function=settings.pop("loss", build_loss("dice_ce+nacl_outer")),
        train_handlers=handlers,
    )


def _batch(case: str, **changed: Any) -> dict[str, Any]:
    return {"image": torch.randn(2, 1, 4, 4), "label": torch.ones(2, 1, 4, 4), "case": [case, case + "b"], **changed}


def test_nan_stops_the_run_names_the_batch_and_keeps_the_weights(tmp_path: Path) -> None:
    bad = _batch("c2", image=torch.full((2, 1, 4, 4), float("nan")))
    network = torch.nn.Conv2d(1, 3, 1)
    saver = CheckpointSaver(str(tmp_path), {"model": network}, save_final=True, final_filename="final.pt")
    trainer = _trainer([_batch("c1"), bad, _batch("c3")], [NonFiniteGuard(), saver], network=network)
    trainer.logger.disabled = True
    with pytest.raises(FloatingPointError, match=r"epoch 1, iteration 2, cases c2, c2b: an image holds voxels"):
        trainer.run()
    saved = torch.load(tmp_path / "final.pt", weights_only=True)
    assert all(value.isfinite().all() for value in saved.values())
    assert all(parameter.isfinite().all() for parameter in trainer.network.parameters())


@pytest.mark.parametrize("other", [[], [StatsHandler(output_transform=lambda x: None)]])
def test_an_error_in_the_step_names_the_batch_and_is_not_swallowed(other: list[Any]) -> None:
    bad = _batch("c2", label=torch.full((2, 1, 4, 4), 3.0))
    trainer = _trainer([_batch("c1"), bad], [NonFiniteGuard(), *other])
    trainer.logger.disabled = True
    with pytest.raises(ValueError, match=r"expected whole class numbers from 0 to 2, got 3.*cases c2, c2b"):
        trainer.run()


def test_a_finite_run_goes_on() -> None:
    trainer = _trainer([_batch("c1"), _batch("c2")], [NonFiniteGuard()], max_epochs=3)
    trainer.run()
    assert trainer.state.iteration == 6


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_batch_is_named_without_waiting_in_every_step() -> None:
    guard = NonFiniteGuard()
    trainer = _trainer([_batch("c1"), _batch("c2", label=torch.full((2, 1, 4, 4), 3.0))], [guard])
    trainer.state.device = torch.device("cuda")
    trainer.network.cuda()
    trainer.logger.disabled = True
    with pytest.raises(FloatingPointError, match=r"iteration 2, cases c2, c2b: the label runs from 3 to 3"):
        trainer.run()


def test_alpha_follows_the_epoch() -> None:
    loss = build_loss("mbls", alpha=0.1)
    seen: list[float] = []
    trainer = _trainer([_batch("c1")], [AlphaSchedule(loss, "add", amount=0.2, every=2)], loss=loss, max_epochs=5)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(loss.alpha))
    trainer.run()
    assert seen == pytest.approx([0.1, 0.1, 0.3, 0.3, 0.5])
    for wrong in ({"mode": "sine"}, {"every": 0}, {"amount": -1.0}):
        with pytest.raises(ValueError, match="must be"):
            AlphaSchedule(loss, **wrong)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda trainer: trainer.network.weight.grad.fill_(float("nan")), "the gradient of weight is not finite"),
        (
            lambda trainer: trainer.optimizer.state[trainer.network.bias]["exp_avg_sq"].fill_(float("inf")),
            "memory of bias",
        ),
    ],
    ids=["gradient", "memory of the optimizer"],
)
def test_a_gradient_that_is_not_finite_ends_the_epoch_and_blames_no_case(spoil: Any, said: str) -> None:
    network = torch.nn.Conv2d(1, 3, 1)
    trainer = _trainer([_batch("c1")], [NonFiniteGuard()], network=network, max_epochs=3)
    trainer.optimizer = torch.optim.Adam(network.parameters())
    saved = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: spoil(trainer))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: saved.append(trainer.state.epoch))
    trainer.logger.disabled = True
    with pytest.raises(
        FloatingPointError, match=f"Epoch 2: .*{said}.* although every loss was. It is not the data"
    ) as no:
        trainer.run()
    assert "c1" not in str(no.value)
    assert saved == [1], "no checkpoint is written after it"


def test_a_network_that_overflows_on_finite_images_is_not_blamed_on_them() -> None:
    network = torch.nn.Conv2d(1, 3, 1)
    torch.nn.init.constant_(network.weight, 3e38)
    trainer = _trainer([_batch("c1", image=torch.full((2, 1, 4, 4), 1e9))], [NonFiniteGuard()], network=network)
    trainer.logger.disabled = True
    with pytest.raises(
        FloatingPointError, match="output is not finite, although the images are; lower the learning rate"
    ):
        trainer.run()


@pytest.mark.parametrize("event", [Events.EPOCH_COMPLETED, Events.STARTED])
def test_an_error_outside_the_step_blames_no_case(event: Events) -> None:
    def fail() -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    trainer = _trainer([_batch("c1"), _batch("c2")], [NonFiniteGuard()])
    trainer.add_event_handler(event, fail)
    trainer.logger.disabled = True
    with pytest.raises(RuntimeError, match=r"^basic_ios::clear: iostream error$"):
        trainer.run()


def test_an_error_of_loading_does_not_blame_the_batch_before() -> None:
    class Batches(list[Any]):
        def __iter__(self) -> Any:
            yield self[0]
            raise RuntimeError("cannot read 'c2.nii.gz'")

    trainer = _trainer(Batches([_batch("c1"), _batch("c2")]), [NonFiniteGuard()])
    trainer.logger.disabled = True
    with pytest.raises(RuntimeError, match=r"^cannot read 'c2.nii.gz'$"):
        trainer.run()
