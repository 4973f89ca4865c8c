"""The command ``run``: from a prepared data folder to a calibrated model and a page."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import load_net_with_metadata

from monai_calib.__main__ import main
from monai_calib.handlers.weights import load_weights, read_checkpoint
from monai_calib.metrics import read_evaluated

SMALL = ["--epochs", "1", "--set", "visits_per_epoch=1", "networks#unet#features=[4,4,4,8,8,4]", "cache_rate=1.0"]


@pytest.fixture(scope="module")
def finished(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "out"
    assert main(["run", str(phantom), str(output), *SMALL]) == 0
    return output


def test_one_file_to_ship_and_one_page(finished: Path) -> None:
    assert {path.name for path in finished.iterdir() if not path.name.startswith(".")} >= {
        "phantom_segmentation_3d",
        "manifest.json",
        "model.json",
        "model.ts",
        "report.html",
        "results.json",
        "runs",
    }
    rows = json.loads((finished / "results.json").read_text())["runs"]
    assert [row["posthoc"] for row in rows] == [None, "auto"]
    record = json.loads((finished / "model.json").read_text())
    assert record["test"]["as_trained"].keys() == record["test"]["calibrated"].keys()
    assert "mean_dice" in record["test"]["calibrated"]
    folder = finished / "runs" / rows[0]["key"] / "posthoc" / "auto"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"models", "eval"}, "the test split alone"


def test_the_shipped_model_is_the_calibrated_one_with_its_configurations(finished: Path) -> None:
    shipped, metadata, extra = load_net_with_metadata(str(finished / "model.ts"), more_extra_files=("inference.json",))
    run = finished / "runs" / "phantom_segmentation_3d" / "unet" / "dice_ce_fading" / "seed_0"
    inference = json.loads(extra["inference.json"])
    trained = json.loads((run / "models" / "training.json").read_text())["settings"]
    assert inference["patch_size"] == trained["patch_size"]
    assert inference["network_name"] == trained["network_name"]
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == trained["patch_size"]
    with zipfile.ZipFile(finished / "model.ts") as archive:
        assert "model/extra/inference.json" in archive.namelist(), "where MONAI Deploy looks in a file of this name"
    models = run / "posthoc" / "auto" / "models"
    image = torch.randn(1, 1, *trained["patch_size"], generator=torch.Generator().manual_seed(0))
    if (models / "model_calibrated.pt").is_file():
        parser = ConfigParser({**inference, "networks#unet#features": [4, 4, 4, 8, 8, 4], "run_dir": str(run)})
        parser["networks"]["unet"]["features"] = [4, 4, 4, 8, 8, 4]
        network: Any = parser.get_parsed_content("network_def")
        load_weights(network, read_checkpoint(models / "model_calibrated.pt"), models)
    else:
        network = torch.jit.load(models / "model_calibrated.ts")
    with torch.no_grad():
        torch.testing.assert_close(shipped.eval()(image), network.eval()(image))


def test_the_same_command_finds_everything_done(
    finished: Path, phantom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def trained() -> dict[Path, int]:
        kept = [*finished.glob("model.*"), *finished.rglob("*.pt"), *finished.rglob("calibration.json")]
        return {path: path.stat().st_mtime_ns for path in kept}

    before = trained()
    assert len(before) >= 5
    assert main(["run", str(phantom), str(finished), *SMALL]) == 0
    assert trained() == before
    printed = capsys.readouterr().out
    assert f"Ship: {finished / 'model.ts'}" in printed
    assert f"Page: {finished / 'report.html'}" in printed
    assert "Overlap (DSC): dice_ce_fading 0." in printed
    assert ", corrected 0." in printed
    assert "Distance to the true probabilities there: dice_ce_fading" in printed, "the phantom's are known"


def test_what_was_lost_is_made_again(finished: Path, phantom: Path, tmp_path: Path) -> None:
    copy = tmp_path / finished.name
    shutil.copytree(finished, copy)
    folder = copy / "runs" / "phantom_segmentation_3d" / "unet" / "dice_ce_fading" / "seed_0"
    weights = (folder / "models" / "model.pt").read_bytes()
    shutil.rmtree(folder / "posthoc")
    (copy / "model.ts").unlink()
    (copy / "report.html").unlink()
    assert main(["run", str(phantom), str(copy), *SMALL]) == 0
    assert (copy / "model.ts").is_file()
    assert (copy / "report.html").is_file()
    assert (folder / "models" / "model.pt").read_bytes() == weights, "the training is kept"


def test_of_two_losses_validation_chooses_what_is_shipped(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_calib.report.runs.LEAST_DSC", 0.0)  # trained for a moment: none has found the structures
    output = tmp_path / "out"
    assert main(["run", str(phantom), str(output), "--loss_name", "ce", "dice_ce", *SMALL]) == 0
    runs = output / "runs" / "phantom_segmentation_3d" / "unet"
    on_validation = {loss: read_evaluated(runs / loss / "seed_0" / "validation" / "eval") for loss in ("ce", "dice_ce")}

    def as_shipped(loss: str) -> float:
        choice = read_evaluated(runs / loss / "seed_0" / "posthoc" / "auto" / "eval").run["correction"]["choice"]
        assert choice["chosen"] == "none", "one validation case decides nothing"
        return on_validation[loss].summary["nll_all_macro"]

    best = min(on_validation, key=as_shipped)
    page = (output / "report.html").read_text()
    ship = page.partition(">Ship<")[2].partition(">Trust<")[0]
    assert "<code>model.ts</code>" in ship, "the copy beside the page is of the network that the page ships"
    assert "The truth is known here" in page
    assert json.loads((output / "model.json").read_text())["run"] == f"phantom_segmentation_3d/unet/{best}/seed_0"
    for found in on_validation.values():
        assert found.run["truth"] == "label", "what is chosen by knows nothing of the truth"
        assert "posterior_distance_all" not in found.metrics
    test = read_evaluated(runs / best / "seed_0" / "eval")
    assert test.run["truth"] == "posterior"
    assert 0 < test.summary["posterior_distance_all_macro"] < 1


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(list(map(str, arguments))) == 1
    return capsys.readouterr().err


def test_bad_input_is_refused_before_anything_is_written(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "Did you mean 'epochs'" in refused(capsys, "run", phantom, out, "--set", "epochz=3")
    assert "--loss_name nalc" in refused(capsys, "run", phantom, out, "--loss_name", "nalc")
    assert "no network 'vnet'" in refused(capsys, "run", phantom, out, "--network_name", "vnet")
    text = refused(capsys, "run", phantom, out, "--set", "patch_size=[16,16,16]")
    assert "Take [32, 16, 16]" in text
    assert "3 whole numbers" in refused(capsys, "run", phantom, out, "--set", "patch_size=32")
    assert "--set run_dir" in refused(capsys, "run", phantom, out, "--set", "run_dir=x")
    assert "there is no data folder" in refused(capsys, "run", tmp_path / "nowhere", out)
    with pytest.raises(SystemExit) as unknown:
        main(["run", str(phantom), str(out), "--epoch_count", "3"])
    assert unknown.value.code == 2
    assert not out.exists()


def test_the_block_of_the_page_predicts_an_image_without_this_package(
    finished: Path, phantom: Path, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text(encoding="utf-8")
    block = next(text.partition("```")[0] for text in page.split("```python\n")[1:] if "model.ts" in text)
    image = json.loads((phantom / "datalist.json").read_text())["test"][0]["image"]
    code = block.replace("runs/usgra/model.ts", "model.ts").replace("picture.png", str(phantom / image))
    code += "import sys\nassert not [name for name in sys.modules if name.startswith('monai_calib')]\n"
    code += "print(*probabilities.shape, float(probabilities.sum(0).mean()))"
    shutil.copy(finished / "model.ts", tmp_path)
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    classes, *shape, total = map(float, ended.stdout.split())
    assert classes == 3
    assert len(shape) == 3
    assert total == pytest.approx(1.0, abs=1e-5)


def test_a_bundle_of_other_classes_is_refused(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "acdc_segmentation_3d"
    assert main(["bundle", other.name, str(other)]) == 0
    text = refused(capsys, "run", phantom, tmp_path / "out", "--bundle", other)
    assert "expected a bundle of 3 classes" in text
    assert not (tmp_path / "out").exists()


def test_a_list_that_changed_needs_another_output(
    finished: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = shutil.copytree(phantom, tmp_path / "phantom"), shutil.copytree(finished, tmp_path / "out")
    listing = json.loads((data / "datalist.json").read_text())
    (data / "datalist.json").write_text(json.dumps({**listing, "description": "other"}))
    assert "was planned for another list" in refused(capsys, "run", data, out, *SMALL)
