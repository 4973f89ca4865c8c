"""The commands ``dicom to-nifti``, ``to-seg``, ``to-pm`` and ``segment``."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_commands"]

_EXAMPLE = """\
example:
  python -m monai_calib dicom to-nifti SERIES case.nii.gz
  python -m monai_calib dicom to-seg SERIES case_seg.nii.gz case.dcm --labels BUNDLE/configs/metadata.json
  python -m monai_calib dicom to-pm SERIES case_confidence.nii.gz case_confidence_pm.dcm
  python -m monai_calib dicom segment SERIES BUNDLE OUT --run_dir RUN
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "dicom",
        description="From a DICOM series to a volume, and from predictions to DICOM objects.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(required=True, metavar="step")

    nifti = steps.add_parser(
        "to-nifti",
        help="a series as NIfTI volume",
        epilog="example: python -m monai_calib dicom to-nifti SERIES case.nii.gz",
    )
    nifti.add_argument("series", type=Path, metavar="SERIES", help="folder that holds the series")
    nifti.add_argument("output", type=Path, metavar="OUT.nii.gz", help="volume to write")
    nifti.set_defaults(run=_dicom_to_nifti)

    seg = steps.add_parser(
        "to-seg",
        help="predictions in NIfTI as DICOM SEG",
        epilog="example: python -m monai_calib dicom to-seg SERIES case_seg.nii.gz case.dcm --labels labels.json",
    )
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
    seg.set_defaults(run=_dicom_to_seg)

    pm = steps.add_parser(
        "to-pm",
        help="a confidence or probability map in NIfTI as DICOM Parametric Map",
        epilog="example: python -m monai_calib dicom to-pm SERIES case_confidence.nii.gz case_confidence_pm.dcm",
    )
    pm.add_argument("series", type=Path, metavar="SERIES", help="folder that holds the series")
    pm.add_argument(
        "values",
        type=Path,
        metavar="MAP.nii.gz",
        help="confidence map, in percent if integers; or class probabilities, background first on the last axis",
    )
    pm.add_argument("output", type=Path, metavar="OUT.dcm", help="map to write; of probabilities OUT_LABEL.dcm a class")
    pm.set_defaults(run=_dicom_to_pm)

    segment = steps.add_parser(
        "segment",
        help="a bundle run on a series, its outputs as DICOM SEG",
        epilog="example: python -m monai_calib dicom segment SERIES BUNDLE OUT --run_dir RUN",
    )
    segment.add_argument("series", type=Path, metavar="SERIES", help="folder that holds the series")
    segment.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    segment.add_argument("output", type=Path, metavar="OUT", help="folder to write to")
    segment.add_argument("--run_dir", type=Path, metavar="RUN", help="run whose models/model.pt predicts")
    segment.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="options of inference.json, such as device=cpu"
    )
    segment.add_argument(
        "--parametric_maps", action="store_true", help="confidence and probabilities as Parametric Map too, for OHIF"
    )
    segment.add_argument(
        "--clinical",
        action="store_true",
        help="run clinical.json: also margins, sets, and a page and a row of volumes, expected Dice and the flag",
    )
    segment.set_defaults(run=_dicom_segment)

    for step in (nifti, seg, pm, segment):
        step.add_argument("--series_uid", metavar="UID", help="which series, where the folder holds several")
    for step in (seg, pm):
        step.add_argument("--labels", type=Path, metavar="JSON", help="a bundle's metadata.json, or labels.json")
        step.add_argument("--resample", action="store_true", help="accept another grid and resample it to the series'")
    for step in (seg, segment):
        step.add_argument("--omit_empty_frames", action="store_true", help="smaller files; not every viewer shows them")


def _dicom_to_nifti(arguments: argparse.Namespace) -> None:
    from .command import to_nifti

    to_nifti(arguments.series, arguments.output, arguments.series_uid)


def _dicom_to_seg(arguments: argparse.Namespace) -> None:
    from .command import to_seg

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


def _dicom_to_pm(arguments: argparse.Namespace) -> None:
    from .command import to_pm

    to_pm(
        arguments.series,
        arguments.values,
        arguments.output,
        labels=arguments.labels,
        series_uid=arguments.series_uid,
        resample=arguments.resample,
    )


def _dicom_segment(arguments: argparse.Namespace) -> None:
    from .command import segment

    segment(
        arguments.series,
        arguments.bundle,
        arguments.output,
        run_dir=arguments.run_dir,
        settings=arguments.set,
        series_uid=arguments.series_uid,
        omit_empty_frames=arguments.omit_empty_frames,
        parametric_maps=arguments.parametric_maps,
        clinical=arguments.clinical,
    )
