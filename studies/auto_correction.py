"""Does ``auto`` ever make a network worse? Every network of the pages on losses, and every candidate of thirteen.

    python studies/auto_correction.py RUN --bundle BUNDLE --dataset_dir DATA [--set NAME=VALUE ...]
    python studies/auto_correction.py                  # write page and figure from what is kept

The first adds every candidate of a trained run to auto_correction.json; there corrections act on stitched volumes. All
else comes from the figures of the pages in :data:`PAGES`.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.inferers import SliceInferer
from pages import shown, table, write_page
from results import name_of
from trained_run import TrainedRun

from monai_calib.files import write_json
from monai_calib.metrics.evaluation import CaseEvaluation
from monai_calib.metrics.overlap import dice_coefficients
from monai_calib.metrics.protocols import Protocol
from monai_calib.posthoc import Calibrator, KeptCases, choose, default_candidates, fit
from monai_calib.report.statistics import mean_by_subject

HERE = Path(__file__).parent
RESULTS = HERE / "auto_correction.json"
PICTURE = HERE / "figures" / "auto_correction.svg"
PAGES = ("results", "acdc", "other_data", "one_training")
COLUMNS = {
    "nll_all": "NLL all",
    "ece_all_15bins": "ECE all",
    "ece_foreground_15bins": "ECE foreground",
    "ece_boundary2mm_15bins": "ECE band",
    "expected_volume_error": "expected volume's error",
    "dsc": "DSC",
}
"""Figures of a network on those pages."""
DATA = {
    "msd_hippocampus_segmentation_3d": "hippocampus in 3D",
    "acdc_segmentation_2d": "heart in 2D",
    "acdc_3mm": "heart in 3D",
    "usgra_4": "ultrasound in 2D",
    "set1_4": "cells in 2D",
}
"""What each bundle was trained on."""
PROTOCOL = Protocol("study", ["all", "foreground", "boundary:2mm"], ["nll", "ece"])
SHOWN = {
    "nll_all": "NLL all",
    "ece_foreground_15bins": "ECE foreground",
    "ece_boundary2mm_15bins": "ECE 2 mm band",
    "ece_all_15bins": "ECE all",
    "dsc": "DSC",
    "expected_volume_error": "volume error",
}


def measure_run(run: Path, bundle: Path, dataset_dir: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Choose on validation, fit every candidate there, and measure all of them on the test split."""
    trained = TrainedRun(run, dataset_dir, bundle, settings)
    classes = len(trained.class_names)
    axis = trained.inferer.spatial_dim if isinstance(trained.inferer, SliceInferer) else None
    validation = trained.kept("validation")
    begin = time.monotonic()
    choice = choose(validation, classes, slice_axis=axis)
    seconds = time.monotonic() - begin
    test = trained.kept("test")
    figures = {}
    for candidate in default_candidates(classes):
        calibrator = candidate.build(classes, axis)
        if candidate.method != "none":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit([calibrator], validation)
        figures[candidate.name] = _measure(calibrator, test, classes)
    return {
        "trained": {name: trained.settings.get(name) for name in ("bundle", "loss_name", "epochs", "seed")},
        "auto": choice.to_json(),
        "seconds_to_choose": round(seconds, 1),
        "subjects": [case.subject for case in test],
        "figures": figures,
    }


def _measure(calibrator: Calibrator, cases: KeptCases, classes: int) -> dict[str, list[float]]:
    evaluation = CaseEvaluation(classes, [PROTOCOL], from_logits=True)
    rows: dict[str, list[float]] = {name: [] for name in SHOWN}
    for case in cases:
        logits = calibrator.apply(case.logits[None])[0]
        values = evaluation.measure(logits, case.label, case.spacing, drawn_from=case.logits).values
        dice = dice_coefficients(logits.argmax(0), case.label, classes)
        for name in SHOWN:
            rows[name].append(float(np.nanmean(dice)) if name == "dsc" else values[name][0])
    return {name: [round(value, 6) for value in of] for name, of in rows.items()}


def trainings() -> list[dict[str, Any]]:
    """Every network that the pages on losses have as trained and with the chosen correction: means over cases.

    Several pages show the same training: one of a bundle, network, loss, length and seed counts once.
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for page in PAGES:
        for part in json.loads((HERE / f"{page}.json").read_text(encoding="utf-8")):
            epochs = re.findall(r"\d+ epochs", part["part"])
            plain = {_network(method): method for method in part["methods"] if not method["posthoc"]}
            for method in part["methods"]:
                if method["posthoc"] != "auto":
                    continue
                before = plain[_network(method)]
                for seed in method["seeds"]:
                    key = (*epochs, str(seed), *_network(method))
                    found[key] = {
                        "data": DATA[method["bundle"]],
                        "loss": name_of(before),
                        "seed": seed,
                        "before": _means(before, seed),
                        "after": _means(method, seed),
                    }
    return list(found.values())


def _network(method: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(json.dumps(method[name]) for name in ("bundle", "network_name", "loss_name", "loss_args"))


def _means(method: Mapping[str, Any], seed: int) -> dict[str, float]:
    return {name: method["by_seed"][name][method["seeds"].index(seed)] for name in COLUMNS}


def change(training: Mapping[str, Any], name: str) -> float:
    """What the correction changed of a figure of a network, in per cent."""
    before, after = (training[state][name] for state in ("before", "after"))
    return 0.0 if before == after else float(100 * (after / before - 1))


def is_corrected(training: Mapping[str, Any]) -> bool:
    """Whether a correction was chosen at all."""
    return bool(training["before"] != training["after"])


def networks_table() -> str:
    """A row a data set: how many networks got a correction, and what that changed at best and at worst."""
    every = trainings()
    rows = []
    for data in [*dict.fromkeys(each["data"] for each in every), ""]:
        of = [each for each in every if data in ("", each["data"])]
        cells = [data or "all", str(len(of)), str(sum(map(is_corrected, of)))]
        for name in COLUMNS:
            changes = [change(each, name) for each in of]
            worse = sum((value < 0 if name == "dsc" else value > 0) for value in changes)
            limits = " … ".join(shown(value, 1 if name == "dsc" else 0) for value in (min(changes), max(changes)))
            cells.append(f"{worse} <small>{limits}</small>")
        rows.append(cells)
    return table(["data", "networks", "corrected", *COLUMNS.values()], rows)


def candidates_table(kept: Mapping[str, Any]) -> str:
    """A row a network of the older study and candidate."""
    rows = []
    for name, run in kept.items():
        for candidate, values in run["figures"].items():
            told = f"{candidate} (auto)" if candidate == run["auto"]["chosen"] else candidate
            means = (shown(mean_of(run, candidate, figure), 4) for figure in values)
            rows.append([name, told, *means])
    return table(["run", "correction", *SHOWN.values()], rows)


def mean_of(run: Mapping[str, Any], candidate: str, name: str) -> float:
    """Mean over subjects."""
    return float(np.nanmean(mean_by_subject(run["figures"][candidate][name], run["subjects"])[1]))


def tables(kept: Mapping[str, Any]) -> dict[str, str]:
    """All tables of the page by name."""
    return {"networks": networks_table(), "candidates": candidates_table(kept)}


def figure(kept: Mapping[str, Any], path: str) -> float:
    """``networks``, ``corrected``; ``worse | NAME``, of how many networks a figure got worse, ``lowest | NAME`` and
    ``highest | NAME``, the change in per cent; ``above``, how far the chosen candidate was above the best at most."""
    kind, _, name = path.partition(" | ")
    every = trainings()
    if kind == "above":
        least = {run: min(mean_of(of, each, "nll_all") for each in of["figures"]) for run, of in kept.items()}
        return max(100 * (mean_of(of, of["auto"]["chosen"], "nll_all") / least[run] - 1) for run, of in kept.items())
    if kind in ("networks", "corrected"):
        return sum(kind == "networks" or is_corrected(each) for each in every)
    changes = [change(each, name) for each in every]
    if kind == "worse":
        return sum(value > 0 for value in changes)
    return {"lowest": min, "highest": max}[kind](changes)


def draw(path: Path) -> None:
    """A row a figure, a dot a network: what its correction changed, in per cent."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams |= {"svg.hashsalt": path.stem, "svg.fonttype": "none", "font.size": 9}
    every = [each for each in trainings() if is_corrected(each)]
    names = [name for name in COLUMNS if name != "dsc"][::-1]
    sets = list(dict.fromkeys(each["data"] for each in every))
    picture, axis = plt.subplots(figsize=(8, 0.7 * len(names) + 1))
    for place, data in enumerate(sets):
        of = [each for each in every if each["data"] == data]
        for row, name in enumerate(names):
            height = row + 0.5 * (0.5 - (place + 0.5) / len(sets))
            told = f"{data}, {len(of)}" if row == 0 else None
            axis.plot(
                [change(each, name) for each in of], [height] * len(of), "o", ms=4, alpha=0.6, c=f"C{place}", label=told
            )
    axis.axvline(0, color="#444444", lw=0.8)
    axis.set_yticks(range(len(names)), [COLUMNS[name] for name in names])
    axis.set_xlabel("change by the chosen correction, %")
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    picture.tight_layout()
    picture.savefig(path, metadata={"Date": None})
    plt.close(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--dataset_dir", type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = json.loads(options.results.read_text()) if options.results.is_file() else {}
    if options.run is not None and options.run.name not in results:
        pairs = dict(pair.split("=", 1) for pair in options.set)
        settings = {name: ast.literal_eval(value) for name, value in pairs.items()}
        results[options.run.name] = measure_run(options.run, options.bundle, options.dataset_dir, settings)
        write_json(options.results, results, indent=None)
    draw(PICTURE)
    write_page("auto_correction")


if __name__ == "__main__":
    main()
