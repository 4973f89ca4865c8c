"""Every form a label may come in, and a clear answer to the ones it may not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_calib.labels import top_class
from monai_calib.losses import PRESETS, MbLSLoss, NACLLoss, SVLSLoss, build_loss
from monai_calib.losses.target import prepare

WITH_DICE = ("dice", "recommended")
NAMES = [*PRESETS, "dice_ce+mbls", "dice_ce+nacl_outer", "dice_ce+mdca", "dice_ce+hard_l1ace"]
STATISTICS = ("dscpp", "hard_l1ace", "soft_l1ace", "meep", "mdca")
"""One figure a batch, not one a voxel."""


def has_dice(name: str) -> bool:
    return any(part in name for part in WITH_DICE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32, torch.float16])
def test_label_types_and_shapes_agree(name: str, dtype: torch.dtype) -> None:
    loss = build_loss(name)
    logits, label = torch.randn(2, 3, 6, 5, 4), torch.randint(0, 3, (2, 6, 5, 4))
    expected = loss(logits, label)
    torch.testing.assert_close(loss(logits, label.to(dtype).unsqueeze(1)), expected)
    torch.testing.assert_close(loss(MetaTensor(logits), MetaTensor(label.to(dtype).unsqueeze(1))), expected)
    hot = F.one_hot(label, 3).movedim(-1, 1).to(dtype)
    torch.testing.assert_close(loss(logits, hot), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ignored_voxels_do_not_matter(name: str, reduction: str) -> None:
    padding = {"padding": "valid"} if "nacl" in name or name in ("svls", "crac") else {}
    loss = build_loss(name, ignore_index=255, reduction=reduction, **padding)
    torch.manual_seed(1)
    logits, label = torch.randn(2, 3, 6, 6), torch.randint(0, 3, (2, 1, 6, 6))
    label[:, :, :, 4:] = 255
    changed = logits.clone()
    changed[..., 4:] = float("inf")
    changed.requires_grad_()
    value = loss(changed, label)
    torch.testing.assert_close(value, loss(logits, label))
    value.backward()
    assert changed.grad is not None
    assert changed.grad.isfinite().all()
    assert not changed.grad[..., 4:].any()
    # what is left is the loss of the known part, its window cut there
    if not has_dice(name):
        cut = build_loss(name, reduction=reduction, **padding)
        torch.testing.assert_close(value, cut(logits[..., :4], label[..., :4]))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_known_and_nothing_at_all_cost_nothing(name: str) -> None:
    loss = build_loss(name, ignore_index=9, **({"lambda_dice": 0.0} if has_dice(name) else {}))
    for batch, value in ((2, 9), (0, 0)):
        logits = torch.randn(batch, 3, 4, 4, requires_grad=True)
        result = loss(logits, torch.full((batch, 1, 4, 4), value))
        result.backward()
        assert result.item() == 0
        assert logits.grad is not None
        assert not logits.grad.any()


@pytest.mark.parametrize("name", [n for n in NAMES if not has_dice(n) and n not in STATISTICS])
def test_reductions_agree(name: str) -> None:
    logits, label = torch.randn(2, 3, 6, 5), torch.randint(0, 3, (2, 1, 6, 5))
    voxels = build_loss(name, reduction="none")(logits, label)
    assert voxels.shape == (2, 6, 5)
    torch.testing.assert_close(voxels.mean(), build_loss(name)(logits, label))
    torch.testing.assert_close(voxels.sum(), build_loss(name, reduction="sum")(logits, label))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_foreground_is_finite(name: str) -> None:
    logits = torch.randn(2, 3, 6, 6, requires_grad=True)
    value = build_loss(name)(logits, torch.zeros(2, 1, 6, 6))
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_class_weights_are_torchs() -> None:
    logits, label = torch.randn(2, 3, 6, 5), torch.randint(0, 3, (2, 6, 5))
    weight = torch.tensor([0.1, 2.0, 5.0])
    expected = F.cross_entropy(logits, label, weight=weight)
    torch.testing.assert_close(build_loss("ce", weight=weight)(logits, label), expected)
    hot = F.one_hot(label, 3).movedim(-1, 1)
    torch.testing.assert_close(build_loss("ce", weight=weight.tolist())(logits, hot), expected)
    torch.testing.assert_close(build_loss("ce", weight=weight)(logits.double(), hot).float(), expected)
    with pytest.raises(ValueError, match="weight: expected 4 numbers, one a class, got 3"):
        build_loss("ce", weight=weight)(torch.randn(1, 4, 5), torch.zeros(1, 5))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    logits, label = torch.randn(2, 3, 6, 6).to(dtype), torch.randint(0, 3, (2, 1, 6, 6))
    value = build_loss(name)(logits, label)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, build_loss(name)(logits.float(), label))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(build_loss(name)(logits, label), value)


@pytest.mark.parametrize(
    ("logits", "label", "message"),
    [
        (torch.zeros(1, 3, 4), torch.full((1, 4), 3), "expected whole class numbers from 0 to 2, got 3"),
        (torch.zeros(1, 3, 4), torch.full((1, 4), -1), "got -1"),
        (torch.zeros(1, 3, 4), torch.full((1, 4), float("nan")), "got nan"),
        (torch.zeros(1, 3, 4), torch.full((1, 4), 0.5), "got 0.5"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 5), r"got \(1, 1, 4, 5\)"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(1, 1, 4, 4), "label must be"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4), "label must be"),
        (torch.zeros(1, 3), torch.zeros(1), "one to three axes"),
        (torch.zeros(1, 3, 4), torch.full((1, 3, 4), 0.5), "sum to 1"),
    ],
)
def test_wrong_input_is_named(logits: torch.Tensor, label: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_loss("nacl")(logits, label)
    with pytest.raises(TypeError, match="floating point"):
        build_loss("nacl")(logits.long(), label)


def test_wrong_arguments_are_named() -> None:
    for kernel_size in (2, 0, -1, (3, 4)):
        with pytest.raises(ValueError, match="positive and odd"):
            NACLLoss(kernel_size=kernel_size)
    for build, message in (
        (lambda: MbLSLoss(margin=-1), "margin: expected at least 0"),
        (lambda: MbLSLoss(distance_type="l3"), "distance_type: expected one of l1, l2"),
        (lambda: NACLLoss(kernel_ops="sum"), "kernel_ops: expected one of mean, gaussian"),
        (lambda: NACLLoss(padding="reflect"), "padding: expected one of"),
        (lambda: NACLLoss(matching="prob"), "matching: expected one of"),
        (lambda: NACLLoss(alpha=-0.1), "alpha: expected at least 0"),
        (lambda: NACLLoss(penalty_region="inner"), "penalty_region: expected one of"),
        (lambda: build_loss("ce", reduction="median"), "reduction: expected one of"),
        (lambda: build_loss("dice_ce", reduction="none"), "beside Dice"),
        (lambda: build_loss("dice_ce+mlbs"), "Unknown loss 'mlbs'; the names are ce, dice_ce"),
        (lambda: build_loss("ce", margin=3), "ce does not take margin; it takes"),
        (lambda: build_loss("mbls+dice_ce"), "dice_ce has no penalty to add"),
        (lambda: build_loss("focal", gamma=-1), "gamma: expected at least 0"),
        (lambda: build_loss("ls", alpha=1.5), "alpha: expected 0 to 1"),
        (lambda: build_loss("crac", penalty_function="p4"), "penalty_function: expected one of phr, p2, p3"),
        (lambda: build_loss("cals", margin=0.0), "margin: expected more than 0"),
        (lambda: build_loss("acls", neg_lambda=-1.0), "neg_lambda: expected at least 0"),
        (lambda: build_loss("hard_l1ace", num_bins=0), "num_bins: expected at least 1"),
        (lambda: build_loss("soft_l1ace", empty_weight=-0.1), "empty_weight: expected at least 0"),
        (lambda: build_loss("dscpp", gamma=0.5), "gamma: expected at least 1"),
        (lambda: build_loss("flsd", threshold=2.0), "threshold: expected 0 to 1"),
        (lambda: build_loss("logitnorm", temperature=0.0), "temperature: expected more than 0"),
        (lambda: build_loss("mdca+flsd"), "flsd has no penalty to add"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    label = torch.zeros(1, 1, 4, 4)
    for name in STATISTICS:
        with pytest.raises(ValueError, match="one number a batch"):
            build_loss(name, reduction="none")(torch.zeros(1, 2, 4, 4), label)
    with pytest.raises(ValueError, match="multipliers: expected logits of 3 classes, got 2"):
        build_loss("crac", num_classes=3)(torch.zeros(1, 2, 4, 4), label)
    with pytest.raises(ValueError, match="call the loss with image="):
        NACLLoss(kernel_ops="image_proportions_l1")(torch.zeros(1, 2, 4, 4), label)
    with pytest.raises(ValueError, match="one per axis, 2, got"):
        NACLLoss(kernel_size=(3, 3, 3))(torch.zeros(1, 2, 4, 4), label)
    for arguments, message in (({"sigma": 0.0}, "sigma: expected positive"), ({"kernel_size": 1}, "for a neighbour")):
        with pytest.raises(ValueError, match=message):
            SVLSLoss(**arguments)(torch.zeros(1, 2, 4, 4), label)


@pytest.mark.parametrize("name", NAMES)
def test_nan_logits_give_a_nan_loss(name: str) -> None:
    logits = torch.zeros(1, 3, 8, 8)
    logits[0, 1, 4, 4] = float("nan")
    label = torch.zeros(1, 1, 8, 8)
    label[..., 4:] = 1
    assert build_loss(name)(logits, label).isnan()


def test_off_the_cpu_a_wrong_label_poisons_the_loss_without_a_look() -> None:
    logits = torch.zeros(1, 3, 4, device="meta")
    for label in (torch.zeros(1, 4, device="meta"), torch.zeros(1, 3, 4, device="meta")):
        target = prepare(logits, label)  # a look at a value would raise on the meta device
        assert target.poison is not None


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_cuda_equals_cpu_and_never_waits(name: str) -> None:
    logits, label = torch.randn(2, 3, 6, 6, 6), torch.randint(0, 3, (2, 1, 6, 6, 6))
    loss = build_loss(name)
    expected, gradient = value_and_gradient(loss, logits, label)
    on_device = loss.cuda(), logits.cuda(), label.cuda()
    on_device[0](*on_device[1:])  # what is made once and kept has been made
    torch.cuda.set_sync_debug_mode("error")
    try:
        value, own_gradient = value_and_gradient(*on_device)
        poisoned = on_device[0](on_device[1], on_device[2] + 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.cpu(), expected)
    torch.testing.assert_close(own_gradient.cpu(), gradient)
    assert poisoned.isnan()


def value_and_gradient(loss: nn.Module, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, label)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("kind", [torch.uint16, torch.uint32, torch.uint64, torch.bool])
def test_unsigned_and_boolean_labels(kind: torch.dtype) -> None:
    logits, label = torch.randn(2, 3, 4, 4), torch.randint(0, 2, (2, 1, 4, 4))
    for name in ("dice_ce", "nacl", "svls", "crac"):
        loss = build_loss(name)
        torch.testing.assert_close(loss(logits, label.to(kind)), loss(logits, label))


def test_what_is_ignored_is_compared_as_a_number() -> None:
    """156 is -100, and 0 is 256, in the eight bits of a uint8 label."""
    logits = torch.randn(1, 200, 4)
    for ignore_index, value in ((-100, 156), (256, 0)):
        loss = build_loss("ce", ignore_index=ignore_index)
        label = torch.full((1, 1, 4), value)
        expected = F.cross_entropy(logits, label[:, 0])
        torch.testing.assert_close(loss(logits, label.to(torch.uint8)), expected)
        torch.testing.assert_close(loss(logits, label), expected)


def test_one_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="one channel per class, background included, got 1"):
        build_loss("dice_ce")(torch.randn(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))


def test_a_list_of_heads_is_refused() -> None:
    with pytest.raises(TypeError, match="DeepSupervisionLoss"):
        build_loss("dice_ce")([torch.randn(1, 2, 4, 4)], torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize(("name", "arguments"), [("mbls", {"margin": "5"}), ("ce+mbls", {"mbls": {"alpha": "0.1"}})])
def test_a_text_in_place_of_a_number_is_named(name: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"mbls: (margin|alpha): expected a number, got the text '(5|0\.1)'"):
        build_loss(name, **arguments)


@pytest.mark.parametrize("classes", [2, 5, 300])
def test_the_top_class_is_the_first_of_the_largest(classes: int) -> None:
    values = torch.randint(0, 4, (2, classes, 7, 3)).float()  # with many equals
    assert torch.equal(top_class(values, 1).long(), values.argmax(1))
