"""Kidney Tumor Segmentation Challenge 2019 (KiTS): kidney and tumour in abdominal CT.

``python data_scripts/kits19.py kits19 OUT``; see ``--help`` and docs/datasets.md.
"""

import sys
from pathlib import Path

from monai_calib.datasets.archives import visible
from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import Case, Dataset


def find_cases(folder: Path) -> list[Case]:
    """The 210 cases that have a segmentation; the other 90 are the challenge's test cases."""
    labels = visible(folder, "case_*/segmentation.nii.gz")
    return [
        Case(label.parent.name, label.parent.name, (label.parent / "imaging.nii.gz",), (label,)) for label in labels
    ]


DATASET = Dataset(
    key="kits19",
    title="KiTS19",
    description="Kidney and kidney tumour in contrast-enhanced abdominal CT. Heller et al., The KiTS19 Challenge Data, "
    "arXiv:1904.00445 (2019)",
    licence="CC BY-NC-SA 4.0",
    layout="kits19/data/case_00000/{imaging.nii.gz, segmentation.nii.gz}; a clone of the official repository holds the "
    "segmentations only, its starter_code.get_imaging fetches the images",
    modality=("CT",),
    labels=("background", "kidney", "tumour"),
    find_cases=find_cases,
    reorient=True,  # slices lie along the first axis of the official files
    root=("case_*/segmentation.nii.gz",),
    cases=210,
)

if __name__ == "__main__":
    sys.exit(run(DATASET))
