"""Losses of sigmoid channels: closed forms, and the two-class softmax loss of each channel."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.losses import DeepSupervisionLoss, DiceLoss
from monai.losses import FocalLoss as MonaiFocalLoss
from scipy.ndimage import maximum_filter, minimum_filter, uniform_filter
from torch import Tensor

from monai_calib.handlers import AlphaSchedule
from monai_calib.losses import PRESETS, SigmoidLoss, build_loss, fused

REFUSED = ("logitnorm", "cals", "crac", "mdca", "meep")
NAMES = [name for name in PRESETS if name not in REFUSED] + ["dice_ce+mbls", "mbls+nacl", "dice_ce+soft_l1ace"]
OF_A_CLASS = ("dice_ce", "recommended", "dscpp", "dice_semimetric", "l1ace")
"""Terms that are one number a class: of a channel that of "on" alone."""
VOXELWISE = [name for name in NAMES if not any(part in name for part in OF_A_CLASS)]


def batch(seed: int, shape: tuple[int, ...], scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 2, shape, generator=generator)


def shares(label: Tensor) -> Tensor:
    """tau of every channel in a window of 3, by SciPy."""
    return torch.stack(
        [
            torch.stack([torch.from_numpy(uniform_filter(c.double().numpy(), 3, mode="nearest")) for c in b])
            for b in label
        ]
    )


def outer(label: Tensor) -> Tensor:
    sizes = (1, 1, *[3] * (label.ndim - 2))
    high, low = (f(label.numpy(), size=sizes, mode="nearest") for f in (maximum_filter, minimum_filter))
    return torch.from_numpy(high != low)


def closed_form(name: str, z: Tensor, y: Tensor) -> Tensor:
    """The loss as the formulas of the docstring say it."""
    ce = F.binary_cross_entropy_with_logits(z, y.double())
    tau = shares(y)
    nacl = ((tau - z / 2).abs() + (1 - tau + z / 2).abs()) / 2
    p = z.sigmoid()
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()) / 2
    penalty = {
        "ce": torch.zeros_like(z),
        "dice_ce": torch.zeros_like(z),
        "mbls": 0.1 * (z.abs() - 1).relu() / 2,
        "ecp": -0.1 * entropy,
        "ls": 0.1 * (2 * y - 1) * z / 2,
        "nacl": 0.1 * nacl,
        "nacl_outer": 0.1 * nacl * outer(y),
        "recommended": nacl * outer(y),
        "dice_ce+mbls": 0.1 * (z.abs() - 1).relu() / 2,
    }[name]
    dice = DiceLoss(sigmoid=True)(z, y) if name in OF_A_CLASS or "dice" in name else 0.0
    return ce + penalty.mean() + dice


@pytest.mark.parametrize(
    "name", ["ce", "dice_ce", "mbls", "ecp", "ls", "nacl", "nacl_outer", "recommended", "dice_ce+mbls"]
)
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 1, 6, 5), (1, 4, 5, 6, 4)], ids=str)
def test_equals_the_closed_form(name: str, shape: tuple[int, ...]) -> None:
    logits, label = batch(0, shape)
    loss = build_loss(name, activation="sigmoid", **({"margin": 1.0} if "mbls" in name else {}))
    expected = closed_form(name, logits, label)
    torch.testing.assert_close(loss(logits, label), expected)
    torch.testing.assert_close(loss(logits.float(), label), expected.float())  # the compiled sweep


def test_focal_is_monais() -> None:
    logits, label = batch(1, (2, 3, 6, 5))
    expected = MonaiFocalLoss(gamma=3.0, use_softmax=False)(logits, label.double())
    torch.testing.assert_close(build_loss("focal", activation="sigmoid")(logits, label).float(), expected)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 9999),
    name=st.sampled_from(NAMES),
    channels=st.integers(1, 4),
    spatial=st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_is_the_mean_of_each_channels_softmax_loss(seed: int, name: str, channels: int, spatial: list[int]) -> None:
    logits, label = batch(seed, (2, channels, *spatial))
    if name not in VOXELWISE:  # the figure of "on"; joined penalties of voxels, which read both, have the closed form
        name = name.replace("recommended", "dice_ce").replace("+mbls", "")
    two = build_loss(name, include_background=name in VOXELWISE)
    each = [two(torch.stack([-z / 2, z / 2], 1), y) for z, y in zip(logits.unbind(1), label.unbind(1), strict=True)]
    value = build_loss(name, activation="sigmoid")(logits, label)
    torch.testing.assert_close(value, torch.stack(each).mean())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 9999), name=st.sampled_from(VOXELWISE), channels=st.integers(1, 3))
def test_on_and_off_are_alike(seed: int, name: str, channels: int) -> None:
    logits, label = batch(seed, (1, channels, 5, 4))
    loss = build_loss(name, activation="sigmoid")
    torch.testing.assert_close(loss(-logits, 1 - label), loss(logits, label))


def test_the_prior_holds_logits_to_the_shares_without_leaning_to_either_side() -> None:
    """With the squared distance the two-class optimum is ``l_1 - l_0 = tau_1 - tau_0``, and so is z."""
    label = torch.tensor([[[0, 0, 1, 1, 1]]])
    z = torch.zeros(1, 1, 5, dtype=torch.float64, requires_grad=True)
    loss = build_loss("nacl", activation="sigmoid", distance_type="l2", alpha=1.0, lambda_ce=0.0)
    with fused.using("plain"):
        (gradient,) = torch.autograd.grad(loss(z, label), z, create_graph=True)
        hessian = torch.autograd.grad(gradient.sum(), z)[0]
    optimum = -(gradient / hessian)[0, 0]  # one Newton step of a square
    torch.testing.assert_close(optimum.detach(), 2 * shares(label)[0, 0] - 1)


# what these two follow is no gradient: see test_closed_forms.py
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("acls", "dice_ce_surgery")])
def test_gradcheck(name: str) -> None:
    logits, label = batch(3, (2, 2, 4, 3), scale=3.0)
    loss = build_loss(name, activation="sigmoid", **({"margin": 1.0} if "mbls" in name else {}))
    assert torch.autograd.gradcheck(lambda z: loss(z, label), (logits.requires_grad_(),))
    marked = torch.cat([label, (torch.arange(3) == 1).expand(2, 1, 4, 3).long()], 1)
    loss = build_loss(name, activation="sigmoid", ignore_channel=True)
    assert torch.autograd.gradcheck(lambda z: loss(z, marked), (logits,))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int8, torch.int64, torch.float16, torch.float32])
def test_the_last_channel_marks_ignored_voxels(name: str, kind: torch.dtype) -> None:
    logits, label = batch(4, (2, 3, 6, 5))
    ignored = torch.zeros(2, 1, 6, 5, dtype=torch.int64)
    ignored[..., 3:] = 1
    loss = build_loss(name, activation="sigmoid", ignore_channel=True)
    changed = logits.clone()
    changed[..., 3:] = float("inf")
    changed.requires_grad_()
    value = loss(changed, torch.cat([label, ignored], 1).to(kind))
    value.backward()
    assert changed.grad is not None
    assert changed.grad.isfinite().all()
    assert not changed.grad[..., 3:].any()
    torch.testing.assert_close(value, loss(logits, torch.cat([label * (1 - ignored), ignored], 1)))
    # the same voxels left out of every channel by number, and nothing left out where nothing is marked
    by_number = build_loss(name, activation="sigmoid", ignore_index=9)
    torch.testing.assert_close(value, by_number(logits, label.masked_fill(ignored == 1, 9)))
    nothing = loss(logits, torch.cat([label, torch.zeros_like(ignored)], 1))
    torch.testing.assert_close(nothing, build_loss(name, activation="sigmoid")(logits, label))


def test_ignored_regions_cost_what_nnunet_says() -> None:
    logits, label = batch(5, (2, 3, 6, 5))
    ignored = torch.rand(2, 1, 6, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    masked = F.binary_cross_entropy_with_logits(logits, label.double(), reduction="none") * ~ignored
    expected = masked.sum() / (
        3 * (~ignored).sum()
    )  # nnU-Net divides by the voxels alone, a factor of the channels more
    loss = build_loss("ce", activation="sigmoid", ignore_channel=True)
    torch.testing.assert_close(loss(logits, torch.cat([label, ignored.long()], 1)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_that_is_ignored_altogether_costs_nothing(name: str) -> None:
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    value = build_loss(name, activation="sigmoid", ignore_channel=True)(logits, torch.ones(2, 3, 4, 4))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_voxel_may_be_left_out_of_one_channel_alone() -> None:
    logits, label = batch(6, (1, 2, 4, 4))
    label[0, 1, 2:] = 255
    z, y = logits[label < 2], label[label < 2].double()
    loss = build_loss("ce", activation="sigmoid", ignore_index=255)
    torch.testing.assert_close(loss(logits, label), F.binary_cross_entropy_with_logits(z, y))


@pytest.mark.parametrize("name", VOXELWISE)
def test_reductions_agree(name: str) -> None:
    logits, label = batch(7, (2, 3, 6, 5))
    voxels = build_loss(name, activation="sigmoid", reduction="none")(logits, label)
    assert voxels.shape == logits.shape
    torch.testing.assert_close(voxels.mean(), build_loss(name, activation="sigmoid")(logits, label))
    total = build_loss(name, activation="sigmoid", reduction="sum")(logits, label)
    torch.testing.assert_close(voxels.sum(), total)


def test_one_channel_images_and_forms_of_input() -> None:
    logits, label = batch(8, (2, 1, 6, 5))
    loss = build_loss("recommended", activation="sigmoid")
    expected = loss(logits, label)
    torch.testing.assert_close(loss(logits, label[:, 0]), expected)
    torch.testing.assert_close(loss(MetaTensor(logits), MetaTensor(label.float())), expected)
    half = loss(logits.to(torch.bfloat16), label)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, loss(logits.to(torch.bfloat16).float(), label))
    logits, label = batch(8, (2, 3, 6, 5))
    guided = build_loss("nacl", activation="sigmoid", kernel_ops="image_proportions_l1")
    assert guided.needs_image
    plain = build_loss("nacl", activation="sigmoid")
    torch.testing.assert_close(guided(logits, label, image=torch.ones(2, 1, 6, 5)), plain(logits, label))
    first, second = (guided(logits[k : k + 1], label[k : k + 1], image=torch.randn(1, 2, 6, 5)) for k in (0, 1))
    assert first.isfinite()
    assert second.isfinite()


def test_deep_supervision_schedules_and_copies() -> None:
    heads, label = [torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)], torch.randint(0, 2, (2, 3, 8, 8)).float()
    loss = build_loss("mbls", activation="sigmoid", margin=0.5)
    coarse = label[..., ::2, ::2]
    nearest = F.interpolate(label, size=(4, 4), mode="nearest-exact")
    assert coarse.shape == nearest.shape
    expected = loss(heads[0], label) + loss(heads[1], nearest) / 2
    torch.testing.assert_close(DeepSupervisionLoss(loss)(heads, label), expected)
    schedule = AlphaSchedule(loss, mode="step", amount=2.0, every=1)  # type: ignore[arg-type]
    engine = Engine(lambda engine, batch: None)
    before = loss(heads[0], label)
    engine.state.epoch = 2
    schedule(engine)
    ce = build_loss("ce", activation="sigmoid")(heads[0], label)
    torch.testing.assert_close(loss(heads[0], label) - ce, 20 * (before - ce))
    for same in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(same(heads[0], label), loss(heads[0], label))


def test_the_given_loss_is_left_as_it_was() -> None:
    two = build_loss("dice_ce")
    logits, label = torch.randn(2, 2, 5, 5), torch.randint(0, 2, (2, 1, 5, 5))
    before = two(logits, label)
    SigmoidLoss(two, ignore_channel=True)
    torch.testing.assert_close(two(logits, label), before)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_loss_of_channels_is_refused(name: str) -> None:
    for whole in (name, f"dice_ce+{name}"):
        if name == "logitnorm" and "+" in whole:
            continue
        with pytest.raises(ValueError, match=r"activation='sigmoid': \w+Loss cannot be had of channels: "):
            build_loss(whole, activation="sigmoid")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": [1.0, 2.0]}, "weight is one number per softmax class"),
        ({"include_background": False}, "no channel is the background"),
        ({"ignore_channel": True, "ignore_index": 3}, "expected no ignore_index beside it"),
        ({"activation": "relu"}, "activation: expected one of softmax, sigmoid, got 'relu'"),
        ({"activation": "softmax", "ignore_channel": True}, "does not take ignore_channel"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_loss("mbls", **{"activation": "sigmoid", **arguments})  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("shape", "label", "message"),
    [
        ((2, 3, 4), torch.zeros(2, 1, 4), r"each of 3 sigmoid channels, \(2, 3, 4\), got \(2, 1, 4\)"),
        ((2, 3, 4), torch.zeros(2, 4), r"got \(2, 4\)"),
        ((2, 3, 4), torch.zeros(2, 4, 4), r"got \(2, 4, 4\)"),
        ((2, 3, 4), torch.full((2, 3, 4), 2), "whole class numbers from 0 to 1, got 2"),
        ((2, 3, 4), torch.full((2, 3, 4), 0.5), "got 0.5"),
        ((2, 3), torch.zeros(2, 3), "one to three axes"),
    ],
)
def test_wrong_labels_are_named(shape: tuple[int, ...], label: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_loss("nacl", activation="sigmoid")(torch.zeros(shape), label)


def test_a_wrong_last_channel_is_named() -> None:
    loss = build_loss("nacl", activation="sigmoid", ignore_channel=True)
    with pytest.raises(ValueError, match=r"its last channel, which marks ignored voxels: expected .* got 2"):
        loss(torch.zeros(1, 2, 4), torch.full((1, 3, 4), 2))
    with pytest.raises(ValueError, match="and a last one that marks ignored voxels"):
        loss(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    with pytest.raises(TypeError, match="DeepSupervisionLoss"):
        loss([torch.zeros(1, 2, 4)], torch.zeros(1, 3, 4))


def test_where_it_is_not_looked_at_a_wrong_last_channel_poisons_the_loss() -> None:
    torch._dynamo.reset()
    loss = build_loss("mbls", activation="sigmoid", ignore_channel=True)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    logits, label = torch.randn(1, 2, 4), torch.zeros(1, 3, 4)
    torch.testing.assert_close(compiled(logits, label), loss(logits, label))
    label[0, -1, 2] = 2
    assert compiled(logits, label).isnan()


@pytest.mark.parametrize("name", NAMES)
def test_off_the_cpu_no_value_is_looked_at(name: str) -> None:
    loss = build_loss(name, activation="sigmoid", ignore_channel=True)
    logits = torch.zeros(1, 2, 6, 6, device="meta", requires_grad=True)  # a look at a value would raise there
    value = loss(logits, torch.zeros(1, 3, 6, 6, device="meta"))
    value.backward()
    assert value.shape == ()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_cuda_equals_cpu_and_never_waits(name: str) -> None:
    logits, label = batch(9, (2, 2, 6, 6, 6))
    marked = torch.cat([label, torch.randint(0, 2, (2, 1, 6, 6, 6))], 1)
    loss = build_loss(name, activation="sigmoid", ignore_channel=True)
    expected = loss(logits, marked)
    on_device = loss.cuda(), logits.cuda(), marked.cuda()
    on_device[0](*on_device[1:])  # what is made once and kept has been made
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = on_device[0](*on_device[1:])
        poisoned = on_device[0](on_device[1], on_device[2] + 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.cpu(), expected)
    assert poisoned.isnan()
