"""What holds for every bundle, shown on a tiny official download: converted, trained on, evaluated and predicted."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import config_files, dataset_of, load_workflow, small_networks, tiny_patch
from official_layouts import LAYOUTS, script

from monai_calib.datasets.convert import convert
from monai_calib.handlers.case_metric import CaseMetric
from monai_calib.handlers.composites import CompositeHandler
from monai_calib.report import load, write_report

SETTINGS = {"loss_name": "nacl_outer", "epochs": 1, "visits_per_epoch": 1, "batch_size": 2, "seed": 3}


class Life(NamedTuple):
    """A run's folder, what MONAI misses in each workflow, the figures registered, and the first output of inference."""

    folder: Path
    missing: dict[str, Any]
    registered: set[str]
    output: Mapping[str, Any]


def metadata(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "configs" / "metadata.json").read_text())


@pytest.mark.slow
class EveryBundle:
    """Tests of one bundle; a test file says which by a fixture ``bundle``."""

    @pytest.fixture(scope="class")
    def data(self, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("my data")
        key = dataset_of(bundle)
        convert(script(key), LAYOUTS[key](folder / "official").source, folder / "converted")
        return folder / "converted"

    @pytest.fixture(scope="class")
    def monkeypatch_of_class(self) -> Iterator[pytest.MonkeyPatch]:
        with pytest.MonkeyPatch.context() as patch:
            yield patch

    @pytest.fixture(scope="class")
    def life(
        self,
        bundle: Path,
        data: Path,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch_of_class: pytest.MonkeyPatch,
    ) -> Life:
        """Trained from elsewhere with ``bundle_root``, the rest in the bundle's own folder; all paths have spaces."""
        folder = tmp_path_factory.mktemp("my run")
        copy = shutil.copytree(
            bundle / "configs", tmp_path_factory.mktemp("my bundles") / bundle.name / "configs"
        ).parent
        small = {**small_networks(bundle), "run_dir": str(folder)}
        training = {**SETTINGS, "patch_size": tiny_patch(bundle), "num_workers": 0}
        missing, registered = {}, set()
        for name, settings in (
            ("train", {"dataset_dir": str(data), **training}),
            ("evaluate", {"dataset_dir": str(data), "num_workers": 0}),
            ("calibrate", {"dataset_dir": str(data), "num_workers": 0}),
            ("evaluate calibrated", {"dataset_dir": str(data), "num_workers": 0, "calibrated": True}),
            ("inference", {"dataset_dir": str(data / "imagesTr")}),
            ("clinical_fit", {"dataset_dir": str(data), "level": 0.4, "calibrated": False}),
            (
                "clinical",
                {"dataset_dir": str(data / "imagesTr"), "calibrated": False, "output_dir": str(folder / "told")},
            ),
        ):
            monkeypatch_of_class.chdir(folder if name == "train" else copy)
            root = str(copy) if name == "train" else "."
            workflow = load_workflow(copy, name.split()[0], bundle_root=root, **small, **settings)
            missing[name] = None if name == "calibrate" else workflow.check_properties()
            workflow.run()
            if name == "inference":
                output = workflow.evaluator.state.output[0]
            if name == "evaluate":
                for handler in workflow.val_handlers:
                    parts = handler.handlers if isinstance(handler, CompositeHandler) else [handler]
                    registered |= {figure for part in parts if isinstance(part, CaseMetric) for figure in part.reported}
            workflow.finalize()
        return Life(folder, missing, registered, output)

    def test_every_required_property_is_there(self, life: Life) -> None:
        assert life.missing == {
            "train": [], "evaluate": [], "calibrate": None, "evaluate calibrated": [], "inference": [],
            "clinical_fit": [], "clinical": []
        }  # fmt: skip

    def test_data_set_and_bundle_speak_of_the_same_classes(self, bundle: Path, data: Path) -> None:
        datalist = json.loads((data / "datalist.json").read_text())
        formats = metadata(bundle)["network_data_format"]
        assert formats["outputs"]["pred"]["channel_def"] == datalist["labels"]
        assert formats["inputs"]["image"]["num_channels"] == len(datalist["modality"])

    def test_training_keeps_best_and_last_model(self, life: Life) -> None:
        written = {path.name for path in (life.folder / "models").glob("[!.]*")}
        corrected = {"calibration_parameters.json", "model_calibrated.pt", "model_calibrated.ts"}
        exported = {"model_calibrated.pt2"}
        assert written - corrected == {"model.pt", "checkpoint.ckpt", "training.json", "clinical.json"} | exported
        record = json.loads((life.folder / "models" / "training.json").read_text())
        assert (record["epoch"], record["best_epoch"]) == (1, 1)
        assert record["settings"]["loss_name"] == "nacl_outer"

    def test_evaluation_writes_every_metric_it_registers(self, bundle: Path, life: Life) -> None:
        with (life.folder / "eval" / "metrics.csv").open() as file:
            written = {row[0]: float(row[1]) for row in csv.reader(file)}
        assert life.registered | {"mean_dice"} <= set(written)
        assert {"hd95_mm", "ece_foreground_15bins_macro", "nll_union_macro"} <= life.registered
        composites = {"WT_dice", "TC_dice", "ET_ece_union_15bins_macro"}
        assert (composites & set(written)) == (composites if dataset_of(bundle) == "brats19" else set())
        assert 0 <= written["mean_dice"] <= 1

    def test_evaluation_names_cases_and_run(self, bundle: Path, data: Path, life: Life) -> None:
        listed = {case["case"]: case["subject"] for case in json.loads((data / "datalist.json").read_text())["test"]}
        calibration = json.loads((life.folder / "eval" / "calibration.json").read_text())
        assert {case["case"]: case.get("subject") for case in calibration["cases"]} == listed
        run = {name: calibration["run"][name] for name in ("bundle", "loss_name", "network_name", "seed", "split")}
        assert run == {
            "bundle": bundle.name,
            "loss_name": "nacl_outer",
            "network_name": "unet",
            "seed": 3,
            "split": "test",
        }
        assert {path.stem for path in (life.folder / "eval" / "previews").iterdir()} == set(listed)

    def test_report_shows_the_test_split_before_and_after(self, bundle: Path, life: Life, tmp_path: Path) -> None:
        pytest.importorskip("pandas")
        table = load(life.folder)
        record = json.loads((life.folder / "models" / "calibration_parameters.json").read_text())
        assert set(table[table.split == "test"].correction) == {"", record["method"]}
        assert set(table[table.split == "validation"].correction) == {"", record["method"]}
        parts = set(table[table.metric == "dice"].name)
        assert parts == {"mean_dice"} | (
            {f"{p}_dice" for p in ("WT", "TC", "ET")} if "brats19" in bundle.name else set()
        )
        page = write_report([life.folder], tmp_path / "report.html").read_text()
        assert "Corrections after training" in page
        assert record["correction"]["in_words"][:20] in page

    def test_inference_writes_labels_and_confidence_on_the_grid_of_the_image(
        self, bundle: Path, data: Path, life: Life
    ) -> None:
        classes = metadata(bundle)["network_data_format"]["outputs"]["pred"]["num_channels"]
        images = sorted((data / "imagesTr").glob("*.nii.gz"))
        assert images
        for path in images:
            image = nib.load(path)
            name = path.name.removesuffix(".nii.gz")
            labels, confidence = (
                nib.load(life.folder / "predictions" / f"{name}_{kind}.nii.gz") for kind in ("seg", "confidence")
            )
            for written in (labels, confidence):
                assert written.get_data_dtype() == np.uint8
                assert written.shape == image.shape[:3]
                np.testing.assert_allclose(written.affine, image.affine, atol=1e-3)
            assert np.asarray(labels.dataobj).max() < classes
            percent = np.asarray(confidence.dataobj)
            assert percent.min() >= 99 // classes  # the largest of so many probabilities, rounded
            assert percent.max() <= 100

    def test_inference_writes_what_it_did_when_the_reader_made_the_channel_axis(
        self, bundle: Path, data: Path, life: Life, tmp_path: Path
    ) -> None:
        """Byte for byte, volumes of one slice apart: MONAI's writer dropped their last axis."""
        parser = monai.bundle.ConfigParser()
        parser.read_config(config_files(bundle, "inference"))
        steps = len(parser["postprocessing#transforms"])
        former = {f"preprocessing#transforms#{step}#_disabled_": True for step in (1, 2)}
        former |= {f"postprocessing#transforms#{step}#writer": None for step in (steps - 2, steps - 1)}
        former |= {"preprocessing#transforms#0#ensure_channel_first": True, "run_dir": str(life.folder)}
        settings = {**small_networks(bundle), "dataset_dir": str(data / "imagesTr"), "output_dir": str(tmp_path)}
        load_workflow(bundle, "inference", **settings, **former).run()
        written = {path.name for path in tmp_path.iterdir()}
        assert written == {path.name for path in (life.folder / "predictions").iterdir()}
        assert len(written) >= 2  # labels and confidence
        for path in tmp_path.iterdir():
            before, now = nib.load(path), nib.load(life.folder / "predictions" / path.name)
            if now.shape[2] > 1:
                assert gzip.decompress(path.read_bytes()) == gzip.decompress(Path(now.get_filename()).read_bytes())
            np.testing.assert_array_equal(before.get_fdata(), now.get_fdata().reshape(before.shape))

    def test_a_clinician_is_told_of_every_image(self, bundle: Path, data: Path, life: Life) -> None:
        with (life.folder / "told" / "clinical.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = {path.name.removesuffix(".nii.gz"): path for path in (data / "imagesTr").glob("*.nii.gz")}
        assert {row["case"] for row in rows} == set(names)
        structures = list(metadata(bundle)["network_data_format"]["outputs"]["pred"]["channel_def"].values())[1:]
        for row in rows:
            assert row["flag"] in ("ok", "check")
            assert all(f"{name} ml" in row and f"{name} margin_mm" in row for name in structures)
            assert (life.folder / "told" / f"{row['case']}.html").is_file()
            shape = nib.load(names[row["case"]]).shape[:3]
            maps = (
                list((life.folder / "told").glob(f"{row['case']}_margin_*")),
                list((life.folder / "told").glob(f"{row['case']}_set_*")),
            )
            for kind in maps:
                assert len(kind) == len(structures)
                assert {nib.load(path).shape for path in kind} == {shape}

    def test_outputs_of_the_metadata_exist_after_postprocessing(self, bundle: Path, life: Life) -> None:
        formats = metadata(bundle)["network_data_format"]
        for name, form in formats["post_processed_outputs"].items():
            assert life.output[name].shape[0] == form["num_channels"]
            assert form["value_range"][0] <= life.output[name].min()
            assert life.output[name].max() <= form["value_range"][1]
        assert set(formats["outputs"]) <= set(life.output)

    def test_network_has_the_shapes_of_the_metadata(self, bundle: Path) -> None:
        monai.bundle.verify_net_in_out(
            net_id="network_def",
            meta_file=str(bundle / "configs" / "metadata.json"),
            config_file=config_files(bundle, "inference"),
            device="cpu",
            **small_networks(bundle),
        )

    def test_exported_network_computes_the_same(self, bundle: Path, life: Life, tmp_path: Path) -> None:
        checkpoint = life.folder / "models" / "model.pt"
        monai.bundle.ckpt_export(
            net_id="network_def",
            filepath=str(tmp_path / "model.ts"),
            ckpt_file=str(checkpoint),
            meta_file=str(bundle / "configs" / "metadata.json"),
            config_file=config_files(bundle, "inference"),
            **small_networks(bundle),
        )
        parser = monai.bundle.ConfigParser()
        parser.read_config(config_files(bundle, "inference"))
        parser.update(small_networks(bundle))
        network = parser.get_parsed_content("network_def").eval()
        network.load_state_dict(torch.load(checkpoint, weights_only=True))
        channels = metadata(bundle)["network_data_format"]["inputs"]["image"]["num_channels"]
        image = torch.randn(1, channels, *tiny_patch(bundle), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts").eval()(image), network(image))
