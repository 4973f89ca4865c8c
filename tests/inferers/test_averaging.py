"""Ensembles, mirror images and Monte Carlo dropout against the mean of softmaxes they stand for."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.networks.nets import AttentionUnet, BasicUNet, SegResNet
from torch import nn

from monai_calib.files import FileError
from monai_calib.inferers import (
    EnsembleInferer,
    FlipInferer,
    MCDropoutInferer,
    find_checkpoints,
    log_mean_probability,
)


def network(dims: int, seed: int = 0, dropout: float = 0.0) -> BasicUNet:
    torch.manual_seed(seed)
    unet = BasicUNet(dims, 1, 3, features=(4, 4, 4, 4, 4, 4), norm="batch", dropout=dropout)
    return unet.eval()


def image(*shape: int) -> torch.Tensor:
    return torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(0))


def windows(dims: int) -> SlidingWindowInferer:
    return SlidingWindowInferer((16,) * dims, overlap=0.5, mode="gaussian")


def softmax_of(inferer: Callable[..., Any], x: torch.Tensor, net: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return inferer(x, net).softmax(1)


def test_log_of_the_mean_also_where_probabilities_vanish_in_float32() -> None:
    logits = [200.0 * torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    expected = torch.stack(logits).double().log_softmax(2).logsumexp(0) - math.log(3)
    assert expected.min() < -200  # far below the logarithm of the smallest float32
    torch.testing.assert_close(log_mean_probability(logits), expected.float())


def test_slabs_do_not_change_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = [torch.randn(1, 3, 7, 5, 2, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    whole = log_mean_probability(logits)
    monkeypatch.setattr("monai_calib.inferers.averaging._SLAB_VOXELS", 20)
    torch.testing.assert_close(log_mean_probability(logits), whole)


@pytest.mark.parametrize("make", [lambda inner: FlipInferer([0, 1], inner), lambda inner: MCDropoutInferer(4, inner)])
def test_a_prediction_is_gone_before_the_next_is_made(make: Callable[..., Any]) -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    def inner(x: torch.Tensor, net: nn.Module) -> torch.Tensor:
        assert not [kept for kept in made if kept() is not None]
        logits = net(x)
        made.append(weakref.ref(logits))
        return logits

    make(inner)(image(16, 16), network(2, dropout=0.1))
    assert len(made) == 4


@pytest.fixture
def members(tmp_path: Path) -> list[str]:
    """Run folders of three networks, the last saved with its optimizer's place beside it."""
    for seed in range(3):
        folder = tmp_path / f"seed_{seed}" / "models"
        folder.mkdir(parents=True)
        state = network(2, seed).state_dict()
        torch.save({"model": state} if seed == 2 else state, folder / "model.pt")
    return find_checkpoints(str(tmp_path / "seed_*"))


def test_an_ensemble_is_the_mean_of_its_members_probabilities(members: list[str]) -> None:
    x = image(20, 24)
    expected = torch.stack([softmax_of(windows(2), x, network(2, seed)) for seed in range(3)]).mean(0)
    found = EnsembleInferer(members, windows(2))(x, network(2, seed=9))
    torch.testing.assert_close(found.softmax(1), expected)
    torch.testing.assert_close(found.exp(), expected)


def test_an_ensemble_says_which_file_is_wrong(members: list[str], tmp_path: Path) -> None:
    other = BasicUNet(2, 1, 5, features=(4, 4, 4, 4, 4, 4))
    with pytest.raises(FileError, match=r"seed_0/models/model\.pt: holds the weights of another network than Basic"):
        EnsembleInferer(members)(image(16, 16), other)
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(FileError, match=r"list\.pt: expected weights by name, got list"):
        EnsembleInferer([tmp_path / "list.pt"])(image(16, 16), network(2))
    with pytest.raises(ValueError, match="at least one file"):
        EnsembleInferer([])
    with pytest.raises(FileNotFoundError, match=r"no folder matches '.*nothing_\*'.*--members"):
        find_checkpoints(str(tmp_path / "nothing_*"))
    with pytest.raises(FileNotFoundError, match=r"there is no .*seed_0/models/model_calibrated\.pt"):
        find_checkpoints([str(tmp_path / "seed_0")], "model_calibrated.pt")


@pytest.mark.parametrize(("shape", "axes"), [((20, 17), (0,)), ((18, 20), (1, 0)), ((17, 18, 19), (0, 2))])
def test_flips_are_the_mean_over_every_subset_of_the_axes(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    dims, x = len(shape), image(*shape)
    net = network(dims)
    subsets = [[]] + [[a] for a in axes] + ([list(axes)] if len(axes) == 2 else [])
    expected = [
        softmax_of(windows(dims), x.flip([a + 2 for a in subset]), net).flip([a + 2 for a in subset])
        for subset in subsets
    ]
    found = FlipInferer(axes, windows(dims))(x, net)
    torch.testing.assert_close(found.softmax(1), torch.stack(expected).mean(0))
    assert (found.softmax(1) - expected[0]).abs().max() > 1e-3


@pytest.mark.parametrize("dims", [2, 3])
def test_flips_of_an_equivariant_network_change_nothing(dims: int) -> None:
    convolution = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, 3, 3, padding=1)
    with torch.no_grad():  # a kernel that is its own mirror image along every axis
        for axis in range(2, 2 + dims):
            convolution.weight.copy_((convolution.weight + convolution.weight.flip(axis)) / 2)
    x = image(*[9] * dims)
    found = FlipInferer(range(dims))(x, convolution)
    torch.testing.assert_close(found.softmax(1), convolution(x).softmax(1))


def test_flips_of_a_volume_that_is_predicted_slice_by_slice() -> None:
    x, net = image(16, 18, 5), network(2)
    slices = SliceInferer(roi_size=(16, 16), spatial_dim=2, overlap=0.5)
    found = FlipInferer([0], slices)(x, net).softmax(1)
    expected = (softmax_of(slices, x, net) + softmax_of(slices, x.flip(2), net).flip(2)) / 2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("axes", [[], [-1], [0, 0], [2]])
def test_axes_that_are_none_are_refused(axes: list[int]) -> None:
    with pytest.raises(ValueError, match="axes"):
        FlipInferer(axes)(image(8, 8), network(2))


def test_dropout_of_nothing_is_the_plain_network() -> None:
    x = image(16, 16)
    net = network(2, dropout=0.0)
    with pytest.warns(UserWarning, match="p = 0"):
        found = MCDropoutInferer(3)(x, net)
    torch.testing.assert_close(found.softmax(1), softmax_of(windows(2), x, net))


def test_dropout_is_the_mean_over_its_draws_and_leaves_normalisation_alone() -> None:
    x = image(24, 20)
    net = network(2, dropout=0.3)
    modes = []
    net.conv_0.conv_0.adn.N.register_forward_hook(lambda module, inputs, output: modes.append(module.training))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(1)
    found = MCDropoutInferer(4, windows(2))(x, net)
    assert not any(modes)
    assert not any(module.training for module in net.modules())
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)  # running statistics too

    for module in net.modules():
        module.train(isinstance(module, nn.Dropout))
    torch.manual_seed(1)
    draws = [softmax_of(windows(2), x, net) for _ in range(4)]
    torch.testing.assert_close(found.softmax(1), torch.stack(draws).mean(0))
    assert (draws[0] - draws[1]).abs().max() > 1e-2


def test_dropout_is_off_again_when_a_prediction_fails() -> None:
    def fails(*arguments: Any) -> torch.Tensor:
        raise RuntimeError("out of memory")

    net = network(2, dropout=0.3)
    with pytest.raises(RuntimeError, match="out of memory"):
        MCDropoutInferer(2, fails)(image(16, 16), net)
    assert not any(module.training for module in net.modules())


@pytest.mark.parametrize(
    "net",
    [
        AttentionUnet(2, 1, 3, channels=(4, 8), strides=(2,), dropout=0.3),
        SegResNet(2, in_channels=1, out_channels=3, init_filters=8, dropout_prob=0.3),
    ],
    ids=["attention_unet", "segresnet"],
)
def test_dropout_layers_of_the_other_networks_are_found(net: nn.Module) -> None:
    x = image(16, 16)
    draws = [MCDropoutInferer(1)(x, net.eval()) for _ in range(2)]
    assert not torch.allclose(*draws)


def test_a_network_without_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match="Conv2d has none"):
        MCDropoutInferer(2)(image(4, 4), nn.Conv2d(1, 2, 1))
    with pytest.raises(ValueError, match="at least 1"):
        MCDropoutInferer(0)


def test_they_nest_and_keep_headers(members: list[str]) -> None:
    x = MetaTensor(image(16, 16), meta={"filename_or_obj": "scan.nii.gz"})
    found = EnsembleInferer(members, FlipInferer([0], windows(2)))(x, network(2))
    assert isinstance(found, MetaTensor)
    assert found.meta["filename_or_obj"] == "scan.nii.gz"
    each = [FlipInferer([0], windows(2))(x.as_tensor(), network(2, seed)).exp() for seed in range(3)]
    torch.testing.assert_close(found.as_tensor().softmax(1), torch.stack(each).mean(0))


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="got tuple"):
        MCDropoutInferer(1, lambda x, net: (x, x))(image(16, 16), network(2, dropout=0.1))
    with pytest.raises(ValueError, match="at least one, got none"):
        log_mean_probability([])
