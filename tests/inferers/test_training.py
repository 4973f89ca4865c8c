"""What the loss gets from a network in training."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SimpleInferer
from monai.networks.nets import BasicUNet, BasicUNetPlusPlus, DynUNet
from torch import nn

from monai_calib.inferers import TrainingInferer


def image(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_plain_network_is_as_with_monais_inferer() -> None:
    network = nn.Conv3d(1, 3, kernel_size=3)
    inputs = image(2, 1, 6, 6, 6)
    assert torch.equal(TrainingInferer()(inputs, network), SimpleInferer()(inputs, network))


def test_bfloat16_computes_in_bfloat16_and_returns_float32() -> None:
    network = BasicUNet(spatial_dims=2, in_channels=1, out_channels=3, features=(8, 8, 8, 8, 8, 8)).eval()
    seen = []
    network.final_conv.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    inputs = image(2, 1, 32, 32)
    exact = TrainingInferer()(inputs, network)
    rounded = TrainingInferer(bfloat16=True)(inputs, network)
    assert seen == [torch.float32, torch.bfloat16]
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)


def test_bfloat16_gradients_reach_float32_weights() -> None:
    network = nn.Conv2d(1, 3, kernel_size=3)
    TrainingInferer(bfloat16=True)(image(2, 1, 8, 8), network).square().sum().backward()
    gradient = network.weight.grad.clone()
    network.zero_grad()
    TrainingInferer()(image(2, 1, 8, 8), network).square().sum().backward()
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, network.weight.grad, rtol=0.03, atol=0.1)


@pytest.mark.parametrize("dims", [2, 3])
def test_stacked_heads_become_a_list_finest_first(dims: int) -> None:
    network = DynUNet(
        dims, 1, 3, [3] * 4, [1, 2, 2, 2], [2, 2, 2], filters=[4, 8, 8, 8], deep_supervision=True, deep_supr_num=2
    )
    inputs = image(2, 1, *[16] * dims)
    stacked = network.train()(inputs)
    heads = TrainingInferer()(inputs, network)
    assert [head.shape for head in heads] == [(2, 3, *[16] * dims)] * 3
    assert stacked.shape[1] == 3
    single = TrainingInferer()(inputs, network.eval())
    assert isinstance(single, torch.Tensor)


def test_a_list_of_one_is_a_tensor_and_of_four_stays_a_list() -> None:
    inputs = image(1, 1, 32, 32)
    one = BasicUNetPlusPlus(2, 1, 3, features=(4, 4, 4, 4, 4, 4))
    four = BasicUNetPlusPlus(2, 1, 3, features=(4, 4, 4, 4, 4, 4), deep_supervision=True)
    assert isinstance(TrainingInferer()(inputs, one), torch.Tensor)
    assert len(TrainingInferer()(inputs, four)) == 4


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="got dict"):
        TrainingInferer()(image(1, 1, 4, 4), lambda inputs: {"logits": inputs})
