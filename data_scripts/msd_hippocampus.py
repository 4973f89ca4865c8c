"""Medical Segmentation Decathlon, Task04: anterior and posterior hippocampus in cropped T1-weighted MRI.

``python data_scripts/msd_hippocampus.py Task04_Hippocampus OUT``; see ``--help`` and docs/datasets.md.
"""

import sys
from pathlib import Path

from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import Case, Dataset
from monai_calib.datasets.decathlon import decathlon_cases
from monai_calib.datasets.known import hippocampus_subject


def find_cases(folder: Path) -> list[Case]:
    return decathlon_cases(folder, hippocampus_subject)


DATASET = Dataset(
    key="msd_hippocampus",
    title="MSD Hippocampus",
    description="Left and right hippocampus, anterior and posterior part, in cropped T1-weighted MRI. "
    "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13:4128 (2022)",
    licence="CC-BY-SA 4.0",
    layout="Task04_Hippocampus/{dataset.json, imagesTr/hippocampus_001.nii.gz, labelsTr/hippocampus_001.nii.gz, ...}",
    modality=("MRI",),
    labels=("background", "anterior", "posterior"),
    find_cases=find_cases,
    root=("dataset.json", "imagesTr/hippocampus_*.nii.gz", "labelsTr"),
    cases=260,
    fractions=(0.54, 0.12, 0.34),
    archive="Task04_Hippocampus",
)

if __name__ == "__main__":
    sys.exit(run(DATASET))
