"""The commands ``benchmark`` and ``run``."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_calib.arguments import whole
from monai_calib.terminal import bold
from monai_calib.words import counted

from .run_command import add_run

if TYPE_CHECKING:
    from .plan import Plan
    from .workers import Workers

__all__ = ["add_commands"]

_EXAMPLE = """\
example:
  python -m monai_calib benchmark --bundle bundles/msd_hippocampus_segmentation_3d --dataset_dir data/hippocampus \\
      --output runs/comparison --losses ce 'mbls:margin=5|10' nacl --posthoc none temperature --seeds 3 --jobs 2
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "benchmark",
        description="Train, evaluate and correct every loss with every seed, each in a process and folder of its own,\n"
        "and report. Run it again to resume.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, nargs="+", required=True, help="bundle folders")
    parser.add_argument("--dataset_dir", type=Path, required=True, help="converted data set, with datalist.json")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT", help="folder of the comparison")
    parser.add_argument(
        "--losses",
        nargs="+",
        required=True,
        metavar="LOSS",
        help="NAME or NAME:ARGUMENT=VALUE,...; of values separated by '|', as in mbls:margin=5|10, validation "
        "chooses one",
    )
    parser.add_argument("--seeds", type=whole(), default=5, metavar="N", help="seeds 0 to N-1 (default: %(default)s)")
    parser.add_argument("--network_names", nargs="+", default=[], metavar="NAME", help="(default: the bundle's own)")
    parser.add_argument(
        "--posthoc",
        nargs="+",
        default=["none"],
        metavar="METHOD",
        help="corrections after training, such as temperature or vector:region=all; 'none' reports the networks as "
        "trained as well (default: none)",
    )
    parser.add_argument("--margins", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument(
        "--choose_by",
        default="nll_all_macro",
        metavar="METRIC",
        help="what validation chooses by, smaller is better; a key of the summary in calibration.json "
        "(default: %(default)s)",
    )
    _add_workers(parser)
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.set_defaults(run=_benchmark)
    in_one_go = add_run(commands)
    _add_workers(in_one_go)
    in_one_go.set_defaults(run=_run)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    """Options on settings of the bundle and on who carries the runs out."""
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the bundle, such as epochs=10"
    )
    parser.add_argument(
        "--jobs", type=whole(), default=1, help="runs side by side on this machine (default: %(default)s)"
    )
    parser.add_argument("--ray", metavar="ADDRESS", help="carry the runs out on this Ray cluster; 'auto' finds it")
    parser.add_argument(
        "--gpus_per_run",
        "--gpus-per-run",
        type=float,
        metavar="N",
        help="with --ray; may be a fraction (default: 1 if there are any)",
    )
    parser.add_argument(
        "--cpus_per_run",
        "--cpus-per-run",
        type=whole(),
        default=1,
        metavar="N",
        help="with --ray (default: %(default)s)",
    )
    parser.add_argument(
        "--retries", type=whole(0), default=1, help="how often a failed run is repeated (default: %(default)s)"
    )


def _run(arguments: argparse.Namespace) -> None:
    print(f"Reading {arguments.data}", flush=True)  # before imports that take seconds
    from .run_command import run

    run(arguments, dict(_settings(arguments.set)), lambda: _workers(arguments))


def _benchmark(arguments: argparse.Namespace) -> None:
    from .benchmark import run_benchmark
    from .checks import check_corrections, check_losses, check_settings
    from .manifest import Manifest
    from .plan import make_plan
    from .results import report_folders
    from .specification import variants

    if arguments.margins is not None:
        values = "|".join(arguments.margins) or "5|10"
        raise argparse.ArgumentTypeError(
            f"--margins: expected the values behind the losses that take them. Write --losses 'mbls:margin={values}'."
        )
    families = {text: variants(text) for text in arguments.losses}
    posthoc = [method for text in arguments.posthoc if text != "none" for method in variants(text)]
    settings = _settings(arguments.set)
    plan = make_plan(
        arguments.output,
        arguments.bundle,
        arguments.dataset_dir,
        families,
        range(arguments.seeds),
        arguments.network_names,
        posthoc,
        settings,
        uncorrected="none" in arguments.posthoc,
        choose_by=arguments.choose_by,
    )
    check_losses(loss for members in families.values() for loss in members)
    check_corrections(posthoc)
    check_settings(settings, arguments.bundle)
    if arguments.dry_run:
        _show(plan)
        return
    failed = run_benchmark(plan, lambda: _workers(arguments), arguments.retries)
    for run in failed:
        print(f"{run.key} failed: {run.folder / 'run.log'}")
    folders = report_folders(plan, Manifest(plan))
    if folders:
        from monai_calib.report.html import write_report

        results = plan.output / "results.json"
        page = write_report(folders, plan.output / "report.html", benchmark=results)
        print(f"Wrote {bold(page)} and {bold(results)}\nNext: open the page in a browser.")
    if failed:
        raise ValueError(f"{len(failed)} of {counted(len(plan.runs), 'run')} failed; the same command repeats them.")


def _workers(arguments: argparse.Namespace) -> Workers:
    from .cluster import RayWorkers
    from .workers import LocalWorkers

    if arguments.ray is None:
        return LocalWorkers(arguments.jobs)
    return RayWorkers(arguments.ray, arguments.gpus_per_run, arguments.cpus_per_run)


def _settings(pairs: Sequence[str]) -> Mapping[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not name or not separator:
            raise argparse.ArgumentTypeError(f"--set: expected NAME=VALUE, got {pair!r}.")
        try:
            settings[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            settings[name] = value
    return settings


def _show(plan: Plan) -> None:
    """Say what a run of the plan would do."""
    from .folders import missing_steps
    from .manifest import Manifest

    manifest = Manifest(plan)
    left = {run.key: missing_steps(run, manifest[run].trained) for run in plan.runs}
    for key, steps in left.items():
        print(f"{key}: {', '.join(steps) or 'finished'}")
    print(f"{sum(map(bool, left.values()))} of {counted(len(left), 'run')} to do, below {plan.output / 'runs'}")
