"""The command line: ``python -m monai_calib {phantom,report,dicom} ...``; what one needs is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .version import __version__


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


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="write one HTML page on evaluated runs",
        description="Write one self-contained HTML page that compares evaluated runs.",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run folder, one that holds eval/calibration.json"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="page to write (default: %(default)s)"
    )
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from .report.html import write_report

    print(f"Wrote {write_report(arguments.runs, arguments.output).absolute()}")


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
    """Run a command and return its exit status: 0, 1 for what the user can mend, 2 for arguments not understood."""
    parser = argparse.ArgumentParser(prog="monai_calib", description="Calibrated medical image segmentation.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_phantom(commands)
    _add_report(commands)
    _add_dicom(commands)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"monai_calib: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
