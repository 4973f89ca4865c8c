"""Medical Segmentation Decathlon, Task05: peripheral and transition zone of the prostate in T2-weighted MRI.

``python data_scripts/msd_prostate.py Task05_Prostate OUT``; see ``--help`` and docs/datasets.md.
"""

import sys
from pathlib import Path

from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import Case, Dataset, SourceError, Volume
from monai_calib.datasets.decathlon import decathlon_cases
from monai_calib.datasets.volumes import read_volume


def find_cases(folder: Path) -> list[Case]:
    return decathlon_cases(folder, subject=lambda name: name)


def read_t2(case: Case) -> Volume:
    """The first of the two channels (T2, ADC) on the last axis: the papers' input."""
    volume = read_volume(case.images[0])
    if volume.array.ndim != 4 or volume.array.shape[3] != 2:
        raise SourceError(
            f"{case.images[0]}: expected two channels (T2, ADC) on a fourth axis, got shape {volume.array.shape}."
        )
    return Volume(volume.array[..., 0], volume.affine)


DATASET = Dataset(
    key="msd_prostate",
    title="MSD Prostate",
    description="Peripheral and transition zone of the prostate in T2-weighted MRI. "
    "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13:4128 (2022)",
    licence="CC-BY-SA 4.0",
    layout="Task05_Prostate/{dataset.json, imagesTr/prostate_00.nii.gz (T2 and ADC), labelsTr/prostate_00.nii.gz, ...}",
    modality=("T2-weighted MRI",),
    labels=("background", "peripheral zone", "transition zone"),
    find_cases=find_cases,
    read_image=read_t2,
    root=("dataset.json", "imagesTr/prostate_*.nii.gz", "labelsTr"),
    cases=32,
    fractions=(22 / 32, 3 / 32, 7 / 32),
    archive="Task05_Prostate",
)

if __name__ == "__main__":
    sys.exit(run(DATASET))
