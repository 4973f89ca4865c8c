"""Metrics as other packages compute them, on arrays in a file; run in an environment of its own, without this package.

    python metric_table_others.py INPUTS.npz OTHERS.json

Each entry is ``metric: {package: value}``. Arrays: ``probability (n, K)``, ``label (n,)``, ``members (M, n, K)``.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

import numpy as np


def torch_uncertainty(data: Any) -> dict[str, float]:
    import torch
    from torch_uncertainty import metrics as tu

    p, y = torch.from_numpy(data["probability"]), torch.from_numpy(data["label"])
    members = torch.from_numpy(data["members"]).transpose(0, 1)  # (n, M, K)
    classes = p.shape[1]

    def of(metric: Any, *arguments: Any) -> float:
        metric.update(*arguments)
        return float(metric.compute())

    return {
        "ece": of(tu.CalibrationError("multiclass", num_bins=15, num_classes=classes), p, y),
        "rmsce": of(tu.CalibrationError("multiclass", num_bins=15, norm="l2", num_classes=classes), p, y),
        "mce": of(tu.CalibrationError("multiclass", num_bins=15, norm="max", num_classes=classes), p, y),
        "adaptive_ece": of(tu.AdaptiveCalibrationError("multiclass", num_bins=15, num_classes=classes), p, y),
        "classwise_ece": of(tu.ClasswiseCalibrationError(num_classes=classes, num_bins=15), p, y),
        "brier": of(tu.BrierScore(classes), p, y),
        "nll": of(tu.CategoricalNLL(), p, y),
        "smooth_ece": of(tu.SmoothCalibrationError(kernel_type="reflected"), p, y),
        "aurc": of(tu.AURC(), p, y),
        "augrc": of(tu.AUGRC(), p, y),
        "entropy": of(tu.Entropy(), members.mean(1)),
        "mutual_information": of(tu.MutualInformation(), members),
        "disagreement": of(tu.Disagreement(), members),
    }


def monai_weekly(data: Any) -> dict[str, float]:
    import torch
    from monai.metrics import CalibrationErrorMetric

    p, y = torch.from_numpy(data["probability"]), torch.from_numpy(data["label"])
    hot = torch.nn.functional.one_hot(y, p.shape[1])
    found = {}
    for name, reduction in {
        "classwise_ece": "expected",
        "classwise_ace": "average",
        "classwise_mce": "maximum",
    }.items():
        metric = CalibrationErrorMetric(num_bins=15, include_background=True, calibration_reduction=reduction)
        metric(y_pred=p.T[None, :, :, None], y=hot.T[None, :, :, None])
        found[name] = float(metric.aggregate())  # type: ignore[arg-type]
    return found


def torchmetrics(data: Any) -> dict[str, float]:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    p, y = torch.from_numpy(data["probability"]), torch.from_numpy(data["label"])
    names: dict[str, Any] = {"ece": "l1", "rmsce": "l2", "mce": "max"}
    return {name: float(multiclass_calibration_error(p, y, p.shape[1], 15, norm)) for name, norm in names.items()}


def relplot(data: Any) -> dict[str, float]:
    import relplot

    confidence = data["probability"].max(1).astype(np.float64)
    hit = (data["probability"].argmax(1) == data["label"]).astype(np.float64)
    return {"smooth_ece": float(relplot.smECE(confidence, hit))}


PACKAGES = {
    "torch-uncertainty": torch_uncertainty,
    "MONAI weekly": monai_weekly,
    "torchmetrics": torchmetrics,
    "relplot": relplot,
}
DISTRIBUTIONS = {"MONAI weekly": "monai-weekly"}


def main(inputs: str, output: str) -> None:
    data = np.load(inputs)
    values: dict[str, dict[str, float]] = {}
    for package, compute in PACKAGES.items():
        for metric, value in compute(data).items():
            values.setdefault(metric, {})[package] = value
    versions = {package: version(DISTRIBUTIONS.get(package, package)) for package in PACKAGES}
    with open(output, "w", encoding="utf-8") as file:
        json.dump({"versions": versions, "values": values}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
