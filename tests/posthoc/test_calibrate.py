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
from monai_calib.metrics.evaluated import read_evaluated
from monai_calib.posthoc import (
    METHODS,
    CalibratedNetwork,
    Calibrator,
    LogitStream,
    build_calibrator,
    calibrate,
    calibrated_model,
    evaluate_corrections,
    export_onnx,
    export_program,
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
    settings = {"num_classes": 3, "models_dir": folder / "models", "output_dir": folder, "spacing": (1, 1, 1)}
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
    assert saved["correction"]["in_words"] == f"temperature {result.calibrator.temperature:.4g}"
    assert posthoc_settings(tmp_path / "models")["correction"] == saved["correction"]


def test_every_correction_and_the_network_as_trained_are_ordinary_evaluations(tmp_path: Path) -> None:
    result = run(tmp_path, also=["vector"], run={"seed": 3}, class_names=["background", "a", "b"])
    assert list(result.evaluated) == ["as_trained", "temperature", "vector"]
    found = {name: read_evaluated(folder) for name, folder in result.evaluated.items()}
    before, after = found["as_trained"], found["temperature"]
    assert before.run == {"seed": 3, "split": "validation"}
    assert (after.run["posthoc"], after.run["correction"]["fitted_on"]) == ("temperature", "validation")
    assert after.classes == ("background", "a", "b")
    for name in ("nll_all_micro", "ece_all_15bins_micro"):
        assert after.summary[name] < before.summary[name]
    assert before.summary["nll_all_micro"] == pytest.approx(result.calibrator.record.nll_before, rel=1e-5)
    assert after.values("labels_changed").tolist() == [0.0] * 3
    assert after.values("mean_dice").tolist() == before.values("mean_dice").tolist()
    labels = [batch["label"] for batch in loader()]
    for case, histogram in zip(after.cases, after.histograms("all"), strict=True):
        assert int(histogram.bins(15).count.sum()) == labels[after.cases.index(case)].numel()
    plain, image = network(), loader()[0]["image"]
    predicted, label = INFERER(image, plain).argmax(1)[0], labels[0][0, 0]
    for k in (1, 2):
        both = ((predicted == k) & (label == k)).sum()
        expected = 2 * both / ((predicted == k).sum() + (label == k).sum())
        assert before.class_values("mean_dice")[0, k - 1] == pytest.approx(float(expected))


def test_no_case_to_evaluate_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no case to evaluate on"):
        evaluate_corrections({}, [], tmp_path, num_classes=2)
    assert not list(tmp_path.rglob("*.json"))


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
        run = lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
    elif model.suffix == ".pt2":
        run = torch.export.load(model).module()
    else:
        run = torch.jit.load(model)
    found = run(image).softmax(1)
    many = run(torch.cat([image, image, image])).softmax(1)
    assert torch.allclose(many, torch.cat([found] * 3), atol=1e-5), "the batch axis is free"
    print(model.name, float((found - expected).abs().max()))
assert "monai_calib" not in sys.modules
"""


def exports_are_the_same_elsewhere(folder: Path, suffix: str, size: int, dims: int = 3) -> None:
    """Export the network with the head of each method, and folded; another process without this package runs them."""
    calibrators = {name: build_calibrator(name, 3, "all") for name in METHODS}
    inferer = INFERER if dims == 3 else INFERER_2D
    fit(list(calibrators.values()), LogitStream(network(dims), loader(1, dims), inferer, spacing=(1,) * dims))
    export = {".onnx": export_onnx, ".pt2": export_program, ".ts": export_torchscript}[suffix]
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


@pytest.mark.parametrize("dims", [2, 3])
def test_export_computes_the_same_probabilities_without_this_package(dims: int, tmp_path: Path) -> None:
    exports_are_the_same_elsewhere(tmp_path, ".pt2", 8, dims)


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


def test_exports_stand_beside_the_model_and_go_with_it(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    shape = {"inputs": {"image": {"spatial_shape": [16, 16, 16]}}}
    (bundle / "configs" / "metadata.json").write_text(json.dumps({"version": "1", "network_data_format": shape}))
    (bundle / "configs" / "inference.json").write_text('{"patch_size": [16, 16, 16], "dropout": "$0.0", "x": "@y"}')
    models, settings = tmp_path / "models", {"patch_size": [8, 8, 8], "dropout": 0.1, "seed": 3}
    result = run(tmp_path, exports=["pt2", "ts"], bundle_root=bundle, run=settings)
    assert {path.name for path in models.iterdir()} == {
        *("model_calibrated.pt", "model_calibrated.pt2", "model_calibrated_folded.ts", "calibration_parameters.json"),
    }
    image = torch.randn(2, 1, 8, 8, 8)
    expected = result.calibrator.apply(network()(image))
    texts = {"metadata.json": "", "inference.json": ""}
    scripted = torch.jit.load(models / "model_calibrated_folded.ts", _extra_files=texts)
    assert json.loads(texts["metadata.json"])["network_data_format"]["inputs"]["image"]["spatial_shape"] == [8, 8, 8]
    assert json.loads(texts["inference.json"]) == {"patch_size": [8, 8, 8], "dropout": 0.1, "x": "@y"}
    for model in (scripted, torch.export.load(models / "model_calibrated.pt2").module()):
        torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-4)
    run(tmp_path, "isotonic", bundle_root=bundle)
    assert {path.name for path in models.iterdir()} == {"model_calibrated.ts", "calibration_parameters.json"}
    texts = {"metadata.json": ""}
    torch.jit.load(models / "model_calibrated.ts", _extra_files=texts)
    assert json.loads(texts["metadata.json"]) == {"version": "1", "network_data_format": shape}


@pytest.mark.parametrize("unit", ["mm", "px"])
def test_lengths_are_told_in_the_unit_of_the_data(unit: str, tmp_path: Path) -> None:
    result = run(tmp_path, "boundary_temperature", unit=unit)
    record = json.loads((result.model_path.parent / "calibration_parameters.json").read_text())["correction"]
    assert record["in_words"].startswith(f"temperature by {unit} from the predicted boundary")
    assert all(interval["name"].endswith(f" {unit}") for interval in record["intervals"])


def test_a_network_that_cannot_be_exported_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.inner(image) * (2.0 if float(image.sum()) > 0 else 1.0)

    calibrate(Branching(), loader(), INFERER, num_classes=3, models_dir=tmp_path, method="temperature", region="all",
              force=True, exports=["pt2"])  # fmt: skip
    assert "no export 'pt2' of the calibrated model" in caplog.text
    assert (tmp_path / "model_calibrated.pt").exists() or (tmp_path / "model_calibrated.ts").exists()
    with pytest.raises(ValueError, match="exports: expected 'pt2', 'onnx' or 'ts', got tflite"):
        run(tmp_path, exports=["tflite"])


def test_an_unknown_method_and_an_empty_loader_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown method 'plat'; expected one of temperature"):
        run(tmp_path, "plat")
    with pytest.raises(ValueError, match="the loader gave no case"):
        calibrate(network(), [], num_classes=3, models_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_beside_another_ones_record_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    models = tmp_path / "models"
    told = posthoc_settings(models)
    assert (told["posthoc"], told["posthoc_region"]) == ("temperature", "all")
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

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    for method, writer in (("vector", "torch.save"), ("isotonic", "torch.jit.save")):
        with monkeypatch.context() as patched:
            patched.setattr(writer, full_disk)
            with pytest.raises(OSError, match=r"no space left.*model_calibrated"):
                run(tmp_path, method)
        assert {path.name: path.read_bytes() for path in models.iterdir()} == before
    assert posthoc_settings(models)["posthoc"] == "temperature"
