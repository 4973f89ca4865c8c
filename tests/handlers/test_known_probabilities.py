"""Evaluation against the known probability of each class, as a phantom has it, in the place of the drawn label."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.transforms import Compose, Orientationd, Spacingd

from monai_calib.data import load_datalist
from monai_calib.datasets.phantom import (
    load_posterior,
    phantom_case,
    posterior_distance,
    true_calibration_error,
    write_phantom,
)
from monai_calib.handlers import CalibrationHandler
from monai_calib.metrics import CaseEvaluation, read_evaluated
from monai_calib.transforms import LoadCased, LoadPosteriord

CLASSES = 3


def phantom_volumes(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior and drawn label of a small case."""
    case = phantom_case(number, shape=(12, 16, 12), spacing=(2, 2, 2))
    posterior = torch.from_numpy(case.posterior.astype(np.float32) / 2**15).movedim(-1, 0)
    return posterior, torch.from_numpy(case.label.astype(np.int64))[None]


def sharpened(posterior: torch.Tensor, power: float) -> torch.Tensor:
    """An over-confident predictor with the posterior's labels."""
    raised = posterior**power
    return raised / raised.sum(0)


def test_errors_are_the_phantoms_true_ones() -> None:
    posterior, label = phantom_volumes(0)
    p = sharpened(posterior, 3.0)
    evaluation = CaseEvaluation(CLASSES, ["by_region"], posterior=True)
    values = evaluation.measure(p, label, (2.0, 2.0, 2.0), posterior=posterior).values
    assert values["ece_all_15bins"][0] == pytest.approx(true_calibration_error(p, posterior), abs=1e-6)
    assert values["posterior_distance_all"][0] == pytest.approx(posterior_distance(p, posterior), abs=1e-6)
    assert values["ece_all_15bins"][0] > 0.001
    entropy = -(posterior.double() * posterior.double().clamp_min(1e-30).log()).sum(0).mean()
    true = evaluation.measure(posterior, label, (2.0, 2.0, 2.0), posterior=posterior).values
    assert true["nll_all"][0] == pytest.approx(float(entropy), abs=1e-4)
    for name in ("ece_all_15bins", "ece_union_15bins", "posterior_distance_all", "posterior_distance_boundary2mm"):
        assert true[name][0] == pytest.approx(0, abs=1e-6), f"{name}: no region is picked by the drawn label"


def test_logits_and_another_drawing_of_the_label_change_nothing() -> None:
    posterior, label = phantom_volumes(1)
    p = sharpened(posterior, 2.0)
    expected = CaseEvaluation(CLASSES, ["by_region"], posterior=True).measure(p, label, (2.0,) * 3, posterior=posterior)
    evaluation = CaseEvaluation(CLASSES, ["by_region"], from_logits=True, posterior=True)
    other = torch.zeros_like(label)
    found = evaluation.measure(p.clamp_min(1e-30).log(), other, (2.0,) * 3, posterior=posterior)
    for name, row in expected.values.items():
        assert found.values[name] == pytest.approx(row, abs=1e-5, nan_ok=True), name


def test_the_handler_reports_the_distance_of_each_case(tmp_path: Path) -> None:
    cases = [phantom_volumes(number) for number in range(2)]
    evaluator = Engine(lambda engine, batch: batch)
    CalibrationHandler(
        CLASSES,
        ["by_region"],
        lambda output: ([sharpened(item["posterior"], 2.0) for item in output], [item["label"] for item in output]),
        tmp_path,
        spacing=(2.0, 2.0, 2.0),
        posterior_key="posterior",
    ).attach(evaluator)
    evaluator.run([[{"posterior": posterior, "label": label}] for posterior, label in cases])
    evaluated = read_evaluated(tmp_path)
    expected = [posterior_distance(sharpened(posterior, 2.0), posterior) for posterior, _ in cases]
    assert evaluated.values("posterior_distance_all") == pytest.approx(expected, abs=1e-6)
    assert evaluated.summary["posterior_distance_all_macro"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert evaluated.metrics["posterior_distance_all"].direction == -1


def test_a_case_without_its_probabilities_is_named() -> None:
    posterior, label = phantom_volumes(0)
    with pytest.raises(ValueError, match="expected one of every case"):
        CaseEvaluation(CLASSES, posterior=True).measure(posterior, label, (2.0,) * 3)
    with pytest.raises(ValueError, match="expected one of every case"):
        CaseEvaluation(CLASSES).measure(posterior, label, (2.0,) * 3, posterior=posterior)
    with pytest.raises(ValueError, match=r"expected the shape of the prediction \(3, 12, 16, 12\)"):
        CaseEvaluation(CLASSES, posterior=True).measure(posterior, label, (2.0,) * 3, posterior=posterior[..., 1:])
    with pytest.raises(ValueError, match="expected softmax predictions"):
        CaseEvaluation(CLASSES, ["by_region_sigmoid"], activation="sigmoid", posterior=True)


def test_probabilities_follow_the_image(tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", cases=3, shape=(12, 16, 12), spacing=(3, 3, 3))
    (case,) = load_datalist(tmp_path / "data", "test", also=["posterior"])
    stored = torch.from_numpy(load_posterior(case["posterior"]))
    load = LoadCased(("image", "label"), CLASSES)
    assert torch.equal(LoadPosteriord("posterior")(load(case))["posterior"].as_tensor(), stored)
    keys = ("image", "label")
    turned = Compose([load, Orientationd(keys, "LAS", labels=None), LoadPosteriord("posterior")])(case)
    torch.testing.assert_close(turned["posterior"].as_tensor(), stored.flip(1), atol=1e-5, rtol=0)
    finer = Compose([load, Spacingd(keys, (1.5, 3, 3), mode=("bilinear", "nearest")), LoadPosteriord("posterior")])(
        case
    )
    assert finer["posterior"].shape[1:] == finer["image"].shape[1:]
    torch.testing.assert_close(finer["posterior"].sum(0).as_tensor(), torch.ones(finer["image"].shape[1:]))
    with pytest.raises(ValueError, match="expected a 4D posterior"):
        LoadPosteriord("image_file")({**load(case), "image_file": case["image"]})


def test_a_list_without_the_file_is_refused(tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", cases=3, shape=(12, 16, 12), spacing=(3, 3, 3))
    file = tmp_path / "data" / "posteriorsTr" / "synthetic_003.nii.gz"
    assert nib.nifti1.load(file).shape == (12, 16, 12, 3)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="test, entry 0, 'posterior': names"):
        load_datalist(tmp_path / "data", "test", also=["posterior"])
    assert "posterior" not in load_datalist(tmp_path / "data", "test")[0]
