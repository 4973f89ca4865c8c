"""What the loss gets from a network in training."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SimpleInferer
from monai.losses import DeepSupervisionLoss
from monai.networks.nets import AttentionUnet, BasicUNet, BasicUNetPlusPlus, DynUNet, SegResNet
from torch import nn

from monai_calib.inferers import LossOfHeads, TrainingInferer, bfloat16_autocast, training
from monai_calib.losses import build_loss


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


@pytest.mark.parametrize(("depth", "kernel", "exact"), [(1, 3, False), (2, 3, True), (3, 3, False), (4, 5, True)])
def test_shallow_convolutions_run_in_float32_on_a_cpu(depth: int, kernel: int, exact: bool) -> None:
    """Where oneDNN's AVX-512 path gets the weights' gradient wrong: an axis longer than 1, shorter than the kernel."""
    convolution = nn.Conv3d(16, 16, kernel, padding=kernel // 2)
    inputs = image(2, 16, depth, 4, 5)
    convolution(inputs).square().sum().backward()
    expected = convolution.weight.grad.clone()
    convolution.zero_grad()
    with bfloat16_autocast("cpu"):
        output = convolution(inputs)
    assert output.dtype == (torch.float32 if exact else torch.bfloat16)
    output.float().square().sum().backward()
    assert (convolution.weight.grad - expected).norm() < 0.02 * expected.norm()


def test_gradients_of_a_network_with_a_shallow_bottleneck_are_those_of_float32() -> None:
    torch.manual_seed(0)
    network = BasicUNet(spatial_dims=3, in_channels=1, out_channels=3, features=(16, 16, 16, 16, 32, 16))
    inputs = image(2, 1, 32, 32, 32)
    gradients = []
    for bfloat16 in (False, True):
        network.zero_grad()
        logits = TrainingInferer(bfloat16)(inputs, network)
        logits.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
    for name, exact in gradients[0].items():
        if name.endswith("conv.weight"):  # rounding moves them by up to 30 %, the library's fault by 60 to 100 %
            assert (gradients[1][name] - exact).norm() < 0.5 * exact.norm(), name


def test_a_processor_with_wrong_gradients_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = nn.functional.conv2d
    monkeypatch.setattr(
        nn.functional,
        "conv2d",
        lambda x, w, **rest: right(x, w * (2 if torch.is_autocast_enabled("cpu") else 1), **rest),
    )
    training._check_gradients.cache_clear()
    with pytest.raises(RuntimeError, match=r"gradient of a 2D convolution wrong\. Train without --bfloat16"):
        TrainingInferer(bfloat16=True)(image(1, 1, 4, 4), nn.Conv2d(1, 2, 1))
    training._check_gradients.cache_clear()


@pytest.mark.parametrize(
    ("network", "size", "works"),
    [
        (BasicUNet(2, 1, 3, features=(4, 4, 4, 4, 4, 4)), (16, 16), [32, 32]),
        (AttentionUnet(2, 1, 3, channels=(4, 4, 4), strides=(2, 2)), (18, 16), [20, 16]),
        (SegResNet(2, init_filters=8, in_channels=1, out_channels=3), (12, 16), [16, 16]),
    ],
)
def test_a_patch_that_the_network_cannot_take_names_one_it_can(
    network: nn.Module, size: tuple[int, ...], works: list[int]
) -> None:
    inferer = TrainingInferer()
    with pytest.raises(ValueError, match=r"patch_size: expected a size .*Take ") as caught:
        inferer(image(1, 1, *size), network.train())
    assert f"got {list(size)}" in str(caught.value)
    assert f"Take {works}, or" in str(caught.value)
    inferer(image(2, 1, *works), network)


def test_an_error_of_the_network_that_no_size_helps_stays_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="to have 2 channels"):
        TrainingInferer()(image(1, 1, 8, 8), nn.Conv2d(2, 3, 1))


def test_a_loss_that_reads_the_image_gets_it_at_the_size_of_each_head() -> None:
    seen = []

    class Reads(nn.Module):
        needs_image = True

        def forward(self, logits: torch.Tensor, label: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
            seen.append((logits.shape[2:], label.shape[2:], image.mean().item()))
            return logits.sum() * 0

    loss = LossOfHeads(Reads())
    heads, label, picture = [image(1, 2, 8, 8), image(1, 2, 4, 4)], torch.zeros(1, 1, 8, 8), image(1, 1, 8, 8)
    with pytest.raises(ValueError, match="list ImageForLoss among the trainer's handlers"):
        loss(heads, label)
    loss.image = picture
    loss(heads, label)
    loss(heads[0], label)
    assert [sizes[:2] for sizes in seen] == [((8, 8),) * 2, ((4, 4),) * 2, ((8, 8),) * 2]
    assert [sizes[2] for sizes in seen] == pytest.approx([picture.mean().item()] * 3)


@pytest.mark.parametrize(
    ("name", "settings", "reads"),
    [
        ("nacl", {"kernel_ops": "image_proportions_l1"}, True),
        ("mbls+nacl+mdca", {"kernel_ops": "image_proportions_l2"}, True),  # read by a loss that another extends
        ("nacl", {}, False),
        ("dice_ce+hard_l1ace", {}, False),
    ],
)
def test_a_loss_says_whether_it_reads_the_image(name: str, settings: dict[str, str], reads: bool) -> None:
    loss = build_loss(name, **settings)
    assert loss.needs_image is LossOfHeads(loss).needs_image is reads
    assert LossOfHeads(nn.CrossEntropyLoss()).needs_image is False
    logits, label = image(1, 2, 8, 8), torch.zeros(1, 1, 8, 8)
    if reads:
        with pytest.raises(ValueError, match="call the loss with image="):
            loss(logits, label)
        loss(logits, label, image=image(1, 1, 8, 8))
    else:
        loss(logits, label)


def test_a_loss_without_need_of_the_image_is_monais_deep_supervision() -> None:
    loss = build_loss("dice_ce")
    heads, label = [image(2, 3, 8, 8), image(2, 3, 4, 4)], torch.randint(0, 3, (2, 1, 8, 8)).float()
    assert torch.equal(LossOfHeads(loss)(heads, label), DeepSupervisionLoss(loss)(heads, label))
