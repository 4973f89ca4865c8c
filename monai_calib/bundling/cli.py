"""The commands ``bundle`` and ``pack``."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_calib.arguments import truth, whole
from monai_calib.terminal import bold

__all__ = ["add_commands"]

_EXAMPLE = """\
example:
  python -m monai_calib prepare pictures/images pictures/masks my/usgra --labels nerve=1 vessel=2
  python -m monai_calib bundle my/usgra my/usgra_segmentation_2d
  python -m monai_calib bundle acdc_segmentation_3d my/acdc_segmentation_3d      # one that comes with the package
"""
_PACK_EXAMPLE = """\
example:
  python -m monai_calib pack bundles/*_segmentation_*d --output dist
  python -m monai_calib pack bundles/acdc_segmentation_3d --output dist --run_dir RUN
  python -m monai.bundle download --name NAME --url file:///PATH/dist/NAME_vVERSION.zip --bundle_dir FOLDER
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "bundle",
        description="Write a MONAI bundle for a prepared data folder: what is seen in the data, and a plan with a\n"
        "reason for each number. Or write one of the bundles of the package, by its name.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="DATA", help="folder made by prepare, a data script or phantom; or a name")
    parser.add_argument("output", type=Path, metavar="OUT", help="new folder, which gives the bundle its name")
    parser.add_argument("--dimensions", type=int, choices=(2, 3), help="2: slices; 3: patches (default: as planned)")
    parser.add_argument("--spacing", type=float, nargs="+", metavar="MM", help="voxel of the network's grid")
    parser.add_argument("--patch_size", type=int, nargs="+", metavar="N", help="voxels of a crop along each axis")
    parser.add_argument("--batch_size", type=whole(), metavar="N", help="images a step")
    parser.add_argument("--epochs", type=whole(), metavar="N", help="length of the training")
    parser.add_argument("--overwrite", type=truth, default=False, metavar="True", help="replace a bundle at OUT")
    parser.set_defaults(run=_bundle)
    packing = commands.add_parser(
        "pack",
        description="Pack bundles as zips that monai.bundle.download reads, alone or with a run's weights and figures.",
        epilog=_PACK_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    packing.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="folder of a bundle")
    packing.add_argument(
        "--output", type=Path, default=Path("dist"), metavar="OUT", help="folder for NAME_vVERSION.zip (default: dist)"
    )
    packing.add_argument(
        "--run_dir", type=Path, metavar="RUN", help="trained and evaluated run whose weights go in, of one bundle"
    )
    packing.set_defaults(run=_pack)


def _bundle(arguments: argparse.Namespace) -> None:
    from .bundle import bundle_data, bundle_shipped
    from .plan import GIVEN

    given = {name: getattr(arguments, name) for name in GIVEN if getattr(arguments, name) is not None}
    source = Path(arguments.data)
    if not source.is_dir() and "/" not in arguments.data:
        if given:
            raise argparse.ArgumentTypeError(
                f"--{next(iter(given))}: bundles of the package have their own. Leave it out."
            )
        folder = bundle_shipped(arguments.data, arguments.output, arguments.overwrite)
        print(f"Wrote {bold(folder)}\nNext: its docs/README.md says where the data come from and how to run it.")
        return
    made = bundle_data(source, arguments.output, given, arguments.overwrite)
    print(f"{made.fingerprint.in_words()}\n\n{made.plan.in_words()}\n")
    print(
        f"Wrote {bold(made.folder)}\nNext: python -m monai_calib run {arguments.data} OUT --bundle {arguments.output}"
    )


def _pack(arguments: argparse.Namespace) -> None:
    from .pack import pack

    if arguments.run_dir is not None and len(arguments.bundles) > 1:
        raise argparse.ArgumentTypeError(
            f"--run_dir: expected one bundle, got {len(arguments.bundles)}. A run is of one bundle."
        )
    for bundle in arguments.bundles:
        print(f"Wrote {bold(pack(bundle, arguments.output, arguments.run_dir))}")
    print("Next: python -m monai.bundle download --name NAME --url file:///PATH/NAME_vVERSION.zip --bundle_dir FOLDER")
