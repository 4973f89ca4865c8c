"""The command line: ``python -m monai_calib COMMAND ...``; what a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .experiments import Named, Plan, Workers


def _add_phantom(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "phantom",
        help="write a synthetic data set whose label posterior is known",
        description="Write a SYNTHETIC data set in the Medical Segmentation Decathlon's layout; see docs/phantom.md.",
    )
    parser.add_argument("output", type=Path, metavar="OUT", help="new folder to write")
    parser.add_argument("--cases", type=int, default=40, help="number of cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which population (default: %(default)s)")
    parser.add_argument(
        "--shape", type=int, nargs=3, default=[36, 50, 36], metavar="N", help="voxels per axis (default: 36 50 36)"
    )
    parser.add_argument(
        "--spacing", type=float, nargs=3, default=[1.0, 1.0, 1.0], metavar="MM", help="voxel size (default: 1 1 1)"
    )
    parser.add_argument("--noise", type=float, default=0.08, help="noise, relative to tissue (default: %(default)s)")
    parser.add_argument(
        "--ambiguity", type=float, default=0.2, metavar="MM", help="softness of the boundary (default: %(default)s)"
    )
    parser.set_defaults(run=_phantom)


def _phantom(arguments: argparse.Namespace) -> None:
    from .phantom import write_phantom

    datalist = write_phantom(
        arguments.output,
        arguments.cases,
        arguments.seed,
        shape=arguments.shape,
        spacing=arguments.spacing,
        noise=arguments.noise,
        ambiguity=arguments.ambiguity,
    )
    print(f"Wrote {arguments.cases} SYNTHETIC cases (no patient data), seed {arguments.seed}: {datalist}")


def _add_benchmark(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "benchmark",
        help="train and compare losses over seeds, networks and bundles",
        description="Train, evaluate and correct every loss with every seed, each in a process and folder of its own, "
        "and report. Run it again to resume; see docs/comparison.md.",
    )
    parser.add_argument("--bundle", type=Path, nargs="+", required=True, help="bundle folders")
    parser.add_argument("--dataset_dir", type=Path, required=True, help="converted data set, with datalist.json")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT", help="folder of the comparison")
    parser.add_argument(
        "--losses",
        nargs="+",
        required=True,
        metavar="LOSS",
        help="NAME or NAME:ARGUMENT=VALUE,...; of values separated by '|' validation chooses one",
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N-1 (default: %(default)s)")
    parser.add_argument("--network_names", nargs="+", default=[], metavar="NAME", help="(default: the bundle's own)")
    parser.add_argument(
        "--posthoc",
        nargs="+",
        default=["none"],
        metavar="METHOD",
        help="corrections after training, such as temperature or vector:region=all; 'none' reports the networks as "
        "trained as well (default: none)",
    )
    parser.add_argument(
        "--margins",
        type=float,
        nargs="+",
        default=[],
        metavar="M",
        help="for losses that take a margin and are given none: validation chooses one",
    )
    parser.add_argument(
        "--choose_by",
        default="nll_all_macro",
        metavar="FIGURE",
        help="what validation chooses by, smaller is better; a key of the summary in calibration.json "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the bundle, such as epochs=10"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side on this machine (default: %(default)s)")
    parser.add_argument("--ray", metavar="ADDRESS", help="carry the runs out on this Ray cluster; 'auto' finds it")
    parser.add_argument(
        "--gpus-per-run", type=float, metavar="N", help="with --ray; may be a fraction (default: 1 if there are any)"
    )
    parser.add_argument("--cpus-per-run", type=int, default=1, metavar="N", help="with --ray (default: %(default)s)")
    parser.add_argument(
        "--retries", type=int, default=1, help="how often a failed run is repeated (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.set_defaults(run=_benchmark)


def _benchmark(arguments: argparse.Namespace) -> None:
    from .experiments import Manifest, make_plan, report_folders, run_benchmark, variants

    if arguments.seeds < 1 or arguments.jobs < 1 or arguments.retries < 0:
        raise ValueError("--seeds and --jobs must be at least 1, --retries at least 0.")
    methods = [variants(text) for text in arguments.posthoc if text != "none"]
    plan = make_plan(
        arguments.output,
        arguments.bundle,
        arguments.dataset_dir,
        _families(arguments.losses, arguments.margins),
        range(arguments.seeds),
        arguments.network_names,
        [method for options in methods for method in options],
        _settings(arguments.set),
        uncorrected="none" in arguments.posthoc,
        choose_by=arguments.choose_by,
    )
    if arguments.dry_run:
        _show(plan)
        return
    failed = run_benchmark(plan, lambda: _workers(arguments), arguments.retries)
    for run in failed:
        print(f"{run.key} failed: {run.folder / 'run.log'}")
    folders = report_folders(plan, Manifest(plan))
    if folders:
        from .report.html import write_report

        results = plan.output / "results.json"
        print(f"Wrote {write_report(folders, plan.output / 'report.html', benchmark=results)} and {results}")
    if failed:
        raise ValueError(f"{len(failed)} of {len(plan.runs)} runs failed; the same command repeats them.")


def _workers(arguments: argparse.Namespace) -> Workers:
    from .experiments import LocalWorkers, RayWorkers

    if arguments.ray is None:
        return LocalWorkers(arguments.jobs)
    return RayWorkers(arguments.ray, arguments.gpus_per_run, arguments.cpus_per_run)


def _families(losses: Sequence[str], margins: Sequence[float]) -> dict[str, list[Named]]:
    """The variants of every loss, with ``margins`` for a loss that takes one and is given none."""
    from .experiments import Named, variants

    families: dict[str, list[Named]] = {}
    for text in losses:
        members = list(variants(text))
        if margins and all("margin" not in loss.arguments and _takes_margin(loss) for loss in members):
            members = [Named(x.name, {**x.arguments, "margin": margin}) for x in members for margin in margins]
        families[text] = members
    return families


def _takes_margin(loss: Named) -> bool:
    from .losses import build_loss

    try:
        build_loss(loss.name, **{**loss.arguments, "margin": 1.0})
    except (TypeError, ValueError):  # also an unknown loss: its run will say so
        return False
    return True


def _settings(pairs: Sequence[str]) -> Mapping[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not name or not separator:
            raise ValueError(f"--set expects NAME=VALUE, got {pair!r}.")
        try:
            settings[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            settings[name] = value
    return settings


def _show(plan: Plan) -> None:
    """What a run of the plan would do."""
    from .experiments import Manifest, missing_steps

    manifest = Manifest(plan)
    left = {run.key: missing_steps(run, manifest[run].trained) for run in plan.runs}
    for key, steps in left.items():
        print(f"{key}: {', '.join(steps) or 'finished'}")
    print(f"{sum(map(bool, left.values()))} of {len(left)} runs to do, below {plan.output / 'runs'}")


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="write one HTML page on evaluated runs",
        description="Write one self-contained HTML page that compares evaluated runs.",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folder that holds eval/calibration.json, or folders that do"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="page to write (default: %(default)s)"
    )
    parser.add_argument(
        "--published", type=Path, metavar="JSON", help="figures of other works to show apart; see docs/report.md"
    )
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from .report.html import write_report

    print(f"Wrote {write_report(arguments.runs, arguments.output, arguments.published).absolute()}")


def _add_dicom(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "dicom",
        help="read a DICOM series, write predictions as DICOM SEG",
        description="From a DICOM series to a volume, and from predictions to DICOM SEG; see docs/dicom.md.",
    )
    steps = parser.add_subparsers(required=True, metavar="step")

    nifti = steps.add_parser("to-nifti", help="a series as NIfTI volume")
    nifti.add_argument("series", type=Path, metavar="SERIES", help="folder that holds the series")
    nifti.add_argument("output", type=Path, metavar="OUT.nii.gz", help="volume to write")
    nifti.set_defaults(run=_dicom_to_nifti)

    seg = steps.add_parser("to-seg", help="predictions in NIfTI as DICOM SEG")
    seg.add_argument("series", type=Path, metavar="SERIES", help="folder that holds the series")
    seg.add_argument("segmentation", type=Path, metavar="SEGMENTATION.nii.gz", help="label map on the series' grid")
    seg.add_argument("output", type=Path, metavar="OUT.dcm", help="binary SEG to write")
    seg.add_argument(
        "--probabilities",
        type=Path,
        metavar="PROB.nii.gz",
        help="class probabilities, background first on the last axis; also writes OUT_probabilities.dcm",
    )
    seg.add_argument(
        "--confidence",
        type=Path,
        metavar="CONF.nii.gz",
        help="confidence map, in percent if integers; also writes OUT_confidence.dcm",
    )
    seg.add_argument("--labels", type=Path, metavar="JSON", help="a bundle's metadata.json, or labels.json")
    seg.add_argument("--resample", action="store_true", help="accept another grid and resample it to the series'")
    seg.set_defaults(run=_dicom_to_seg)

    segment = steps.add_parser("segment", help="a bundle run on a series, its outputs as DICOM SEG")
    segment.add_argument("series", type=Path, metavar="SERIES", help="folder that holds the series")
    segment.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    segment.add_argument("output", type=Path, metavar="OUT", help="folder to write to")
    segment.add_argument("--run_dir", type=Path, metavar="RUN", help="run whose models/model.pt predicts")
    segment.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="options of inference.json, such as device=cpu"
    )
    segment.set_defaults(run=_dicom_segment)

    for step in (nifti, seg, segment):
        step.add_argument("--series_uid", metavar="UID", help="which series, where the folder holds several")
    for step in (seg, segment):
        step.add_argument("--omit_empty_frames", action="store_true", help="smaller files; not every viewer shows them")


def _dicom_to_nifti(arguments: argparse.Namespace) -> None:
    from .dicom.command import to_nifti

    to_nifti(arguments.series, arguments.output, arguments.series_uid)


def _dicom_to_seg(arguments: argparse.Namespace) -> None:
    from .dicom.command import to_seg

    to_seg(
        arguments.series,
        arguments.segmentation,
        arguments.output,
        labels=arguments.labels,
        probabilities=arguments.probabilities,
        confidence=arguments.confidence,
        series_uid=arguments.series_uid,
        resample=arguments.resample,
        omit_empty_frames=arguments.omit_empty_frames,
    )


def _dicom_segment(arguments: argparse.Namespace) -> None:
    from .dicom.command import segment

    segment(
        arguments.series,
        arguments.bundle,
        arguments.output,
        run_dir=arguments.run_dir,
        settings=arguments.set,
        series_uid=arguments.series_uid,
        omit_empty_frames=arguments.omit_empty_frames,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0; 1 for what the user can mend, 2 for arguments not understood, 130 when interrupted.
    """
    parser = argparse.ArgumentParser(prog="monai_calib", description="Calibrated medical image segmentation.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_phantom(commands)
    _add_benchmark(commands)
    _add_report(commands)
    _add_dicom(commands)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"monai_calib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("monai_calib: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
