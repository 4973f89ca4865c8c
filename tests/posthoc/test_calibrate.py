"""From a trained network to files: fit, fold, compare, write, and read where this package is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet

from monai_calib.posthoc import METHODS, Calibrator, LogitStream, calibrate, compare, fit

FOLDABLE = {"temperature", "classwise_temperature", "vector", "matrix"}
INFERER = SlidingWindowInferer((8, 8, 8), overlap=0.5, mode="gaussian")


def network() -> UNet:
    torch.manual_seed(0)
    unet = UNet(3, in_channels=1, out_channels=3, channels=(4, 8), strides=(2,), num_res_units=1, norm="batch")
    with torch.no_grad():  # over-confident: larger logits than its data deserve
        for parameter in list(unet.parameters())[-2:]:
            parameter.mul_(8)
    return unet.eval()


def loader(count: int = 3) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(count):
        image = torch.randn(1, 1, 12, 10, 8, generator=generator)
        logits = INFERER(image, network())
        label = torch.multinomial((logits / 3)[0].flatten(1).softmax(0).T, 1, generator=generator)
        batches.append({"image": image, "label": label.reshape(1, 1, 12, 10, 8).to(torch.uint8)})
    return batches


def run(folder: Path, method: str = "temperature", **arguments: Any) -> Any:
    settings = {"num_classes": 3, "models_dir": folder / "models", "output_dir": folder / "eval", "spacing": (1, 1, 1)}
    return calibrate(network(), loader(), INFERER, method=method, region="all", **{**settings, **arguments})


@pytest.mark.parametrize("method", sorted(FOLDABLE))
def test_the_folded_file_loads_into_monais_network_and_computes_the_calibrated_logits(
    method: str, tmp_path: Path
) -> None:
    result = run(tmp_path, method)
    assert result.model_path == tmp_path / "models" / "model_calibrated.pt"
    plain = network()
    image = loader()[0]["image"]
    expected = result.calibrator.apply(INFERER(image, plain))
    plain.load_state_dict(torch.load(result.model_path, weights_only=True))
    torch.testing.assert_close(INFERER(image, plain), expected, rtol=1e-4, atol=1e-4)


def test_files_say_what_was_done(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pt"
    torch.save(network().state_dict(), checkpoint)
    result = run(tmp_path, also=["vector"], checkpoint=checkpoint, run={"seed": 3})
    assert result.calibrator.temperature == pytest.approx(3, rel=0.1)
    saved = json.loads((tmp_path / "models" / "calibration_parameters.json").read_text())
    assert saved["run"] == {"seed": 3}
    logits = torch.randn(1, 3, 4, 4)
    assert torch.equal(Calibrator.from_json(saved).apply(logits), result.calibrator.apply(logits))
    content = json.loads((tmp_path / "eval" / "before_after.json").read_text())
    assert set(content["summary"]) == {"before", "temperature", "vector"}
    assert content["labels_changed"]["temperature"] == 0
    for name in ("nll_all_micro", "ece_all_15bins_micro"):
        assert content["summary"]["temperature"][name] < content["summary"]["before"][name]
    mean, low, high = content["change"]["temperature"]["nll_all"]
    assert low <= mean <= high < 0
    page = (tmp_path / "eval" / "before_after.md").read_text()
    assert "| figure | before | temperature | vector |" in page
    assert "fitted on" in page


def test_the_first_row_is_the_network_before_and_its_labels_stay(tmp_path: Path) -> None:
    stream = LogitStream(network(), loader(), INFERER, spacing=(1, 1, 1))
    calibrator = run(tmp_path).calibrator
    comparison = compare({"again": calibrator}, stream)
    assert comparison.labels_changed == {"again": 0}
    assert comparison.summary["before"]["nll_all_micro"] == pytest.approx(calibrator.record.nll_before, rel=1e-5)


ALONE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "monai_calib":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import torch
image, expected = torch.load(sys.argv[2], weights_only=True)
if sys.argv[1].endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"image": image.numpy()})[0]).softmax(1)
else:
    found = torch.jit.load(sys.argv[1])(image).softmax(1)
assert "monai_calib" not in sys.modules
print(float((found - expected).abs().max()))
"""


def difference_alone(model: Path, image: torch.Tensor, probability: torch.Tensor) -> float:
    """Largest difference of probabilities in a process that cannot import this package."""
    torch.save((image, probability), model.with_suffix(".example"))
    command = [sys.executable, "-c", ALONE, str(model), str(model.with_suffix(".example"))]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return float(result.stdout)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_exports_compute_the_same_probabilities_without_this_package(method: str, kind: str, tmp_path: Path) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    from monai_calib.posthoc import CalibratedNetwork, build_calibrator, export_onnx, export_torchscript

    calibrator = build_calibrator(method, 3, "all")
    fit([calibrator], LogitStream(network(), loader(1), INFERER, spacing=(1, 1, 1)))
    whole = CalibratedNetwork(network(), calibrator).eval()
    image = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(2))
    export = export_onnx if kind == "onnx" else export_torchscript
    path = export(whole, image, tmp_path / ("model.onnx" if kind == "onnx" else "model.ts"))
    with torch.no_grad():
        probability = whole(image).softmax(1)
    torch.testing.assert_close(probability, calibrator.apply(network()(image), image).softmax(1))
    assert difference_alone(path, image, probability) < 1e-5
