"""What a clinician would be shown of each case of a run, beside the truth: volumes, expected Dice, misses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pages import rounded, write_json
from posthoc_results import NONE, fitted
from run_logits import RunLogits, load_logits, name_of

from monai_calib.clinical import ConformalVolumeFit, FalseNegativeControl, VolumeFit, expected_dice, expected_volume
from monai_calib.handlers.checkpoint import training_settings
from monai_calib.metrics.overlap import dice_coefficients
from monai_calib.posthoc import Calibrator

CORRECTIONS = (NONE, "temperature", "boundary temperature", "boundary vector", "vector, all", "isotonic, all")
"""Corrections whose clinical output is measured; those of posthoc_results.py."""
LIMITS = (0.1, 0.2)
"""False-negative rates to promise."""
CONFORMAL_LEVEL = 0.9
"""What 17 validation subjects can promise; 95 % would need 19."""


def measure(run: Path, dataset_dir: Path, cache: Path) -> None:
    """Write the cases of each correction that ``cache`` does not hold yet."""
    name = name_of(training_settings(run / "models"))
    missing = [c for c in CORRECTIONS if not (cache / "clinical" / name / f"{c}.json").is_file()]
    if not missing:
        return
    validation, test = (load_logits(run, split, dataset_dir, cache) for split in ("validation", "test"))
    for correction in missing:
        calibrator = fitted(correction, validation, cache / "figures" / name)
        content = {"correction": correction, **measured(calibrator, validation, test)}
        write_json(cache / "clinical" / name / f"{correction}.json", content)
        print(f"{run}: {correction}", flush=True)


def measured(calibrator: Calibrator | None, validation: RunLogits, test: RunLogits) -> dict[str, Any]:
    """Everything that is fitted on the validation cases, and what it says of the test cases."""
    num_classes = len(test.class_names)
    volume_fit, conformal_fit = VolumeFit(num_classes), ConformalVolumeFit(num_classes)
    controls = [FalseNegativeControl(num_classes, limit) for limit in LIMITS]
    expected_dices = []
    for i, case in enumerate(validation.cases):
        assert case.spacing is not None  # volumes are in ml
        probability = probabilities(validation, i, calibrator)
        volume_fit.update(probability, case.label, case.spacing)
        conformal_fit.update(probability, case.label, case.spacing, validation.subjects[i])
        for control in controls:
            control.update(probability, case.label, subject=validation.subjects[i])
        expected_dices.append(expected_dice(probability))
    for control in controls:
        control.fit()
    models, conformal = volume_fit.models(), conformal_fit.models()
    rows = []
    for i, case in enumerate(test.cases):
        assert case.spacing is not None
        probability = probabilities(test, i, calibrator)
        label = probability.argmax(0)
        student = expected_volume(probability, case.spacing, models)
        guaranteed = expected_volume(probability, case.spacing, conformal, CONFORMAL_LEVEL)
        score_of = ConformalVolumeFit(num_classes)
        score_of.update(probability, case.label, case.spacing, test.subjects[i])
        truth = [case.label == k for k in range(1, num_classes)]
        voxel_ml = torch.tensor(case.spacing).prod().item() / 1000
        row = {
            "true_ml": [voxel_ml * int(mask.sum()) for mask in truth],
            "expected_ml": [estimate.ml for estimate in student],
            "label_ml": [estimate.label_ml for estimate in student],
            "interval": [[estimate.low_ml, estimate.high_ml] for estimate in student],
            "conformal": [[estimate.low_ml, estimate.high_ml] for estimate in guaranteed],
            "score": [model.scores[0][0] for model in score_of.models()],
            "expected_dice": expected_dice(probability),
            "dice": dice_coefficients(label, case.label, num_classes),
            "missed_label": [missed(label == k, truth[k - 1]) for k in range(1, num_classes)],
        }
        for limit, control in zip(LIMITS, controls, strict=True):
            kept = control.keep(probability)
            row[f"missed_{limit:g}"] = [missed(*pair) for pair in zip(kept, truth, strict=True)]
            row[f"kept_{limit:g}"] = [float(k.sum() / t.sum()) for k, t in zip(kept, truth, strict=True)]
        rows.append(row)
    return {
        "settings": test.settings,
        "loss": test.loss,
        "structures": test.class_names[1:],
        "cases": [case.name for case in test.cases],
        "subjects": test.subjects,
        "correlation_mm": [model.correlation_mm for model in models],
        "inflation": [model.inflation for model in models],
        "validation_expected_dice": expected_dices,
        "test": {key: rounded([row[key] for row in rows], 6) for key in rows[0]},
    }


def probabilities(split: RunLogits, index: int, calibrator: Calibrator | None) -> torch.Tensor:
    """Softmax of a case's logits after the correction, ``(K, *spatial)``."""
    case = split.cases[index]
    if calibrator is None:
        return case.logits.softmax(0)
    return calibrator.apply(case.logits[None], None if case.image is None else case.image[None])[0].softmax(0)


def missed(kept: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of the true voxels that are not kept; every test case holds every structure."""
    return float((truth & ~kept).sum() / truth.sum())
