"""Composites as binary problems, against the sums done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from evaluation import run_plain

from monai_calib.handlers import BRATS_COMPOSITES, CompositeHandler
from monai_calib.metrics import CalibrationHistogram, ece, read_evaluated


def run(handler: CompositeHandler, *outputs):
    return run_plain(handler, *outputs).metrics


def case(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 4, (1, 1, 10, 10), generator=generator)
    logits = torch.randn(1, 4, 10, 10, generator=generator) + 2 * torch.nn.functional.one_hot(label[:, 0], 4).movedim(
        -1, 1
    )
    return logits.softmax(1), label


def handler(**arguments) -> CompositeHandler:
    arguments = {"composites": BRATS_COMPOSITES, "output_transform": lambda output: output, **arguments}
    return CompositeHandler(4, spacing=(1.0, 1.0), **arguments)


def test_probabilities_are_summed_and_the_rest_is_background(tmp_path):
    prediction, label = case(0)
    found = run(handler(output_dir=tmp_path, run={"seed": 3}), (prediction, label))
    for name, labels in BRATS_COMPOSITES.items():
        inside = prediction[:, labels].sum(1, keepdim=True)
        truth = torch.isin(label, torch.tensor(labels)).long()
        hist = CalibrationHistogram(2)
        hist.update(torch.cat([1 - inside, inside], 1), truth, from_logits=False)
        assert found[f"{name}_ece_all_15bins_macro"] == pytest.approx(ece(hist), abs=1e-6)
        predicted = inside > 0.5
        overlap = 2 * (predicted & (truth == 1)).sum() / (predicted.sum() + truth.sum())
        assert found[f"{name}_dice"] == pytest.approx(overlap.item())
        evaluated = read_evaluated(tmp_path / name)
        assert evaluated.run == {"seed": 3, "composite": name, "labels": labels}
        assert evaluated.classes == ("background", name)


def test_one_hot_labels_agree_with_indices():
    prediction, label = case(1)
    one_hot = torch.nn.functional.one_hot(label[:, 0], 4).movedim(-1, 1).float()
    assert run(handler(), (prediction, one_hot)) == pytest.approx(run(handler(), (prediction, label)), nan_ok=True)


def test_in_neither_is_left_out_and_invented_scores_zero():
    nothing = torch.zeros(2, 1, 6, 6)
    prediction = torch.tensor([0.97, 0.01, 0.01, 0.01]).view(1, 4, 1, 1).repeat(2, 1, 6, 6)
    assert math.isnan(run(handler(), (prediction, nothing))["ET_dice"])
    prediction[1, :, 2, 2] = torch.tensor([0.1, 0.1, 0.1, 0.7])
    assert run(handler(), (prediction, nothing))["ET_dice"] == 0.0


def test_wrong_input_is_refused():
    prediction, label = case(2)
    with pytest.raises(ValueError, match=r"case case_0001: .*whole class numbers from 0 to 1, got -1"):
        run(handler(), (prediction, label + 1))
    with pytest.raises(ValueError, match="expected 4 probabilities a voxel"):
        run(handler(), (prediction[:, :3], label))
    for labels in ([], [0, 1], [4]):
        with pytest.raises(ValueError, match=r"foreground labels out of 1 \.\.\. 3"):
            handler(composites={"X": labels})


def test_ignored_voxels_count_nowhere():
    prediction, label = case(3)
    half = label.clone()
    half[..., 5:] = 255
    found = run(handler(ignore_index=255, protocols=["paper"]), (prediction, half))
    assert found == pytest.approx(run(handler(protocols=["paper"]), (prediction[..., :5], label[..., :5])), abs=1e-12)
