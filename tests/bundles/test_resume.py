"""A resumed training is the training that was interrupted, or it is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import monai.handlers
import pytest
import torch
from bundle_runs import load_workflow, named, run_bundle, small_networks, tiny_patch, whole_story
from ignite.engine import Engine, Events
from other_process import held
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR

from monai_calib.handlers import TrainingCheckpoint
from monai_calib.lock import FolderLock

BUNDLES = {dims: named(f"msd_hippocampus_segmentation_{dims}d") for dims in (2, 3)}


class KilledError(Exception):
    """In the place of a signal."""


def options(dims: int, data: Path, run: Path, **settings: Any) -> dict[str, Any]:
    bundle = BUNDLES[dims]
    tiny = {**small_networks(bundle), "patch_size": tiny_patch(bundle), "epochs": 4, "batch_size": 2, "loss_name": "ce"}
    return {**tiny, "dataset_dir": str(data), "run_dir": str(run), **settings}


def train_until_killed(dims: int, epoch: int, **settings: Any) -> None:
    """End in the middle of the epoch after ``epoch``."""
    workflow = load_workflow(BUNDLES[dims], "train", **settings)

    def kill(engine: Engine) -> None:
        if engine.state.epoch == epoch + 1:
            raise KilledError

    workflow.trainer.add_event_handler(Events.ITERATION_COMPLETED, kill)
    with pytest.raises(RuntimeError) as caught:
        workflow.run()
    assert "KilledError" in repr(caught.value.__cause__)


def state_of(run: Path) -> dict[str, Any]:
    return torch.load(run / "models" / "checkpoint.ckpt", weights_only=True)


def record_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "models" / "training.json").read_text())


def assert_equal(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            if name != "seconds":
                assert_equal(first[name], second[name])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for item, other in zip(first, second, strict=True):
            assert_equal(item, other)
    else:
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


@pytest.mark.parametrize(
    ("dims", "settings"),
    [
        pytest.param(3, {"loss_name": "dice_ce+nacl"}, id="plain"),
        pytest.param(3, {"dropout": 0.3, "seed": 5}, id="dropout"),
        pytest.param(3, {"augmentation": True}, id="augmentation"),
        pytest.param(3, {"loss_name": "crac"}, id="multipliers"),
        pytest.param(3, {"loss_name": "dice_ce_fading"}, id="a Dice that fades"),
        pytest.param(2, {"samples_per_volume": 2}, id="2d"),
        pytest.param(3, {"num_workers": 2, "augmentation": True}, id="workers"),
        pytest.param(2, {"network_name": "attention_unet", "bfloat16": True}, id="running statistics, bfloat16"),
        pytest.param(3, {"network_name": "dynunet", "val_interval": 2}, id="deep supervision"),
    ],
)
def test_killed_and_resumed_gives_the_same_weights_bit_for_bit(
    dims: int, settings: dict[str, Any], phantom: Path, tmp_path: Path
) -> None:
    through, killed = (options(dims, phantom, tmp_path / name, **settings) for name in ("through", "killed"))
    run_bundle(BUNDLES[dims], "train", **through)
    train_until_killed(dims, epoch=2, **killed)
    assert state_of(tmp_path / "killed")["epoch"] == 2
    run_bundle(BUNDLES[dims], "train", **killed, resume=True)
    assert_equal(state_of(tmp_path / "through"), state_of(tmp_path / "killed"))
    assert_equal(record_of(tmp_path / "through"), record_of(tmp_path / "killed"))
    best = [torch.load(tmp_path / name / "models" / "model.pt", weights_only=True) for name in ("through", "killed")]
    assert_equal(*best)


def test_epochs_draw_other_crops(phantom: Path, tmp_path: Path) -> None:
    """Without learning, the loss of an epoch tells its crops; stopped after each, they were the same in every epoch."""
    settings = options(3, phantom, tmp_path, learning_rate=1e-12, epochs=3)
    losses: list[float] = []
    for epoch in range(1, 4):
        workflow = load_workflow(BUNDLES[3], "train", **settings, resume=epoch > 1)
        workflow.trainer.add_event_handler(
            Events.EPOCH_COMPLETED, lambda engine: losses.append(engine.state.metrics["train_loss"])
        )
        workflow.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: engine.terminate())
        workflow.run()
    assert len({round(loss, 9) for loss in losses}) == 3


@pytest.fixture(scope="module")
def two_epochs(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("two epochs")
    run_bundle(BUNDLES[3], "train", **options(3, phantom, run, epochs=2))
    return run


def test_other_settings_are_refused_with_both_values(two_epochs: Path, phantom: Path, tmp_path: Path) -> None:
    run = shutil.copytree(two_epochs, tmp_path / "run")
    changed = {"loss_name": "mbls", "seed": 7, "learning_rate": 0.1, "network_name": "segresnet", "dropout": 0.5}
    with pytest.raises(RuntimeError) as caught:
        run_bundle(BUNDLES[3], "train", **options(3, phantom, run, **changed, best_metric="other"), resume=True)
    told = whole_story(caught.value)
    for text in ("loss_name 'ce' then, 'mbls' now", "seed 0 then, 7 now", "learning_rate 0.004 then, 0.1 now"):
        assert text in told
    for text in ("network_name 'unet' then, 'segresnet' now", "dropout 0.0 then, 0.5 now", "'mean_dice' then, 'other'"):
        assert text in told
    assert "another run_dir" in told
    assert (run / "models" / "training.json").read_bytes() == (two_epochs / "models" / "training.json").read_bytes()


def test_more_epochs_follow_the_cosine_to_the_new_end(two_epochs: Path, phantom: Path, tmp_path: Path) -> None:
    run = shutil.copytree(two_epochs, tmp_path / "run")
    workflow = load_workflow(BUNDLES[3], "train", **options(3, phantom, run, epochs=4), resume=True)
    rates: list[float] = []
    workflow.trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda engine: rates.append(engine.optimizer.param_groups[0]["lr"])
    )
    workflow.run()
    assert rates == pytest.approx([0.002, 0.004 * (1 + torch.tensor(3 * torch.pi / 4).cos().item()) / 2])
    assert state_of(run)["lr_scheduler"]["_last_lr"] == pytest.approx([0.0])
    record = record_of(run)
    assert (record["epoch"], record["settings"]["epochs"]) == (4, 4)
    assert record["epochs_changed"] == [{"after_epoch": 2, "from": 2, "to": 4}]


def test_fewer_epochs_are_said(
    two_epochs: Path, phantom: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = shutil.copytree(two_epochs, tmp_path / "run")
    workflow = load_workflow(BUNDLES[3], "train", **options(3, phantom, run, epochs=1), resume=True)
    workflow.run()
    assert "epochs: 2 when the run was started, now 1" in caplog.text
    assert "Nothing is left to train: 2 epochs done" in caplog.text


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer, epochs: CosineAnnealingLR(optimizer, epochs),
        lambda optimizer, epochs: MultiStepLR(optimizer, [2, 3]),
        lambda optimizer, epochs: OneCycleLR(optimizer, 0.5, total_steps=epochs + 1),
    ],
    ids=["cosine", "steps", "one cycle"],
)
def test_a_schedule_run_anew_is_that_of_the_longer_training(make: Any, tmp_path: Path) -> None:
    def train(epochs: int, folder: Path, resume: bool = False) -> list[float]:
        network = torch.nn.Linear(1, 1)
        optimizer = SGD(network.parameters(), lr=0.1, momentum=0.9)
        schedule = make(optimizer, epochs)
        validator = Engine(lambda engine, batch: None)
        rates: list[float] = []

        def step(engine: Engine, batch: Any) -> None:
            optimizer.step()
            validator.state.metrics["dice"] = 0.5

        trainer = Engine(step)
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda: rates.append(optimizer.param_groups[0]["lr"]))
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: schedule.step())
        TrainingCheckpoint(
            folder, network, optimizer, schedule, validator, "dice", resume=resume, settings={"epochs": epochs}
        ).attach(trainer)
        trainer.run([0], max_epochs=epochs)
        return rates

    whole = train(5, tmp_path / "whole")
    train(2, tmp_path / "extended")
    assert train(5, tmp_path / "extended", resume=True) == pytest.approx(whole[2:])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "cannot be read as a PyTorch file of weights"),
        (lambda path: path.write_bytes(b""), "cannot be read as a PyTorch file of weights"),
        (lambda path: path.write_text("weights"), "cannot be read as a PyTorch file of weights"),
        (lambda path: torch.save({"model": {}}, path), "holds the weights of another network"),
        (lambda path: torch.save([1, 2], path), "expected a checkpoint"),
        (lambda path: torch.save({**torch.load(path), "optimizer": {}}, path), "does not fit this training"),
    ],
    ids=["truncated", "empty", "text", "another network", "a list", "no optimizer"],
)
def test_a_damaged_checkpoint_is_named(damage: Any, told: str, two_epochs: Path, phantom: Path, tmp_path: Path) -> None:
    run = shutil.copytree(two_epochs, tmp_path / "run")
    path = run / "models" / "checkpoint.ckpt"
    damage(path)
    with pytest.raises(RuntimeError) as caught:
        run_bundle(BUNDLES[3], "train", **options(3, phantom, run, epochs=2), resume=True)
    assert f"{path}: {told}" in whole_story(caught.value)
    assert "cases" not in str(caught.value.__cause__), "no case is to blame"


@pytest.mark.parametrize("workflow", ["evaluate", "calibrate"])
@pytest.mark.parametrize("name", ["model.pt", "training.json"])
def test_a_damaged_model_or_record_is_named(
    workflow: str, name: str, two_epochs: Path, phantom: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(two_epochs, tmp_path / "run")
    (run / "models" / name).write_bytes(b"{}")
    with pytest.raises(RuntimeError) as caught:
        run_bundle(BUNDLES[3], workflow, **small_networks(BUNDLES[3]), dataset_dir=str(phantom), run_dir=str(run))
    assert f"{run / 'models' / name}: " in whole_story(caught.value)


@pytest.mark.parametrize("workflow", ["evaluate", "calibrate"])
def test_weights_of_another_network_are_named(workflow: str, two_epochs: Path, phantom: Path) -> None:
    given = {**small_networks(BUNDLES[3]), "dataset_dir": str(phantom), "run_dir": str(two_epochs)}
    with pytest.raises(RuntimeError) as caught:
        run_bundle(BUNDLES[3], workflow, **given, network_name="segresnet", output_dir=str(two_epochs / "other"))
    model = two_epochs / "models" / "model.pt"
    assert f"{model}: holds the weights of another network than SegResNet" in whole_story(caught.value)


def test_a_model_of_another_network_is_not_trained_over(two_epochs: Path, phantom: Path, tmp_path: Path) -> None:
    """MONAI Label puts a loader first that takes what fits of ``models/model.pt``, and trains what train.json names."""
    run = shutil.copytree(two_epochs, tmp_path / "run")
    model, config = run / "models" / "model.pt", json.loads((BUNDLES[3] / "configs" / "train.json").read_text())
    loader = {"_target_": "CheckpointLoader", "load_path": str(model), "load_dict": {"model": "$@network"}}
    handlers = {"train#handlers": [{**loader, "strict": False}, *config["train"]["handlers"]]}
    given = {**options(3, phantom, run, epochs=1), **handlers}
    before = model.read_bytes()
    with pytest.raises(RuntimeError) as caught:
        run_bundle(BUNDLES[3], "train", **given, network_name="segresnet")
    assert "expected the weights of 'segresnet', which is to be trained, got those of 'unet'" in whole_story(
        caught.value
    )
    assert model.read_bytes() == before
    run_bundle(BUNDLES[3], "train", **given)
    assert model.read_bytes() != before


def test_a_checkpoint_of_the_former_name_is_resumed(two_epochs: Path, phantom: Path, tmp_path: Path) -> None:
    run = shutil.copytree(two_epochs, tmp_path / "run")
    state = state_of(run)
    for name in ("settings", "metric", "scaler"):
        del state[name]
    torch.save(state, run / "models" / "last.pt")
    (run / "models" / "checkpoint.ckpt").unlink()
    run_bundle(BUNDLES[3], "train", **options(3, phantom, run, epochs=3), resume=True)
    assert state_of(run)["epoch"] == 3


def test_monais_loader_reads_the_checkpoint(two_epochs: Path, phantom: Path, tmp_path: Path) -> None:
    expected = state_of(two_epochs)["model"]
    network = load_workflow(BUNDLES[3], "train", **options(3, phantom, tmp_path)).parser.get_parsed_content("network")
    assert not all(torch.equal(network.state_dict()[name].cpu(), value) for name, value in expected.items())
    path = str(two_epochs / "models" / "checkpoint.ckpt")
    monai.handlers.CheckpointLoader(path, {"model": network})(Engine(lambda engine, batch: None))
    for name, value in expected.items():
        assert torch.equal(network.state_dict()[name].cpu(), value), name


def test_a_folder_in_which_another_process_trains_is_refused(phantom: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    with held(models) as process, pytest.raises(RuntimeError) as caught:
        run_bundle(BUNDLES[3], "train", **options(3, phantom, tmp_path, epochs=1))
    assert f"{models} is in use by process {process}" in whole_story(caught.value)
    run_bundle(BUNDLES[3], "train", **options(3, phantom, tmp_path, epochs=1))
    with FolderLock(models, "training"):
        pass
