"""The command ``phantom``."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "phantom",
        description="Write a SYNTHETIC data set in the Medical Segmentation Decathlon's layout; see docs/phantom.md.",
        epilog="example: python -m monai_calib phantom data/phantom --cases 40 --seed 0",
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
    print(
        f"Next: train on it: a bundle with --dataset_dir {arguments.output}, or benchmark with it; see docs/bundles.md."
    )
