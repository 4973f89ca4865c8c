"""Calibrated to one rater, to the majority and to the mean of ten, measured against all ten, on cells.

    python studies/raters.py --bundle BUNDLE --dataset_dir DATA "trained on the mean=RUN" "trained on one rater=RUN"
    python studies/raters.py                         # write the page from raters.json

Each run is trained by the bundle of the prepared data; corrections are fitted on its validation pictures and measured
on its test pictures. A figure of one rater is the mean over ten fits, one to each rater. Intervals resample pictures.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pages import cell, rounded, table, write_json, write_page
from trained_run import TrainedRun

from monai_calib.metrics import CaseEvaluation, Protocol
from monai_calib.posthoc import Calibrator, LogitCase, fit
from monai_calib.posthoc.methods import build_calibrator
from monai_calib.report.statistics import bootstrap_mean

FIGURES = Path(__file__).with_suffix(".json")
METHODS = ("temperature", "isotonic")
PROTOCOLS = [
    Protocol("volume", ["all"], ["ece", "rater_ece", "nll", "least_nll"]),
    Protocol("parts", ["consensus", "dissensus"], ["ece", "nll"]),
]
SHOWN = {
    "nll_all": ("NLL", 4),
    "ece_all_15bins": ("ECE, mean label", 4),
    "rater_ece_all_15bins": ("ECE, each rater", 4),
    "nll_dissensus": ("NLL, disputed", 3),
    "ece_dissensus_15bins": ("ECE, disputed", 3),
    "ece_consensus_15bins": ("ECE, agreed", 4),
    "volume_crps": ("CRPS of the volume", 3),
    "dice_raters": ("DSC, each rater", 3),
}
"""Figure of a picture: its heading and decimals."""
LEAST = ("least_nll_all", "dice_between_raters")
TARGETS = {"one": "one rater", "majority": "the majority", "mean": "the mean of ten"}


def measure_run(run: Path, bundle: Path, dataset_dir: Path) -> dict[str, Any]:
    """Fit each method to each target on validation, and measure all on the test pictures."""
    trained = TrainedRun(run, dataset_dir, bundle)
    validation, test = (trained.kept(split, rater_labels="mean") for split in ("validation", "test"))
    [count] = {0 if case.raters is None else len(case.raters) for case in validation}
    by_rater = list(zip(*(case.by_rater() for case in validation), strict=True))
    majority = [LogitCase(c.name, c.logits, c.label, spacing=c.spacing, subject=c.subject) for c in validation]
    values = {"as trained": [_measure(None, test)]}
    for method in METHODS:
        targets: dict[str, Sequence[Iterable[LogitCase]]] = {
            "one": by_rater,
            "majority": [majority],
            "mean": [[one for of in by_rater for one in of]],
        }
        for target, fitted_on in targets.items():
            values[f"{method}, {target}"] = [_measure(_fitted(method, cases), test) for cases in fitted_on]
    return _summary(values, {name: trained.settings.get(name) for name in ("loss_name", "epochs", "seed")}, count)


def _fitted(method: str, cases: Iterable[LogitCase]) -> Calibrator:
    calibrator = build_calibrator(method, 2, "all")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit([calibrator], cases)
    return calibrator


def _measure(calibrator: Calibrator | None, cases: Iterable[LogitCase]) -> dict[str, list[float]]:
    """Values a picture of every figure."""
    evaluation = CaseEvaluation(2, PROTOCOLS, from_logits=True)
    rows: dict[str, list[float]] = {name: [] for name in (*SHOWN, *LEAST)}
    for case in cases:
        logits = case.logits if calibrator is None else calibrator.apply_case(case)
        found = evaluation.measure(logits, case.label, case.spacing, drawn_from=case.logits, raters=case.raters).values
        for name, row in rows.items():
            row.append(found[name][0])
    return rows


def _summary(
    values: Mapping[str, list[dict[str, list[float]]]], trained: Mapping[str, Any], count: int
) -> dict[str, Any]:
    """Means over pictures with intervals; of the mean of ten less one rater too; and the range over the ten fits."""
    by_picture: dict[str, dict[str, NDArray[np.float64]]] = {
        name: {key: np.mean([fitted[key] for fitted in fits], axis=0) for key in fits[0]}
        for name, fits in values.items()
    }
    pictures = [str(number) for number in range(len(by_picture["as trained"]["nll_all"]))]
    kept: dict[str, Any] = {"trained": dict(trained), "pictures": len(pictures), "raters": count}
    kept["figures"] = {
        name: {key: [*bootstrap_mean(of[key], pictures)] for key in SHOWN} for name, of in by_picture.items()
    }
    kept["least"] = {key: [*bootstrap_mean(by_picture["as trained"][key], pictures)] for key in LEAST}
    kept["gain"] = {
        method: {
            target: {
                key: [
                    *bootstrap_mean(
                        by_picture[f"{method}, mean"][key] - by_picture[f"{method}, {target}"][key], pictures
                    )
                ]
                for key in SHOWN
            }
            for target in ("one", "majority")
        }
        for method in METHODS
    }
    kept["range"] = {
        method: {
            key: [edge(float(np.nanmean(fitted[key])) for fitted in values[f"{method}, one"]) for edge in (min, max)]
            for key in SHOWN
        }
        for method in METHODS
    }
    return rounded(kept)


def tables(kept: Mapping[str, Any]) -> dict[str, str]:
    """A table a network; bold where the interval of the difference to one rater excludes 0."""
    return {name: _table(of) for name, of in kept.items()}


def _table(of: Mapping[str, Any]) -> str:
    heads = [heading for heading, _ in SHOWN.values()]
    rows = [["as trained", "–", *(cell(of["figures"]["as trained"][key], n) for key, (_, n) in SHOWN.items())]]
    for method in METHODS:
        for target, words in TARGETS.items():
            figures = of["figures"][f"{method}, {target}"]
            cells = []
            for key, (_, decimals) in SHOWN.items():
                _, low, high = of["gain"][method]["one"][key]
                cells.append(cell(figures[key], decimals, target == "mean" and (low > 0 or high < 0)))
            rows.append([method, words, *cells])
    return table(["correction", "fitted to", *heads], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="NAME=RUN")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--dataset_dir", type=Path)
    options = parser.parse_args()
    if options.runs:
        named = dict(text.rsplit("=", 1) for text in options.runs)
        found = {name: measure_run(Path(run), options.bundle, options.dataset_dir) for name, run in named.items()}
        write_json(FIGURES, found, depth=2)
    write_page("raters")


if __name__ == "__main__":
    main()
