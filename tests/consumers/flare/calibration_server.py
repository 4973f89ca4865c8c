"""The server of a federated calibration in NVFlare: one correction and one diagram from the sums of all sites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.model_controller import ModelController

from monai_calib.files import write_json
from monai_calib.metrics import CalibrationHistogram, write_federation
from monai_calib.posthoc import build_calibrator, fit_federated


class FederatedCalibration(ModelController):
    """Fits a correction by questions to all sites, then asks for their histograms before and after.

    Written are ``output_dir/correction.json``, for ``Calibrator.from_json``, and the evaluated folders
    ``output_dir/as_trained/eval`` and ``output_dir/corrected/eval``, in which each site is one case.

    Args:
        method, region, method_args: see :func:`monai_calib.posthoc.build_calibrator`.
        classes: names of the channels.
        protocols: what the sites measure.
        slice_axis: 2 for a network that sees volumes slice by slice along their third axis.
    """

    def __init__(
        self,
        output_dir: str,
        classes: list[str],
        method: str = "temperature",
        region: str | None = None,
        method_args: dict[str, Any] | None = None,
        protocols: tuple[str, ...] = ("paper", "by_region"),
        slice_axis: int | None = None,
    ) -> None:
        super().__init__()
        self.output_dir = output_dir
        self.classes = classes
        self.method, self.region, self.method_args = method, region, method_args
        self.protocols = list(protocols)
        self.slice_axis = slice_axis

    def ask(self, task: str, question: dict[str, str]) -> dict[str, dict[str, Any]]:
        """Send a question to every site, and return what each of them answered."""
        answers = self.send_model_and_wait(task_name=task, data=FLModel(params=question))
        return {found.meta["client_name"]: found.params for found in answers}

    def run(self) -> None:
        def sums(question: dict[str, Any]) -> dict[str, Any]:
            answers = self.ask("sums", {"question": json.dumps(question)})
            return {site: json.loads(found["answer"]) for site, found in sorted(answers.items())}

        correction = build_calibrator(self.method, len(self.classes), self.region, self.method_args)
        correction.slice_axis = self.slice_axis
        fit_federated(correction, sums)
        self.info(f"{self.method}: {correction.record.status}, {correction.in_words()}")
        write_json(Path(self.output_dir, "correction.json"), correction.to_json())

        asked = {"correction": json.dumps(correction.to_json()), "protocols": json.dumps(self.protocols)}
        answers = dict(sorted(self.ask("histograms", asked).items()))
        for name in ("as_trained", "corrected"):
            sites = {site: _histograms(found, name) for site, found in answers.items()}
            run = {"split": "test", "posthoc": self.method if name == "corrected" else "none"}
            write_federation(Path(self.output_dir, name, "eval"), sites, self.classes, self.protocols, run)


def _histograms(found: dict[str, Any], name: str) -> dict[str, CalibrationHistogram]:
    """The histograms per region out of the arrays ``name/region/part``."""
    states: dict[str, dict[str, Any]] = {}
    for key, value in found.items():
        of, region, part = key.split("/")
        if of == name:
            states.setdefault(region, {})[part] = torch.as_tensor(value) if hasattr(value, "dtype") else value
    return {region: CalibrationHistogram.from_state(state) for region, state in states.items()}
