"""Does ``auto`` ever make a network worse? Every candidate and the chosen one, on subjects that no fit has seen.

``python studies/auto_correction.py RUN --bundle BUNDLE --dataset_dir DATA [--set NAME=VALUE ...]`` adds a trained run
to ``auto_correction.json``; ``--page`` writes ``auto_correction.md`` from it. Corrections act on stitched volumes.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
import warnings
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
from monai.data import DataLoader, Dataset
from monai.inferers import SliceInferer
from numpy.typing import NDArray

from monai_calib.datasets import load_datalist
from monai_calib.files import write_json, write_text
from monai_calib.handlers.checkpoint import training_settings
from monai_calib.handlers.weights import load_weights, read_checkpoint
from monai_calib.metrics.bootstrap import bootstrap_mean
from monai_calib.metrics.evaluation import CaseEvaluation
from monai_calib.metrics.overlap import dice_coefficients
from monai_calib.metrics.protocols import Protocol
from monai_calib.posthoc import Calibrator, KeptCases, LogitStream, choose, default_candidates, fit

HERE = Path(__file__).parent
RESULTS = HERE / "auto_correction.json"
PAGE = HERE / "auto_correction.md"
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
    trained = training_settings(run / "models")
    known = {name: trained[name] for name in ("network_name", "patch_size", "dropout", "seed") if name in trained}
    workflow = monai.bundle.ConfigWorkflow(
        [str(bundle / "configs" / "train.json")], workflow_type="train", logging_file=False,
        bundle_root=str(bundle), dataset_dir=str(dataset_dir), run_dir=str(run), **{**known, **settings},
    )  # fmt: skip
    workflow.initialize()
    network = workflow.parser.get_parsed_content("network")
    load_weights(network, read_checkpoint(run / "models" / "model.pt"), run / "models" / "model.pt")
    inferer = workflow.parser.get_parsed_content("validate#inferer")
    classes = len(workflow.parser["class_names"])
    axis = inferer.spatial_dim if isinstance(inferer, SliceInferer) else None
    validation = _kept(workflow, network, inferer, dataset_dir, "validation")
    begin = time.monotonic()
    choice = choose(validation, classes, slice_axis=axis)
    seconds = time.monotonic() - begin
    test = _kept(workflow, network, inferer, dataset_dir, "test")
    figures = {}
    for candidate in default_candidates(classes):
        calibrator = candidate.build(classes, axis)
        if candidate.method != "none":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit([calibrator], validation)
        figures[candidate.name] = _measure(calibrator, test, classes)
    return {
        "trained": {name: trained.get(name) for name in ("bundle", "loss_name", "epochs", "seed")},
        "auto": choice.to_json(),
        "seconds_to_choose": round(seconds, 1),
        "subjects": [case.subject for case in test],
        "figures": figures,
    }


def _kept(workflow: Any, network: Any, inferer: Any, dataset_dir: Path, split: str) -> KeptCases:
    data = Dataset(load_datalist(dataset_dir, split), workflow.parser.get_parsed_content("validate#preprocessing"))
    kept = KeptCases(LogitStream(network, DataLoader(data, batch_size=1), inferer))
    for _ in kept:
        pass
    return kept


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


def page(results: dict[str, Any]) -> str:
    """The tables; every number comes from the JSON."""
    rows, every, rises, beyond, within, risen, chosen = [], [], [], 0.0, 0.0, [], set()
    for name, run in sorted(results.items()):
        means = {c: {f: _mean(v, run["subjects"]) for f, v in of.items()} for c, of in run["figures"].items()}
        auto = run["auto"]["chosen"]
        best = min(means, key=lambda c: means[c]["nll_all"])
        allowed = [c for c in means if not run["auto"]["guards"].get(c) and c in run["auto"]["candidates"]]
        of_allowed = min(means[c]["nll_all"] for c in allowed)
        rise = means[auto]["nll_all"] / means["none"]["nll_all"] - 1
        above = means[auto]["nll_all"] / means[best]["nll_all"] - 1
        rises.append(rise)
        beyond = max(beyond, above)
        within = max(within, means[auto]["nll_all"] / of_allowed - 1)
        chosen.add(auto)
        if means[auto]["ece_foreground_15bins"] > means["none"]["ece_foreground_15bins"]:
            risen.append(name)
        low, high = _interval(run)
        rows.append(
            f"| {name} | {auto} | {100 * rise:+.1f} % ({100 * low:+.1f} to {100 * high:+.1f}) | {best} | "
            f"{100 * above:+.1f} % | "
            + " | ".join(f"{means['none'][f]:.4f} → {means[auto][f]:.4f}" for f in SHOWN if f != "nll_all")
            + f" | {run['seconds_to_choose']:.0f} |"
        )
        for c, found in means.items():
            label = f"{c} (auto)" if c == auto else c
            every.append(f"| {name} | {label} | " + " | ".join(f"{found[f]:.4f}" for f in SHOWN) + " |")
    least, worst = min(rises), max(rises)
    heads = " | ".join(SHOWN[f] for f in SHOWN if f != "nll_all")
    return "\n".join(
        [
            "# Does `auto` ever make a network worse?",
            "",
            f"{'No' if worst <= 0.01 else 'Yes'}: over {len(rows)} trained networks its test NLL changed "
            f"by {100 * least:+.1f} to {100 * worst:+.1f} % and "
            f"is at most {100 * within:.1f} % above the best candidate's that the guards allow.",
            "",
            f"What disappoints: a candidate that the guards dropped was up to {100 * beyond:.1f} % below it; "
            f"the ECE of the true foreground rose in {len(risen)} of them"
            + (f" ({', '.join(risen)})" if risen else "")
            + f"; choosing took up to {max(run['seconds_to_choose'] for run in results.values()):.0f} s; and "
            f"only {len(chosen)} of the candidates were chosen: {', '.join(sorted(chosen))}.",
            "",
            "Chosen on validation subjects, measured on test subjects; corrections act on stitched volumes. Intervals "
            "of the change in NLL resample subjects. ACDC's spacing is nominal. Seconds are of choosing, on one core, "
            "after the network's one pass, and older than two changes: candidates now share passes, and a pass of a "
            "fit costs a third. hippo3d_dice_ce_e10_s0 took 19 s of a processor since, with the same choice. "
            "`python studies/auto_correction.py --help` says how to repeat it.",
            "",
            f"| run | auto | NLL against as trained (95 %) | best candidate | auto above it | {heads} | s |",
            "|" + "---|" * (6 + len(heads.split(" | "))),
            *rows,
            "",
            "## Every candidate",
            "",
            "| run | correction | " + " | ".join(SHOWN.values()) + " |",
            "|" + "---|" * (2 + len(SHOWN)),
            *every,
            "",
        ]
    )


def _mean(values: list[float], subjects: list[str]) -> float:
    return float(np.nanmean(_by_subject(values, subjects)))


def _by_subject(values: list[float], subjects: list[str]) -> NDArray[np.float64]:
    of: dict[str, list[float]] = {}
    for value, subject in zip(values, subjects, strict=True):
        of.setdefault(subject, []).append(value)
    return np.array([np.mean(found) for found in of.values()])


def _interval(run: dict[str, Any]) -> tuple[float, float]:
    """Of the relative change in NLL, subjects resampled; relative to the mean as trained."""
    before, after = (np.array(run["figures"][c]["nll_all"]) for c in ("none", run["auto"]["chosen"]))
    found = bootstrap_mean(after - before, groups=run["subjects"])
    return float(found.low[0] / before.mean()), float(found.high[0] / before.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--dataset_dir", type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    results = json.loads(options.results.read_text()) if options.results.is_file() else {}
    if options.run is not None and options.run.name not in results:
        pairs = dict(pair.split("=", 1) for pair in options.set)
        settings = {name: ast.literal_eval(value) for name, value in pairs.items()}
        results[options.run.name] = measure_run(options.run, options.bundle, options.dataset_dir, settings)
        write_json(options.results, results, indent=None)
    if options.page:
        write_text(PAGE, page(results))


if __name__ == "__main__":
    main()
