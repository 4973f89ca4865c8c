"""The command ``run``: from a prepared data folder to a calibrated model and a page, as one plan."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_calib.arguments import whole
from monai_calib.files import read_json
from monai_calib.terminal import bold
from monai_calib.words import counted

if TYPE_CHECKING:
    from .plan import Plan, Run
    from .workers import Workers

__all__ = ["add_run", "bundle_for", "check_bundle", "plan_run", "run"]

_METHOD = "auto"
# The start of a metric's name, and how it is told; the first three that were measured are.
_TOLD = (
    ("mean_dice", "Overlap (DSC)"),
    ("ece_boundary", "Calibration error near boundaries (ECE)"),
    ("posterior_distance_boundary", "Distance to the true probabilities there"),
    ("nll_all", "Negative log-likelihood"),
)
_EXAMPLE = """\
example:
  python -m monai_calib prepare pictures/images pictures/masks my/usgra --labels nerve=1 vessel=2
  python -m monai_calib run my/usgra runs/usgra
  python -m monai_calib run my/usgra runs/quick --epochs 5 --loss_name dice_ce --set batch_size=4
"""


def add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command; how runs are carried out is asked by options that the caller adds."""
    parser = commands.add_parser(
        "run",
        description="From a prepared data folder to a calibrated model: plan a bundle, train, calibrate, evaluate as\n"
        "trained and calibrated on the test split, export, report. Run it again to resume.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="folder made by prepare, a data script or phantom")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder of the runs, the model and the page")
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="(default: one planned for DATA, written to OUT)")
    parser.add_argument("--epochs", type=whole(), metavar="N", help="(default: the bundle's)")
    parser.add_argument(
        "--loss_name",
        nargs="+",
        metavar="LOSS",
        help="as the benchmark's --losses; of several, validation chooses what is shipped (default: the bundle's)",
    )
    parser.add_argument("--network_name", metavar="NAME", help="(default: the bundle's)")
    parser.add_argument(
        "--seeds",
        type=whole(),
        default=1,
        metavar="N",
        help="seeds 0 to N-1, of which the best is shipped (default: 1)",
    )
    return parser


def bundle_for(data: Path, output: Path, check: Callable[[Path], object]) -> Path:
    """The bundle that was planned for a data folder in ``output``, planned now if there is none.

    Args:
        data: the data folder.
        output: gets the bundle, ``<name of the data>_segmentation_<2 or 3>d``.
        check: called with the bundle before it is written there; what it raises leaves nothing behind.

    Raises: ``ValueError`` if the list of the data has changed since; as :func:`monai_calib.bundling.bundle.plan_data`.
    """
    from monai_calib.bundling.bundle import plan_data, write_planned
    from monai_calib.datasets.checksums import sha256

    stem = re.sub(r"[^\w.+-]+", "_", data.resolve().name) or "data"
    there = [folder for dims in (2, 3) if (folder := output / f"{stem}_segmentation_{dims}d").is_dir()]
    if there:
        planned = read_json(there[0] / "docs" / "fingerprint.json", advice="Name a bundle with --bundle.")
        if planned["datalist_sha256"] != sha256(data / "datalist.json"):
            raise ValueError(
                f"{there[0]}: was planned for another list than {data / 'datalist.json'} is now. Use another OUT."
            )
        check(there[0])
        return there[0]
    seen, plan = plan_data(data)
    name = f"{stem}_segmentation_{plan.dims}d"
    with tempfile.TemporaryDirectory() as scratch:
        write_planned(seen, plan, Path(scratch, name))
        check(Path(scratch, name))
    write_planned(seen, plan, output / name)
    print(f"{seen.in_words()}\n\n{plan.in_words()}\n\nWrote the bundle {bold(output / name)}", flush=True)
    return output / name


def check_bundle(bundle: Path, data: Path) -> Mapping[str, Any]:
    """Demand that a bundle has the classes and channels of a data folder; returns its ``train.json``.

    Raises: ``ValueError`` that says which differ.
    """
    advice = "Name a bundle's folder with --bundle, or leave it out."
    config: dict[str, Any] = read_json(bundle / "configs" / "train.json", advice=advice)
    listing = read_json(data / "datalist.json", advice="Make it with python -m monai_calib prepare.")
    network = next(iter(config["networks"].values()))
    of_bundle = {"labels": len(config["class_names"]), "modality": int(network["in_channels"])}
    for key, words in (("labels", "classes"), ("modality", "channels")):
        if key in listing and len(listing[key]) != of_bundle[key]:
            raise ValueError(
                f"{bundle}: expected a bundle of {len(listing[key])} {words}, as {data / 'datalist.json'} has, got "
                f"{of_bundle[key]}. Leave --bundle out, and one is planned."
            )
    return config


def plan_run(arguments: argparse.Namespace, settings: Mapping[str, Any], bundle: Path) -> Plan:
    """The plan of the command with a bundle. Raises ``ValueError`` for what does not fit the bundle or the data."""
    from monai_calib.bundling.bundle import try_patch

    from .checks import check_settings
    from .plan import make_plan
    from .specification import Named, variants

    config = check_bundle(bundle, arguments.data)
    losses = arguments.loss_name or [str(config.get("loss_name", "dice_ce_fading"))]
    plan = make_plan(
        arguments.output.resolve(),
        [bundle],
        arguments.data,
        {name: variants(name) for name in losses},
        range(arguments.seeds),
        [arguments.network_name] if arguments.network_name else [],
        [Named(_METHOD)],
        settings,
        exports=("pt2", "ts"),
    )
    check_settings(settings, [bundle])
    try_patch({**config, **settings, "network_name": plan.runs[0].network})
    return plan


def run(arguments: argparse.Namespace, settings: dict[str, Any], make_workers: Callable[[], Workers]) -> None:
    """Carry the plan out, ship the best network, and write the page."""
    from monai_calib.report.html import write_report

    from .benchmark import run_benchmark
    from .checks import check_losses
    from .manifest import Manifest
    from .results import chosen_runs, report_folders
    from .ship import ship
    from .specification import variants

    if arguments.epochs is not None:
        settings = {"epochs": arguments.epochs, **settings}
    if arguments.loss_name is not None:
        check_losses([loss for name in arguments.loss_name for loss in variants(name)], "--loss_name")
    output = arguments.output.resolve()
    bundle = arguments.bundle or bundle_for(
        arguments.data, output, lambda planned: plan_run(arguments, settings, planned)
    )
    plan = plan_run(arguments, settings, bundle)
    print(f"Each run's log: {plan.runs[0].folder / 'run.log'}", flush=True)
    failed = run_benchmark(plan, make_workers, arguments.retries)
    for one in failed:
        print(f"{one.key} failed: {one.folder / 'run.log'}")
    manifest = Manifest(plan)
    done = [one for one in plan.runs if manifest[one].state == "done"]
    if not done:
        raise ValueError("no run finished; the same command goes on where it stopped.")
    shipped = ship(plan, done, _METHOD)
    page = write_report(report_folders(plan, manifest), output / "report.html", benchmark=output / "results.json")
    print(f"\nCorrection to ship: {shipped.record['correction']} ({shipped.record['why']})")
    print("\n".join(told(chosen_runs(plan, done)[0])))
    print(f"Ship: {bold(shipped.file)}\nPage: {bold(page)}\nNext: open the page in a browser.")
    if failed:
        raise ValueError(f"{len(failed)} of {counted(len(plan.runs), 'run')} failed; the same command repeats them.")


def told(runs: Sequence[Run]) -> list[str]:
    """Tell what matters of runs on the test split, a sentence a metric: every loss as trained, and corrected.

    Overlap, the calibration error near boundaries, and the distance to the true probabilities, where these are known,
    or else the log-likelihood.
    """
    from .folders import posthoc_folder
    from .results import means

    measured: dict[str, list[tuple[dict[str, float | None], dict[str, float | None]]]] = {}
    for run in runs:
        measured.setdefault(run.loss.key, []).append((means(run.folder), means(posthoc_folder(run, _METHOD))))
    every = [pair for pairs in measured.values() for pair in pairs]
    sentences = []
    for start, words in _TOLD:
        names = [name for name in every[0][0] if name.startswith(start) and not name.endswith("_micro")]
        found = {
            loss: [_mean([pair[k].get(names[0]) for pair in pairs]) for k in (0, 1)] if names else [None, None]
            for loss, pairs in measured.items()
        }
        if all(value is not None for values in found.values() for value in values):
            each = [f"{loss} {before:.3g}, corrected {after:.3g}" for loss, (before, after) in found.items()]
            sentences.append(f"{words}: {'; '.join(each)}.")
    return sentences[:3]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
