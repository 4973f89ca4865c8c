"""Prostate MR Image Segmentation 2012 (PROMISE12): the prostate in T2-weighted MRI, converted from MetaImage.

``python data_scripts/promise12.py PROMISE12 OUT``; see ``--help`` and docs/datasets.md.
"""

import sys
from pathlib import Path

from monai_calib.datasets.archives import visible
from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import Case, Dataset


def find_cases(folder: Path) -> list[Case]:
    """The training cases, in one folder or in the parts they are downloaded in.

    Folders without a single segmentation are the challenge's test cases, which bear the same names.
    """
    places = sorted({path.parent for path in visible(folder, "**/Case*_segmentation.mhd")})
    headers = [path for place in places for path in visible(place, "Case*.mhd")]
    images = sorted({path.with_name(f"{path.stem.removesuffix('_segmentation')}.mhd") for path in headers})
    return [
        Case(image.stem, image.stem, (image,), (image.with_name(f"{image.stem}_segmentation.mhd"),)) for image in images
    ]


DATASET = Dataset(
    key="promise12",
    title="PROMISE12",
    description="Prostate in transversal T2-weighted MRI from several centres and scanners. Litjens et al., "
    "Evaluation of prostate segmentation algorithms for MRI: the PROMISE12 challenge, Medical Image Analysis 18 (2014)",
    licence="registration with the challenge, see the terms of the download",
    layout="{Case00.mhd, Case00.raw, Case00_segmentation.mhd, Case00_segmentation.raw, ...}, in one folder or in parts",
    modality=("T2-weighted MRI",),
    labels=("background", "prostate"),
    find_cases=find_cases,
    root=("**/Case*_segmentation.mhd",),
    cases=50,
)

if __name__ == "__main__":
    sys.exit(run(DATASET))
