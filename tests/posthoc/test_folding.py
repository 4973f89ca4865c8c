"""A folded network computes the scaled logits, and its state dict is that of MONAI's plain network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from monai.networks.nets import AttentionUnet, BasicUNet, BasicUNetPlusPlus, DynUNet, SegResNet, SegResNetDS, UNet
from torch import nn

from monai_calib.posthoc import (
    DirichletScaling,
    FoldingError,
    LinearHead,
    TemperatureScaling,
    find_last_convolution,
    fold,
)


def unet(dims: int, **arguments: object) -> UNet:
    return UNet(spatial_dims=dims, in_channels=1, out_channels=3, channels=(4, 8), strides=(2,), **arguments)


def dynunet(dims: int) -> DynUNet:
    kernels, strides = [3, 3, 3, 3], [1, 2, 2, 2]
    return DynUNet(
        dims, 1, 3, kernels, strides, strides[1:], filters=[4, 8, 8, 8], deep_supervision=True, deep_supr_num=2
    )


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "unet": unet,
    "unet, residual units": lambda dims: unet(dims, num_res_units=2),
    "basic unet": lambda dims: BasicUNet(dims, 1, 3, features=(4, 4, 8, 8, 8, 4)),
    "attention unet": lambda dims: AttentionUnet(dims, 1, 3, channels=(4, 8), strides=(2,)),
    "segresnet": lambda dims: SegResNet(dims, in_channels=1, out_channels=3, init_filters=8),
    "segresnet ds": lambda dims: SegResNetDS(dims, in_channels=1, out_channels=3, init_filters=8, blocks_down=(1, 1)),
    "dynunet": dynunet,
}
WEIGHT = torch.tensor([[0.5, 0.1, 0.0], [0.0, 0.4, -0.2], [0.3, 0.0, 0.7]])
BIAS = torch.tensor([0.1, -0.2, 0.3])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_folded_output_is_the_scaled_output_and_loads_into_the_plain_network(name: str, dims: int) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](dims).eval()
    window, other = (torch.randn(1, 1, *[size] * dims) for size in (32, 48))
    with torch.no_grad():
        before = network(other)
    fold(network, LinearHead(WEIGHT, BIAS), window)
    plain = NETWORKS[name](dims).eval()
    plain.load_state_dict(network.state_dict())
    expected = torch.einsum("kj,bj...->bk...", WEIGHT, before) + BIAS.view(1, 3, *[1] * dims)
    with torch.no_grad():
        torch.testing.assert_close(plain(other), expected, rtol=1e-5, atol=1e-5)


def test_a_network_that_wraps_its_output_in_a_list_is_folded() -> None:
    torch.manual_seed(0)
    network, image = BasicUNetPlusPlus(2, 1, 3, features=(4, 4, 8, 8, 8, 4)).eval(), torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        (before,) = network(image)
        (after,) = fold(network, LinearHead(WEIGHT, BIAS), image)(image)
    expected = torch.einsum("kj,bj...->bk...", WEIGHT, before) + BIAS.view(1, 3, 1, 1)
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-5)


def test_heads_of_deep_supervision_are_scaled_as_well() -> None:
    torch.manual_seed(0)
    network, image = dynunet(3), torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        before = network.train()(image)
        after = fold(network, LinearHead(WEIGHT, BIAS), image).train()(image)
    assert before.shape[1] == 3  # the output and two heads
    expected = torch.einsum("kj,bhj...->bhk...", WEIGHT, before) + BIAS.view(1, 1, 3, 1, 1, 1)
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-5)


class Weighted(nn.Module):
    """Something that is not linear comes after the last convolution."""

    def __init__(self, after: nn.Module) -> None:
        super().__init__()
        self.conv, self.after = nn.Conv2d(1, 3, 3, padding=1), after

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.after(self.conv(image))


@pytest.mark.parametrize("after", [nn.Softmax(1), nn.InstanceNorm2d(3), nn.PReLU(3), nn.Tanh()])
def test_a_network_that_does_not_end_in_a_convolution_is_refused_and_left_alone(after: nn.Module) -> None:
    network, image = Weighted(after), torch.randn(1, 1, 8, 8)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(FoldingError, match=r"last one: Conv2d 'conv'.*CalibratedNetwork"):
        fold(network, LinearHead(WEIGHT, BIAS), image)
    torch.testing.assert_close(dict(network.state_dict()), state, rtol=0, atol=0)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(self.conv(image))


def test_a_layer_used_twice_is_refused_and_left_alone() -> None:
    network, image = Twice(), torch.randn(1, 3, 8, 8)
    before = network(image)
    with pytest.raises(FoldingError, match="used more than once"):
        fold(network, LinearHead(WEIGHT, BIAS), image)
    assert torch.equal(network(image), before)


def test_without_a_bias_only_what_needs_none_can_be_folded() -> None:
    network, image = nn.Conv2d(1, 3, 1, bias=False), torch.randn(1, 1, 8, 8)
    with pytest.raises(FoldingError, match="has no bias"):
        fold(network, LinearHead(WEIGHT, BIAS), image)
    scaling = TemperatureScaling(3)
    scaling.set_temperature(2.0)
    before = network(image)
    torch.testing.assert_close(fold(network, scaling, image)(image), before / 2)


def test_what_is_not_linear_in_the_logits_is_refused() -> None:
    with pytest.raises(FoldingError, match="DirichletScaling is not linear"):
        fold(nn.Conv2d(1, 3, 1), DirichletScaling(3), torch.randn(1, 1, 4, 4))


def test_the_last_convolution_is_found_by_what_it_computes() -> None:
    assert find_last_convolution(unet(2, num_res_units=2), torch.randn(1, 1, 16, 16)).residual
    assert not find_last_convolution(unet(2), torch.randn(1, 1, 16, 16)).residual
