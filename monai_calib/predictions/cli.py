"""The commands ``measure`` and ``correct``."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_calib.arguments import truth
from monai_calib.terminal import bold, warned
from monai_calib.words import counted

__all__ = ["add_commands"]

_MEASURE = """\
example:
  python -m monai_calib measure nnUNet_results/Dataset501_Heart/.../fold_0/validation labelsTr runs/nnunet \\
      --subjects '(patient[0-9]+)_'
  python -m monai_calib measure softmax_nifti labels runs/mine --classes background=0 liver=1 tumour=2
"""
_CORRECT = """\
example:
  python -m monai_calib correct runs/nnunet runs/nnunet_corrected --fit_on validation.txt
  python -m monai_calib report runs/nnunet_corrected
"""
_SHOWN = (
    "nll_all_macro",
    "ece_all_15bins_macro",
    "ece_boundary2mm_15bins_macro",
    "ece_boundary2vx_15bins_macro",
    "mean_dice",
)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _add_measure(commands)
    _add_correct(commands)


def _add_measure(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "measure",
        description="Measure stored probability maps: nnU-Net's .npz, NIfTI with classes on the fourth axis, or a\n"
        "NIfTI file per class. Maps and labels are paired by name; the geometry is the labels'.",
        epilog=_MEASURE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("probabilities", type=Path, metavar="PROBABILITIES", help="folder of maps")
    parser.add_argument("labels", type=Path, metavar="LABELS", help="folder of labels: NIfTI, MetaImage, NRRD, PNG")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder of the run; eval/ in it is written")
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME=VALUE",
        help="classes in the maps' order, background first, with their values in the labels (default: those of a "
        "dataset.json beside maps or labels, else 0, 1, ...)",
    )
    parser.add_argument("--ignore_index", type=int, metavar="VALUE", help="value in the labels that counts nowhere")
    parser.add_argument(
        "--logits", type=truth, nargs="?", const=True, default=False, metavar="True", help="maps are logits"
    )
    parser.add_argument(
        "--axes",
        help="order of the maps' axes in letters: k class, x y z the label's axes (default: kzyx for .npz, xyzk for "
        "NIfTI)",
    )
    parser.add_argument(
        "--spacing", type=float, nargs=3, metavar="MM", help="voxel size instead of the labels' headers'"
    )
    parser.add_argument(
        "--subjects",
        "--patients",
        metavar="REGEX|CSV",
        help="whose each case is: an expression whose first group is the subject, or a .csv of case and subject",
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="images for the report's slices")
    parser.add_argument(
        "--protocols",
        nargs="+",
        metavar="NAME",
        help="(default: paper by_region; of pictures and voxels over 2 mm paper by_region_px)",
    )
    parser.add_argument("--name", help="what a report calls these predictions (default: OUT's name)")
    parser.set_defaults(run=_measure)


def _add_correct(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "correct",
        description="Fit a correction on some measured maps, correct the others, and write these in their format.",
        epilog=_CORRECT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("evaluated", type=Path, metavar="EVALUATED", help="folder that measure has written")
    parser.add_argument("output", type=Path, metavar="OUT", help="new folder")
    parser.add_argument(
        "--fit_on",
        required=True,
        metavar="LIST",
        help="cases to fit on: a text file with one a line; a split of a datalist, as datalist.json:validation; or "
        "another folder that measure has written, of the same network",
    )
    parser.add_argument(
        "--method", default="auto", help="correction, or auto, which may choose none (default: %(default)s)"
    )
    parser.add_argument("--region", help="voxels that count in the fit of a method by name (default: all)")
    parser.add_argument(
        "--force",
        type=truth,
        nargs="?",
        const=True,
        default=False,
        metavar="True",
        help="write a method by name even if it makes held-out cases worse",
    )
    parser.set_defaults(run=_correct)


def _measure(arguments: argparse.Namespace) -> None:
    from monai_calib.progress import with_progress

    from .classes import Classes
    from .lists import some
    from .measure import measure_maps
    from .settings import Settings

    maps, labels = arguments.probabilities, arguments.labels
    if arguments.classes:
        classes = Classes.from_texts(arguments.classes, arguments.ignore_index)
    else:
        classes = Classes.from_dataset([maps, labels, labels.absolute().parent], arguments.ignore_index)
    settings = Settings(
        probabilities=maps,
        labels=labels,
        classes=classes,
        logits=arguments.logits,
        axes=arguments.axes,
        spacing=None if arguments.spacing is None else tuple(arguments.spacing),
        images=arguments.images,
    )
    given = (arguments.protocols, arguments.subjects, arguments.name)
    found = measure_maps(settings, arguments.output, *given, progress=with_progress)
    if found.unmapped:
        print(f"Left out, {counted(len(found.unmapped), 'label')} without a map: {some(found.unmapped)}")
    if found.floored:
        print(
            f"{100 * found.floored:.2g} % of the probabilities were 0 after rounding (float16 or scaled integers); "
            "they are taken as the largest number that is rounded to 0."
        )
    for name in _SHOWN:
        if name in found.summary:
            print(f"  {name:<28} {found.summary[name]:.4f}")
    print(f"Wrote {counted(found.cases, 'case')}, measured from {found.format}: {bold(found.folder)}")
    print(f"Next: python -m monai_calib report {arguments.output}")
    print(f"      python -m monai_calib correct {arguments.output} OUT --fit_on LIST")


def _correct(arguments: argparse.Namespace) -> None:
    from monai_calib.progress import with_progress

    from .correct import correct_maps
    from .lists import some

    how = (arguments.method, arguments.region, arguments.force)
    found = correct_maps(arguments.evaluated, arguments.output, arguments.fit_on, *how, progress=with_progress)
    fitted = found.calibrator
    print(f"Correction: {fitted.method}, fitted on {counted(found.fitted_on, 'case')} ({found.why}).")
    if fitted.record.message:
        print(f"  {fitted.record.message}")
    if fitted.method == "none":
        print("No correction makes these maps better on cases it was not fitted on without making something worse:")
        print("they were written as they are.")
    for name, worse in found.guards.items():
        if worse:
            print(f"  not {name}: {'; '.join(worse)}")
    if found.shared:
        shared = f"{counted(len(found.shared), 'subject')}: {some(found.shared)}"
        print(warned(f"Beware: in the fit and among the corrected, {shared}."))
    print(f"{counted(found.corrected, 'case')} not used for the fit, before -> after (means over cases):")
    for name in _SHOWN:
        if name in found.before:
            print(f"  {name:<28} {found.before[name]:.4f} -> {found.after[name]:.4f}")
    print(f"  voxels with another label    {found.labels_changed}")
    written = f"{bold(found.folder / 'maps')}, {bold(found.folder / 'correction.json')}"
    print(f"Wrote {written} and evaluations of both.")
    print(f"Next: python -m monai_calib report {found.folder}")
