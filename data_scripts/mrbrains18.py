"""MR Brain Segmentation 2018 (MRBrainS18): grey matter, white matter and fluid in T1, inversion recovery and FLAIR.

``python data_scripts/mrbrains18.py MRBrainS18 OUT``; see ``--help`` and docs/datasets.md.
"""

import sys
from pathlib import Path

from monai_calib.datasets.archives import visible
from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import Case, Dataset

CONTRASTS = ("reg_T1", "reg_IR", "FLAIR")


def find_cases(folder: Path) -> list[Case]:
    """The training subjects; the contrasts in ``pre`` are bias-corrected and registered to the FLAIR."""
    return [
        Case(
            name=f"mrbrains18_{place.name}",
            subject=place.name,
            images=tuple(place / "pre" / f"{contrast}.nii.gz" for contrast in CONTRASTS),
            label=(place / "segm.nii.gz",),
        )
        for place in visible(folder, "*")
        if (place / "pre").is_dir() or (place / "segm.nii.gz").is_file()
    ]


DATASET = Dataset(
    key="mrbrains18",
    title="MRBrainS18",
    description="Grey matter (cortical, basal ganglia), white matter (with lesions) and fluid (extracerebral, "
    "ventricles) in 3 T brain MRI with slices of 3 mm. Kuijf and Bennink, MR Brain Segmentation challenge (2018)",
    licence="agreement with the challenge's organisers, see the terms of the download",
    layout="training/{1,4,5,7,14,070,148}/{pre/{reg_T1,reg_IR,FLAIR}.nii.gz, segm.nii.gz}",
    modality=("T1", "T1 inversion recovery", "FLAIR"),
    labels=("background", "grey matter", "white matter", "cerebrospinal fluid"),
    # Merged as the challenge of 2013 advises. The rest is background: cerebellum (7), brain stem (8), and infarction
    # (9) and other (10), which the challenge of 2018 leaves out of its evaluation.
    label_map={0: 0, 1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 0, 8: 0, 9: 0, 10: 0},
    find_cases=find_cases,
    root=("*/segm.nii.gz",),
    cases=7,
    fractions=(4 / 7, 1 / 7, 2 / 7),  # the papers' 5 and 2, one of the 5 being for validation
)

if __name__ == "__main__":
    sys.exit(run(DATASET))
