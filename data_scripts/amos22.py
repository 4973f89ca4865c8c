"""Abdominal Multi-Organ Segmentation 2022 (AMOS): fifteen organs, of which the CT scans are converted.

``python data_scripts/amos22.py amos22 OUT``; see ``--help`` and docs/datasets.md.
"""

import sys
from pathlib import Path

from monai_calib.datasets.archives import visible
from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import Case, Dataset, SourceError

LAST_CT = 500  # greater numbers are MRI, which neither the intensity window nor the contrast of CT fits
ORGANS = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "oesophagus", "liver", "stomach", "aorta"),
    *("inferior vena cava", "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder"),
    "prostate or uterus",
)


def number(name: str) -> int:
    digits = name.removeprefix("amos_")
    if not digits.isdigit():
        raise SourceError(f"{name}: expected a name such as amos_0001, whose number tells CT from MRI.")
    return int(digits)


def find_cases(folder: Path) -> list[Case]:
    """CT scans of the labelled official training and validation parts."""
    cases = []
    for part in ("Tr", "Va"):
        kinds = (f"images{part}", f"labels{part}")
        names = {path.name.removesuffix(".nii.gz") for kind in kinds for path in visible(folder, f"{kind}/*.nii.gz")}
        for name in sorted(name for name in names if number(name) <= LAST_CT):
            image, label = (folder / kind / f"{name}.nii.gz" for kind in kinds)
            cases.append(Case(name, name, (image,), (label,)))
    return cases


DATASET = Dataset(
    key="amos22",
    title="AMOS22 (CT)",
    description="Fifteen abdominal organs in CT. Ji et al., AMOS: A Large-Scale Abdominal Multi-Organ Benchmark for "
    "Versatile Medical Image Segmentation, NeurIPS (2022)",
    licence="CC BY-NC-SA 4.0, see the terms of the download",
    layout="amos22/{imagesTr/amos_0001.nii.gz, labelsTr/amos_0001.nii.gz, imagesVa, labelsVa, ...}",
    modality=("CT",),
    labels=("background", *ORGANS),
    find_cases=find_cases,
    root=("imagesTr/amos_*.nii.gz", "labelsTr", "imagesVa", "labelsVa"),
    cases=300,
)

if __name__ == "__main__":
    sys.exit(run(DATASET))
