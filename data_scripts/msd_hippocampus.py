"""Medical Segmentation Decathlon, Task04: anterior and posterior hippocampus in cropped T1-weighted MRI.

``python data_scripts/msd_hippocampus.py Task04_Hippocampus OUT``; see ``--help`` and docs/datasets.md.
"""

import sys
from pathlib import Path

from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import Case, Dataset, SourceError
from monai_calib.datasets.decathlon import decathlon_cases


def subject(name: str) -> str:
    """The left and the right hippocampus of one scan have numbers 2n - 1 and 2n: a split must not part them."""
    number = name.rpartition("_")[2]
    if not number.isdigit():
        raise SourceError(f"{name}: expected a name such as hippocampus_001, whose number tells the subject.")
    return str((int(number) + 1) // 2)


def find_cases(folder: Path) -> list[Case]:
    return decathlon_cases(folder, subject)


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
