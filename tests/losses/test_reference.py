"""Every value and gradient of the reference implementations, from the recorded vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss

from monai_calib.losses import build_loss
from monai_calib.losses.nacl import NACLLoss

REFERENCE = Path(__file__).parents[1] / "reference"


def _cases() -> list[Any]:
    return [
        pytest.param(path.stem, name, id=f"{path.stem}-{name}")
        for path in sorted(REFERENCE.glob("case_*.json"))
        for name in json.loads(path.read_text())
        if name != "metrics_per_case"
    ]


def _build(name: str, params: dict[str, Any]) -> torch.nn.Module:
    if name == "dice":
        return DiceLoss(include_background=True, softmax=True, to_onehot_y=True)
    if name.startswith("nacl"):
        return NACLLoss(
            kernel_ops=params["kernel"],
            kernel_size=params["kernel_size"],
            distance_type=params["distance"],
            alpha=params["alpha"],
            sigma=params.get("sigma", 1.0),
            padding=params["padding"].split(" ")[0],
        )
    preset = {"cross_entropy": "ce", "label_smoothing": "ls", "entropy_penalty": "ecp"}.get(name, name.split("_")[0])
    known = {"alpha", "margin", "gamma", "sigma", "kernel_size", "padding"}
    return build_loss(preset, **{key: value for key, value in params.items() if key in known})


@pytest.mark.parametrize(("case", "name"), _cases())
def test_value_and_gradient(case: str, name: str) -> None:
    record = json.loads((REFERENCE / f"{case}.json").read_text())[name]
    with np.load(REFERENCE / f"{case}.npz") as arrays:
        logits = torch.from_numpy(arrays["logits"]).double().requires_grad_()
        label = torch.from_numpy(arrays["label"]).unsqueeze(1)
        image = torch.from_numpy(arrays["image"])
        gradient = torch.from_numpy(arrays[f"grad_{name}"]).double()
    loss = _build(name, record["params"])
    value = loss(logits, label.long()) if name == "dice" else loss(logits, label, image=image)
    value.backward()
    assert value.item() == pytest.approx(record["value"], abs=1e-5)
    torch.testing.assert_close(logits.grad, gradient, atol=1e-5 * gradient.abs().max().item(), rtol=1e-5)
