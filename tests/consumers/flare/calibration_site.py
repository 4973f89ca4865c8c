"""A site of a federated calibration in NVFlare: its answers are sums, and its own filter lets nothing else out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.executor import Executor

from monai_calib.metrics import CalibrationHistogram, read_evaluated
from monai_calib.posthoc import Calibrator, KeptCases, LogitCase, LogitStream, answer, evaluate_corrections
from monai_calib.posthoc.stream import EachRater

ANSWER = {"cases", "voxels", "settings", "sums"}
PARTS = set(CalibrationHistogram(2).state_dict())


def cases_of(bundle: str, dataset_dir: str, model: str, split: str) -> KeptCases:
    """Logits and labels of a split, kept on this site's disk after one pass of the network."""
    configs = Path(bundle, "configs")
    parser = ConfigParser()
    parser.read_config([configs / "train.json", configs / "calibrate.json"])
    parser.update({"bundle_root": bundle, "dataset_dir": dataset_dir, "model_path": model})
    parser["validate"]["dataset"]["data"] = (
        f"$load_datalist(@dataset_dir, {split!r}, @prepare_data, rater_labels='mean')"
    )
    network = parser.get_parsed_content("network")
    weights = torch.load(model, map_location="cpu", weights_only=True)
    network.load_state_dict({name: torch.as_tensor(value) for name, value in weights.get("model", weights).items()})
    loader, inferer = (parser.get_parsed_content(f"validate#{part}") for part in ("dataloader", "inferer"))
    return KeptCases(LogitStream(network, loader, inferer))


def histograms(cases: Iterable[LogitCase], found: Mapping[str, Any], classes: list[str]) -> dict[str, Any]:
    """Pooled histograms per region, as trained and corrected, as arrays."""
    correction = Calibrator.from_json(json.loads(found["correction"]))
    protocols = json.loads(found["protocols"])
    with tempfile.TemporaryDirectory() as folder:
        folders = evaluate_corrections(
            {"corrected": correction}, cases, folder, num_classes=len(classes), protocols=protocols, classes=classes
        )
        evaluated = {name: read_evaluated(path) for name, path in folders.items()}
        return {
            f"{name}/{region}/{part}": value.numpy() if isinstance(value, torch.Tensor) else value
            for name, one in evaluated.items()
            for region in one.regions
            for part, value in one.pooled(region).state_dict().items()
        }


class CalibrationSite(Executor):
    """Answers ``sums`` and ``histograms``; the network runs once over each split.

    Args:
        bundle, dataset_dir, model: of this site.
        classes: names of the channels.
        least_subjects: see :func:`monai_calib.posthoc.answer`.
    """

    def __init__(self, bundle: str, dataset_dir: str, model: str, classes: list[str], least_subjects: int = 1) -> None:
        super().__init__()
        self.where = (bundle, dataset_dir, model)
        self.classes = classes
        self.least_subjects = least_subjects
        self.kept: dict[str, KeptCases] = {}

    def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        asked = from_shareable(shareable).data
        split = {"sums": "validation", "histograms": "test"}[task_name]
        if split not in self.kept:
            self.kept[split] = cases_of(*self.where, split)
        kept = self.kept[split]
        if task_name == "sums":
            found = answer(json.loads(asked["question"]), EachRater(kept), self.least_subjects)
            sent = {"answer": json.dumps(found)}
        else:
            sent = histograms(kept, asked, self.classes)
        return DXO(DataKind.WEIGHTS, data=sent).to_shareable()


class OnlySums(DXOFilter):
    """Notes what is about to leave the site, and lets out nothing but named sums of fixed size.

    Args:
        note: file that gets a line a message: how many numbers it holds by name, and the answer in words.
        most_numbers: of one value. Sums of a histogram are 16 thousand, a small volume of labels 60 thousand.
    """

    def __init__(self, note: str, most_numbers: int = 20_000) -> None:
        super().__init__(supported_data_kinds=[DataKind.WEIGHTS], data_kinds_to_filter=None)
        self.note = note
        self.most_numbers = most_numbers

    def process_dxo(self, dxo: DXO, shareable: Any, fl_ctx: Any) -> DXO:
        sizes = {}
        for name, value in dxo.data.items():
            found = json.loads(value) if name == "answer" else value
            if (name == "answer" and set(found) != ANSWER) or (name != "answer" and name.split("/")[-1] not in PARTS):
                raise ValueError(f"{name}: is no sum, and does not leave this site")
            sizes[name] = numbers(found)
            if sizes[name] > self.most_numbers:
                raise ValueError(f"{name}: {sizes[name]} numbers, and at most {self.most_numbers} leave this site")
        with open(self.note, "a") as file:
            file.write(json.dumps({"sizes": sizes, "answer": dxo.data.get("answer")}) + "\n")
        return dxo


def numbers(value: Any) -> int:
    """How many single values something holds."""
    if isinstance(value, np.ndarray):
        return value.size
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 1 if inside is None else sum(map(numbers, inside))
