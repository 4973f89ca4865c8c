"""Arguments that all losses share, and presets that say only what differs from their class."""

from __future__ import annotations

import inspect

import pytest
import torch

from monai_calib.losses import PRESETS, build_loss
from monai_calib.losses.base import ConstrainedLoss, Options, SharedOptions

OWN_WINDOW = ("nacl", "nacl_outer", "recommended", "svls", "crac")
PENALIZED = [name for name in PRESETS if build_loss(name).penalty is not None]
COMPOSITION = inspect.signature(ConstrainedLoss).parameters


def test_options_are_what_a_composition_takes() -> None:
    assert set(Options.__annotations__) == set(COMPOSITION) - {"primary", "penalty", "alpha"}
    assert set(Options.__annotations__) - set(SharedOptions.__annotations__) == {"kernel_size"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_states_only_what_differs_from_its_class(name: str) -> None:
    factory, settings = PRESETS[name]
    own = inspect.signature(factory).parameters
    for argument, value in settings.items():
        assert value != own.get(argument, COMPOSITION.get(argument)).default  # type: ignore[union-attr]
    assert ("kernel_size" in own) == (name in OWN_WINDOW)


@pytest.mark.parametrize("name", PRESETS)
def test_every_loss_takes_the_window_of_outer_voxels(name: str) -> None:
    assert build_loss(name, kernel_size=5).kernel_size == 5
    if name in PENALIZED:
        assert build_loss(f"ce+{name}", kernel_size=5).kernel_size == 5


@pytest.mark.parametrize("name", [name for name in PENALIZED if name not in OWN_WINDOW])
def test_a_window_of_one_voxel_has_no_outer_voxel_to_penalize(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 3, 6, 6, generator=generator)
    label = torch.randint(0, 3, (2, 1, 6, 6), generator=generator)
    margin = {"margin": 0.1} if "margin" in inspect.signature(PRESETS[name][0]).parameters else {}
    loss, wider = (build_loss(name, penalty_region="outer", kernel_size=k, **margin) for k in (1, 3))
    expected = loss.lambda_ce * build_loss("ce")(logits, label)
    torch.testing.assert_close(loss(logits, label), expected)
    assert (wider(logits, label) - expected).abs() > 1e-4
