"""Boundary-weighted consistency: the weight map, and what a training step gets from it."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from monai_calib.handlers.consistency import BoundaryConsistency, boundary_nearness, random_intensity
from monai_calib.losses import build_loss


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), axes=st.integers(1, 3), radius=st.integers(1, 4))
def test_nearness_equals_a_search_over_all_pairs(seed: int, axes: int, radius: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (9, 5, 4)[:axes]
    label = (torch.rand(shape, generator=generator) > 0.97).int() * 2
    nearness = boundary_nearness(label[None], radius)[0]
    voxels = list(itertools.product(*(range(n) for n in shape)))
    changes = [
        v
        for v in voxels
        if any(label[u] != label[v] for u in voxels if max(abs(a - b) for a, b in zip(u, v, strict=True)) == 1)
    ]
    for v in voxels:
        r = min((max(abs(a - b) for a, b in zip(u, v, strict=True)) for u in changes), default=radius)
        assert nearness[v].item() == pytest.approx(max(radius - r, 0) / radius)


def _trainer(network: nn.Module, data: list[dict[str, Tensor]], rate: float = 0.1) -> SupervisedTrainer:
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=data,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), rate),
        loss_function=build_loss("ce"),
        decollate=False,
    )


def _data() -> list[dict[str, Tensor]]:
    label = torch.zeros(2, 1, 8, 6, 5)
    label[:, :, 3:, 2:] = 1
    return [{"image": torch.randn(2, 1, 8, 6, 5), "label": label}]


def test_a_network_that_commutes_with_flips_pays_for_intensities_only() -> None:
    torch.manual_seed(0)
    trainer = _trainer(nn.Conv3d(1, 2, 1), _data())
    BoundaryConsistency(intensity=lambda image: image).attach(trainer)
    trainer.run()
    assert trainer.state.output["consistency"].item() == pytest.approx(0.0, abs=1e-12)
    trainer = _trainer(nn.Conv3d(1, 2, 1), _data())
    BoundaryConsistency().attach(trainer)
    trainer.run()
    assert trainer.state.output["consistency"].item() > 0


def test_one_step_is_the_step_of_the_summed_loss() -> None:
    torch.manual_seed(0)
    network, data = nn.Conv3d(1, 2, 3, padding=1), _data()
    expected = copy.deepcopy(network)
    trainer = _trainer(network, data)
    BoundaryConsistency(largest=2.0, smallest=0.5, radius=2, flip=False, intensity=lambda image: 2 * image).attach(
        trainer
    )
    trainer.run()

    image, label = data[0]["image"], data[0]["label"]
    logits, other = expected(image), expected(2 * image)
    weight = 0.5 + 2.0 * boundary_nearness(label[:, 0].int(), 2)
    loss = build_loss("ce")(logits, label) + (weight.unsqueeze(1) * (logits - other) ** 2).mean()
    loss.backward()
    torch.optim.SGD(expected.parameters(), 0.1).step()
    assert trainer.state.output["loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    for got, wanted in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(got, wanted)


def test_random_intensity_keeps_the_shape_and_stays_close() -> None:
    torch.manual_seed(0)
    image = 5 + 2 * torch.randn(3, 1, 16, 16)
    other = random_intensity(image)
    assert other.shape == image.shape
    assert not torch.equal(other, image)
    assert all(
        torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.99 for a, b in zip(image, other, strict=True)
    )


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        BoundaryConsistency(largest=-1.0)
    with pytest.raises(ValueError, match="at least 1 voxel"):
        BoundaryConsistency(radius=0)
