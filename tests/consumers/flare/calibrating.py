"""A federated calibration by NVFlare, compared with what all sites' cases give in one place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calibration_site import ANSWER, cases_of, numbers
from jobs import calibration_job
from telling import tell

from monai_calib.metrics import CalibrationHistogram, ece, read_evaluated
from monai_calib.posthoc import Calibrator, build_calibrator, fit

SHARES = {"site-1": {"training": (0, 12), "validation": (0, 5), "test": (0, 4)},
          "site-2": {"training": (12, 18), "validation": (5, 8), "test": (4, 7)}}  # fmt: skip
CLASSES = ["background", "anterior", "posterior"]


def simulate(job: Path, workspace: Path) -> Path:
    """Run a job with one process a site; returns the server's folder. The log goes to ``WORKSPACE.log``."""
    call = [
        Path(sys.executable).with_name("nvflare"),
        "simulator",
        job,
        "-w",
        workspace,
        "-c",
        "site-1,site-2",
        "-t",
        "2",
    ]
    with workspace.with_suffix(".log").open("w") as log:
        subprocess.run(list(map(str, call)), check=True, stdout=log, stderr=subprocess.STDOUT)
    return workspace / "server" / "simulate_job" / "app_server"


def check_calibration(
    shared: Path,
    work: Path,
    sites: dict[str, Path],
    model: Path,
    methods: Mapping[str, str | None],
    run: Callable[[Path, Path], Any] = simulate,
    how: str = "simulator",
) -> None:
    """Federated corrections and diagrams against those of all cases in one place; ``run`` runs the jobs."""
    bundle = shared / "bundle"
    kept = {split: [cases_of(str(bundle), str(data), str(model), split) for data in sites.values()]
            for split in ("validation", "test")}  # fmt: skip
    for method, region in methods.items():
        name = method.replace("_", "-")
        notes = work / f"notes-{name}"
        notes.mkdir()
        args = {"output_dir": str(work / name), "classes": CLASSES, "method": method, "region": region}
        calibration_job(work / f"job-{name}", bundle, sites, model, notes, args)
        run(work / f"job-{name}", work / f"federation-{name}")
        found = Calibrator.from_json(json.loads((work / name / "correction.json").read_text()))
        pooled = build_calibrator(method, len(CLASSES), region)
        fit([pooled], _Chained(kept["validation"]))
        alone = [build_calibrator(method, len(CLASSES), region) for _ in sites]
        for one, cases in zip(alone, kept["validation"], strict=True):
            fit([one], cases)
        difference = _difference(found, pooled)
        apart = min(_difference(found, one) for one in alone)
        sent = [json.loads(line) for path in notes.glob("*.jsonl") for line in path.read_text().splitlines()]
        answers = [json.loads(one["answer"]) for one in sent if one["answer"]]
        most = max(numbers(found["sums"]) for found in answers)
        tell(
            f"federated `{method}` ({how}) against the fit on both sites' cases in one place",
            difference < 1e-6 < apart and (found.record.cases, found.record.voxels) == (8, pooled.record.voxels),
            f"largest difference {difference:.1g} (of the nearer site's own fit: {apart:.2g}); "
            f"{found.record.status} in {found.record.passes} rounds; "
            f"at most {most} numbers left a site at once; {found.in_words()[:60]}",
        )
        check_sent(sent, answers, method)
        if method == "temperature":
            check_diagram(work, kept["test"], sent)


def _difference(a: Calibrator, b: Calibrator) -> float:
    """The largest between two corrections' numbers."""
    pairs = zip(a.head.state_dict().values(), b.head.state_dict().values(), strict=True)
    return max(float((one - other).abs().max()) for one, other in pairs)


def check_sent(sent: list[dict[str, Any]], answers: list[dict[str, Any]], method: str) -> None:
    shapes = {tuple(sorted((name, np.shape(value)) for name, value in found["sums"].items())) for found in answers}
    largest = max(max(one["sizes"].values()) for one in sent)
    voxels = sum(found["voxels"] for found in answers[: len(SHARES)])
    tell(
        f"`{method}`: what left the sites, noted by their own filter",
        all(set(found) == ANSWER for found in answers) and largest < 20_000 and "hippocampus" not in json.dumps(sent),
        f"{len(sent)} messages, {len(shapes)} kinds of sums, no name of a case; "
        f"at most {largest} numbers in one value, of {voxels} voxels in the fit",
    )


def check_diagram(work: Path, kept: list[Any], sent: list[dict[str, Any]]) -> None:
    evaluated = {name: read_evaluated(work / "temperature" / name / "eval") for name in ("as_trained", "corrected")}
    merged = evaluated["as_trained"].pooled("all")
    whole = CalibrationHistogram(len(CLASSES))
    for case in _Chained(kept):
        whole.merge(case.histogram("all"))
    same = all(
        torch.equal(getattr(merged.sums, part), getattr(whole.sums, part)) for part in ("count", "hits", "confidence")
    )
    sites = [case.case for case in evaluated["as_trained"].cases]
    before, after = (ece(one.pooled("all"), 15) for one in evaluated.values())
    tell(
        "the sites' diagrams summed into one, against the histogram of all test cases in one place",
        same and sites == ["site-1", "site-2"] and ece(merged, 15) == ece(whole, 15),
        f"every bin equal, {merged.voxels} voxels; ECE {before:.4f} as trained, {after:.4f} with that temperature",
    )


class _Chained:
    """The cases of all sites, at each iteration the same."""

    def __init__(self, kept: list[Any]) -> None:
        self.kept = kept

    def __iter__(self) -> Any:
        return chain(*self.kept)
