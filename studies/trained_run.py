"""A network that a bundle has trained, and its logits of a split, as the bundle's own train.json makes them.

A run is a folder that a bundle has trained into: models/model.pt and models/training.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.transforms import Compose

from monai_calib.datasets import load_datalist
from monai_calib.handlers.checkpoint import training_settings
from monai_calib.handlers.weights import load_trained
from monai_calib.posthoc import KeptCases, LogitStream

BUNDLES = Path(__file__).parents[1] / "bundles"
RECORDED = ("network_name", "patch_size", "dropout", "seed")
"""Settings of the training that its record says again."""


class TrainedRun:
    """The network of a run with the preprocessing and the windows of its bundle.

    Args:
        run: folder of the run.
        dataset_dir: the converted data set.
        bundle: folder of the bundle; by default the one of :data:`BUNDLES` that the run names.
        overrides: what the training was given beside its record, such as ``{"networks#unet#features": [...]}``.
    """

    def __init__(
        self, run: Path, dataset_dir: Path, bundle: Path | None = None, overrides: Mapping[str, Any] | None = None
    ) -> None:
        self.settings = training_settings(run / "models")
        self.dataset_dir = dataset_dir
        bundle = bundle or BUNDLES / self.settings["bundle"]
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / "train.json"))
        recorded = {name: self.settings[name] for name in RECORDED if name in self.settings}
        folders = {"bundle_root": str(bundle), "dataset_dir": str(dataset_dir), "run_dir": str(run)}
        parser.update({**folders, **recorded, **dict(overrides or {})})
        self.class_names: list[str] = parser["class_names"]
        self.network: torch.nn.Module = load_trained(parser.get_parsed_content("network"), run / "models" / "model.pt")
        self.preprocessing = parser.get_parsed_content("validate#preprocessing")
        self.inferer = parser.get_parsed_content("validate#inferer")

    def logits(
        self,
        split: str,
        change: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        rater_labels: str = "sample",
    ) -> LogitStream:
        """The cases of a split, one at a time; ``change`` does something to each before the network sees it."""
        transform = self.preprocessing if change is None else Compose([self.preprocessing, change])
        data = Dataset(load_datalist(self.dataset_dir, split, rater_labels=rater_labels), transform)
        return LogitStream(self.network, DataLoader(data, batch_size=1), self.inferer)

    def kept(self, split: str, rater_labels: str = "sample") -> KeptCases:
        """The cases of a split, computed once and kept."""
        kept = KeptCases(self.logits(split, rater_labels=rater_labels))
        for _ in kept:
            pass
        return kept
