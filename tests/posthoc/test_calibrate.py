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
from torch import nn

from monai_calib.files import FileError
from monai_calib.metrics.serial import array_from_json
from monai_calib.posthoc import (
    METHODS,
    CalibratedNetwork,
    Calibrator,
    LogitStream,
    build_calibrator,
    calibrate,
    calibrated_model,
    compare,
    export_onnx,
    export_torchscript,
    fit,
    fold,
    posthoc_settings,
)

FOLDABLE = {"temperature", "classwise_temperature", "vector", "matrix"}
INFERER = SlidingWindowInferer((8, 8, 8), overlap=0.5, mode="gaussian")
INFERER_2D = SlidingWindowInferer((8, 8), overlap=0.5, mode="gaussian")


def network(dims: int = 3) -> UNet:
    torch.manual_seed(0)
    unet = UNet(dims, in_channels=1, out_channels=3, channels=(4, 8), strides=(2,), num_res_units=1, norm="batch")
    with torch.no_grad():  # over-confident: larger logits than its data deserve
        for parameter in list(unet.parameters())[-2:]:
            parameter.mul_(8)
    return unet.eval()


def loader(count: int = 3, dims: int = 3) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(count):
        image = torch.randn(1, 1, *(12, 10, 8)[:dims], generator=generator)
        logits = (INFERER if dims == 3 else INFERER_2D)(image, network(dims))
        label = torch.multinomial((logits / 3)[0].flatten(1).softmax(0).T, 1, generator=generator)
        batches.append({"image": image, "label": label.reshape(image.shape).to(torch.uint8)})
    return batches


def run(folder: Path, method: str = "temperature", **arguments: Any) -> Any:
    settings = {"num_classes": 3, "models_dir": folder / "models", "output_dir": folder / "eval", "spacing": (1, 1, 1)}
    return calibrate(network(), loader(), INFERER, method=method, region="all", force=True, **{**settings, **arguments})


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
    for method, tables in content["bins"].items():
        count, hits, confidence = array_from_json(tables["all"]).sum(axis=0)
        assert count.sum() == content["voxels"], "the whole volume"
        gap = abs(hits - confidence).sum() / count.sum()
        assert gap == pytest.approx(content["summary"][method]["ece_all_15bins_micro"], rel=1e-6)
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
from pathlib import Path
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "monai_calib":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import torch
for example in sorted(Path(sys.argv[1]).glob("*.example")):
    image, expected = torch.load(example, weights_only=True)
    model = example.with_suffix("")
    if model.suffix == ".onnx":
        import onnxruntime
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(None, {"image": image.numpy()})[0]).softmax(1)
    else:
        found = torch.jit.load(model)(image).softmax(1)
    print(model.name, float((found - expected).abs().max()))
assert "monai_calib" not in sys.modules
"""


def exports_are_the_same_elsewhere(folder: Path, suffix: str, size: int, dims: int = 3) -> None:
    """Export the network with the head of each method, and folded; another process without this package runs them."""
    calibrators = {name: build_calibrator(name, 3, "all") for name in METHODS}
    inferer = INFERER if dims == 3 else INFERER_2D
    fit(list(calibrators.values()), LogitStream(network(dims), loader(1, dims), inferer, spacing=(1,) * dims))
    export = export_onnx if suffix == ".onnx" else export_torchscript
    image = torch.randn(1, 1, size, *[8] * (dims - 1), generator=torch.Generator().manual_seed(2))
    window = torch.randn(1, 1, *[8] * dims)
    for name, calibrator in calibrators.items():
        with torch.no_grad():
            logits = network(dims)(image)
            probability = calibrator.apply(logits, image).softmax(1)
        assert not torch.allclose(probability, logits.softmax(1), atol=1e-3)
        networks: dict[str, nn.Module] = {name: CalibratedNetwork(network(dims), calibrator)}
        if name in FOLDABLE:
            networks[f"{name}_folded"] = fold(network(dims), calibrator, window)
        for key, whole in networks.items():
            export(whole.eval(), window, folder / f"{key}{suffix}")
            torch.save((image, probability), folder / f"{key}{suffix}.example")
    result = subprocess.run([sys.executable, "-c", ALONE, str(folder)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    differences = {line.split()[0]: float(line.split()[1]) for line in result.stdout.splitlines()}
    names = {*METHODS, *(f"{name}_folded" for name in FOLDABLE)}
    assert set(differences) == {f"{name}{suffix}" for name in names}
    assert max(differences.values()) < 1e-5, differences


@pytest.mark.parametrize("dims", [2, 3])
def test_torchscript_computes_the_same_probabilities_without_this_package(dims: int, tmp_path: Path) -> None:
    exports_are_the_same_elsewhere(tmp_path, ".ts", 12, dims)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_onnx_computes_the_same_probabilities_without_this_package(dims: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    exports_are_the_same_elsewhere(tmp_path, ".onnx", 8, dims)


def test_a_method_with_a_head_is_written_as_torchscript_and_replaces_an_older_model(tmp_path: Path) -> None:
    assert run(tmp_path).model_path.name == "model_calibrated.pt"
    result = run(tmp_path, "isotonic")
    assert result.model_path == tmp_path / "models" / "model_calibrated.ts"
    assert not (tmp_path / "models" / "model_calibrated.pt").exists()
    image = torch.randn(1, 1, 8, 8, 8)
    expected = result.calibrator.apply(network()(image))
    torch.testing.assert_close(torch.jit.load(result.model_path)(image), expected, rtol=1e-4, atol=1e-4)


def test_an_unknown_method_and_an_empty_loader_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown method 'plat'; expected one of temperature"):
        run(tmp_path, "plat")
    with pytest.raises(ValueError, match="the loader gave no case"):
        calibrate(network(), [], num_classes=3, models_dir=tmp_path, output_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_beside_another_ones_record_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    models = tmp_path / "models"
    assert posthoc_settings(models) == {"posthoc": "temperature", "posthoc_region": "all"}
    assert calibrated_model(models) == str(models / "model_calibrated.pt")
    torch.save(network().state_dict(), models / "model_calibrated.pt")
    for read in (posthoc_settings, calibrated_model):
        with pytest.raises(FileError, match=r"parameters\.json: expected model_calibrated\.pt with SHA-256"):
            read(models)
    (models / "model_calibrated.pt").unlink()
    with pytest.raises(FileError, match="got no such file"):
        calibrated_model(models)


def test_a_calibration_that_fails_leaves_the_former_model_and_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    models = tmp_path / "models"
    before = {path.name: path.read_bytes() for path in models.iterdir()}

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for method, writer in (("vector", "torch.save"), ("isotonic", "torch.jit.save")):
        with monkeypatch.context() as patched:
            patched.setattr(writer, full_disk)
            with pytest.raises(OSError, match=r"no space left.*model_calibrated"):
                run(tmp_path, method)
        assert {path.name: path.read_bytes() for path in models.iterdir()} == before
    assert posthoc_settings(models)["posthoc"] == "temperature"
