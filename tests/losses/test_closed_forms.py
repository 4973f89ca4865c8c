"""What theory says of each loss: optima, identities, equality with independent implementations, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceLoss
from monai.losses import FocalLoss as MonaiFocalLoss
from monai.losses import NACLLoss as MonaiNACLLoss
from scipy.ndimage import generic_filter

from monai_calib.losses import PRESETS, LabelSmoothingLoss, MbLSLoss, NACLLoss, SVLSLoss, build_loss
from monai_calib.losses.neighborhood import label_proportions, outer_voxels

KERNEL_OPS_WITHOUT_IMAGE = ("mean", "gaussian", "mode", "median", "max", "min")


def optimum(loss: torch.nn.Module, num_classes: int, spatial: tuple[int, ...] = (3, 3)) -> torch.Tensor:
    """The logits one label everywhere is driven to; the centre is then a free voxel."""
    logits = torch.zeros(1, num_classes, *spatial, dtype=torch.float64, requires_grad=True)
    label = torch.zeros(1, 1, *spatial)
    optimizer = torch.optim.LBFGS([logits], lr=0.5, max_iter=3000, tolerance_grad=1e-13, tolerance_change=1e-16)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(logits, label)
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(closure)
    return logits.detach()


@pytest.mark.parametrize("num_classes", [2, 4])
def test_nacl_caps_confidence_at_one_minus_alpha_over_classes(num_classes: int) -> None:
    # stationarity in l_y above tau_y = 1: s_y - 1 + alpha / K = 0; it is reached by descent, losing logits resting at 0
    alpha = 0.1
    goal = 1 - alpha / num_classes
    winning = math.log(goal * (num_classes - 1) / (1 - goal))
    logits = torch.zeros(1, num_classes, 1, dtype=torch.float64)
    logits[:, 0] = winning
    logits.requires_grad_()
    NACLLoss(alpha=alpha)(logits, torch.zeros(1, 1, 1)).backward()
    assert logits.grad is not None
    assert logits.softmax(1)[0, 0, 0].item() == pytest.approx(goal)
    assert logits.grad[0, 0, 0].item() == pytest.approx(0.0, abs=1e-12)
    # 0 lies within the subgradient of |l_k| for the losing logits, whose cross-entropy gradient is alpha/K/(K-1)
    assert (1 - goal) / (num_classes - 1) <= alpha / num_classes + 1e-12


def test_mbls_with_margin_zero_is_label_smoothing_at_its_optimum() -> None:
    alpha, num_classes = 0.1, 4
    logits = optimum(MbLSLoss(margin=0.0, alpha=alpha), num_classes, (1, 1))
    assert logits.softmax(1)[0, 0, 0, 0].item() == pytest.approx(1 - alpha * (num_classes - 1) / num_classes, abs=1e-6)


def test_label_smoothing_optimum_and_torch_equality() -> None:
    alpha, num_classes = 0.2, 3
    logits = optimum(LabelSmoothingLoss(alpha=alpha), num_classes, (1, 1))
    assert logits.softmax(1)[0, 0, 0, 0].item() == pytest.approx(1 - alpha + alpha / num_classes, abs=1e-6)
    logits, label = torch.randn(2, 3, 5, 6, 4, dtype=torch.float64), torch.randint(0, 3, (2, 5, 6, 4))
    torch.testing.assert_close(
        LabelSmoothingLoss(alpha=alpha)(logits, label), F.cross_entropy(logits, label, label_smoothing=alpha)
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_svls_centre_weighs_half_for_every_sigma(axes: int, sigma: float) -> None:
    label = torch.zeros(1, *[5] * axes, dtype=torch.long)
    label[(0, *[2] * axes)] = 1
    tau = label_proportions(label, 2, "gaussian", 3, sigma, dtype=torch.float64)
    assert tau[(0, 1, *[2] * axes)].item() == pytest.approx(0.5, abs=1e-12)
    torch.testing.assert_close(tau.sum(1), torch.ones_like(tau[:, 0]))


def test_svls_is_half_cross_entropy_plus_a_constraint_on_neighbours() -> None:
    # -sum t log s with t = y/2 + n/2 is CE + (1/2) sum_k (y_k - n_k) l_k
    logits, label = torch.randn(2, 3, 6, 7, dtype=torch.float64), torch.randint(0, 3, (2, 6, 7))
    hot = F.one_hot(label, 3).movedim(-1, 1).double()
    neighbors = 2 * label_proportions(label, 3, "gaussian", dtype=torch.float64) - hot
    expected = F.cross_entropy(logits, label) + 0.5 * ((hot - neighbors) * logits).sum(1).mean()
    torch.testing.assert_close(SVLSLoss()(logits, label), expected)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("distance_type", ["l1", "l2"])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_equals_monai_nacl_with_zero_padding(axes: int, distance_type: str, kernel_size: int) -> None:
    logits, label = torch.randn(2, 3, *[8] * axes), torch.randint(0, 3, (2, *[8] * axes))
    ours = NACLLoss("mean", kernel_size, distance_type, padding="zeros")(logits, label)
    theirs = MonaiNACLLoss(3, axes, kernel_size, "mean", distance_type)(logits, label)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("axes", [2, 3])
def test_equals_monai_dice_ce_and_scaled_focal(axes: int) -> None:
    logits, label = torch.randn(2, 4, *[6] * axes), torch.randint(0, 4, (2, 1, *[6] * axes))
    theirs = DiceCELoss(softmax=True, to_onehot_y=True)(logits, label)
    torch.testing.assert_close(build_loss("dice_ce")(logits, label), theirs)
    focal = MonaiFocalLoss(gamma=3.0, use_softmax=True, to_onehot_y=True, include_background=True)(logits, label)
    torch.testing.assert_close(build_loss("focal")(logits, label), 4 * focal)


# What both follow is no gradient: the winning logit of ACLS is a constant in part of it (test_other_losses.py), and
# surgery multiplies Dice's (test_dice_surgery.py).
@pytest.mark.parametrize("name", [name for name in PRESETS if name not in ("acls", "dice_ce_surgery")])
@pytest.mark.parametrize("axes", [2, 3])
def test_gradcheck(name: str, axes: int) -> None:
    torch.manual_seed(0)
    logits = (3 * torch.randn(1, 3, *[4] * axes, dtype=torch.float64)).requires_grad_()
    label = torch.randint(0, 3, (1, 1, *[4] * axes))
    # margins well inside the logits' range, so that both sides of every hinge are visited
    loss = build_loss(name, **({"margin": 1.0} if name == "mbls" else {}))
    assert torch.autograd.gradcheck(lambda x: loss(x, label), (logits,))


@pytest.mark.parametrize(
    "arguments",
    [
        *({"kernel_ops": ops, "distance_type": d} for ops in KERNEL_OPS_WITHOUT_IMAGE for d in ("l1", "l2")),
        {"kernel_ops": "image_proportions_l1"},
        {"kernel_ops": "image_proportions_l2", "matching": "softmax"},
        {"penalty_region": "outer", "lambda_dice": 1.0},
        {"include_background": False, "weight": [0.2, 1.0, 2.0]},
    ],
    ids=str,
)
def test_gradcheck_of_nacl_variants(arguments: dict[str, object]) -> None:
    torch.manual_seed(0)
    logits = (2 * torch.randn(2, 3, 4, 3, 5, dtype=torch.float64)).requires_grad_()
    label, image = torch.randint(0, 3, (2, 1, 4, 3, 5)), torch.randn(2, 1, 4, 3, 5)
    loss = NACLLoss(**arguments)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda x: loss(x, label, image=image), (logits,))


@pytest.mark.parametrize("padding", ["replicate", "valid", "background", "zeros"])
@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 5), (5, 3)])
def test_proportions_equal_brute_force(padding: str, kernel_size: tuple[int, int]) -> None:
    label = torch.randint(0, 4, (1, 6, 7))
    mode, outside = {"replicate": ("nearest", 0), "background": ("constant", 0)}.get(padding, ("constant", 9))
    around = {"size": kernel_size, "mode": mode, "cval": outside}
    filtered = [generic_filter(label[0].numpy(), lambda patch, k=k: (patch == k).sum(), **around) for k in range(4)]
    counts = torch.tensor(np.stack(filtered))
    total = counts.sum(0) if padding == "valid" else math.prod(kernel_size)
    tau = label_proportions(label, 4, "mean", kernel_size, padding=padding)
    torch.testing.assert_close(tau[0], (counts / total).float())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), axes=st.integers(1, 3), classes=st.integers(2, 5), size=st.sampled_from([1, 3, 5]))
def test_soft_one_hot_labels_give_what_class_numbers_give(seed: int, axes: int, classes: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, classes, (2, *[5] * axes), generator=generator)
    hot = F.one_hot(label, classes).movedim(-1, 1).double()
    for ops in KERNEL_OPS_WITHOUT_IMAGE if size > 1 else ("mean", "mode", "median", "max", "min"):
        for padding in ("replicate", "valid", "background", "zeros"):
            by_number = label_proportions(label, classes, ops, size, padding=padding, dtype=torch.float64)
            by_channel = label_proportions(hot, classes, ops, size, padding=padding, dtype=torch.float64)
            torch.testing.assert_close(by_number, by_channel)
            if padding != "zeros" or ops not in ("mean", "gaussian"):
                torch.testing.assert_close(by_number.sum(1), torch.ones_like(by_number[:, 0]))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    axes=st.integers(1, 3),
    size=st.sampled_from([1, 3, 5]),
    channels=st.integers(1, 2),
    padding=st.sampled_from(["replicate", "valid", "background", "zeros"]),
    ignored=st.booleans(),
)
def test_compiled_image_guided_prior_equals_the_formula(
    seed: int, axes: int, size: int, channels: int, padding: str, ignored: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = torch.randint(1, 7, (axes,), generator=generator).tolist()
    label = torch.randint(0, 4 if ignored else 3, (2, *shape), generator=generator)
    image = torch.randn(2, channels, *shape, generator=generator)
    for ops in ("image_proportions_l1", "image_proportions_l2"):
        arguments = (label, 3, ops, size, 1.0, padding, image, 3 if ignored else None)
        compiled, formula = (label_proportions(*arguments, dtype=dtype) for dtype in (torch.float32, torch.float64))
        torch.testing.assert_close(compiled, formula.float(), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([3, 5]))
def test_mean_mode_and_gaussian_do_not_depend_on_the_numbering(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 3, (1, 6, 6), generator=generator)
    numbering = torch.randperm(3, generator=generator)
    for ops in ("mean", "gaussian"):
        before = label_proportions(label, 3, ops, size)
        after = label_proportions(numbering[label], 3, ops, size)
        torch.testing.assert_close(before, after[:, numbering])


def test_outer_voxels_equal_brute_force() -> None:
    label = torch.zeros(1, 9, 9, 9, dtype=torch.uint8)
    label[0, 3:6, 2:7, 4:] = 2
    label[0, 5:, 5:, 5:] = 1
    extent = generic_filter(label[0].numpy(), lambda p: p.max() != p.min(), size=3, mode="nearest")
    assert (outer_voxels(label, 3)[0].numpy() == extent.astype(bool)).all()


def test_outer_penalty_is_the_masked_sum_over_all_voxels() -> None:
    logits, label = torch.randn(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long)
    label[:, 2:5, 3:6] = 1
    voxelwise = NACLLoss(reduction="none")(logits, label) - F.cross_entropy(logits, label, reduction="none")
    expected = F.cross_entropy(logits, label) + (voxelwise * outer_voxels(label)).sum() / label.numel()
    torch.testing.assert_close(NACLLoss(penalty_region="outer")(logits, label), expected)


def test_recommended_is_dice_and_cross_entropy_with_the_penalty_where_labels_meet() -> None:
    logits, label = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8))
    joined = build_loss("dice_ce+nacl_outer", alpha=1.0)
    assert torch.equal(build_loss("recommended")(logits, label), joined(logits, label))


def test_deep_supervision_and_joined_losses() -> None:
    label = torch.randint(0, 3, (2, 1, 8, 8)).float()
    outputs = [torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)]
    loss = DeepSupervisionLoss(build_loss("dice_ce+nacl_outer"))
    assert torch.isfinite(loss(outputs, label))
    logits = outputs[0].double()
    joined = build_loss("dice_ce+mbls+nacl", margin=1.0, mbls={"alpha": 0.3}, nacl={"alpha": 0.2})(logits, label)
    ce = F.cross_entropy(logits, label.squeeze(1).long())
    dice = DiceLoss(softmax=True, to_onehot_y=True)(logits, label)
    margin = build_loss("mbls", margin=1.0, alpha=0.3)(logits, label) - ce
    nacl = build_loss("nacl", alpha=0.2)(logits, label) - ce
    torch.testing.assert_close(joined, ce + dice + margin + nacl)
