"""Automated Cardiac Diagnosis Challenge (ACDC): right ventricle, myocardium and left ventricle in cine MRI.

``python data_scripts/acdc.py ACDC OUT``; see ``--help`` and docs/datasets.md.
"""

import sys
from pathlib import Path

from monai_calib.datasets.archives import visible
from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import Case, Dataset, SourceError, name_problems


def read_info(path: Path) -> dict[str, str]:
    """The lines ``Key: value`` of a patient's Info.cfg."""
    pairs = (line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def patient_cases(patient: Path) -> list[Case]:
    """The two labelled frames, end of diastole and end of systole, of a patient."""
    path = patient / "Info.cfg"
    if not path.is_file():
        raise SourceError(f"{path}: missing; it tells which frames are labelled.")
    info = read_info(path)
    try:
        frames = [int(info["ED"]), int(info["ES"])]
        group = info["Group"]
    except (KeyError, ValueError) as error:
        raise SourceError(f"{path}: expected lines ED: <frame>, ES: <frame> and Group: <diagnosis>.") from error
    names = [f"{patient.name}_frame{frame:02d}" for frame in frames]
    return [
        Case(name, patient.name, (patient / f"{name}.nii.gz",), (patient / f"{name}_gt.nii.gz",), group)
        for name in names
    ]


def find_cases(folder: Path) -> list[Case]:
    cases, problems = [], []
    for patient in visible(folder, "training/patient*"):
        try:
            cases += patient_cases(patient)
        except SourceError as error:
            problems.append(str(error))
    if problems:
        raise name_problems(problems, f"{folder}: half-unpacked or altered")
    return cases


DATASET = Dataset(
    key="acdc",
    title="ACDC",
    description="Cardiac cine MRI at end of diastole and end of systole. Bernard et al., Deep Learning Techniques for "
    "Automatic MRI Cardiac Multi-structures Segmentation and Diagnosis, IEEE TMI 37:2514-2525 (2018)",
    licence="registration with the challenge; non-commercial research, see the terms of the download",
    layout="database/training/patient001/{Info.cfg, patient001_frame01.nii.gz, patient001_frame01_gt.nii.gz, ...}",
    modality=("cine MRI",),
    labels=("background", "right ventricle", "myocardium", "left ventricle"),
    find_cases=find_cases,
    root=("training/patient*",),
    cases=200,
    fractions=(0.7, 0.1, 0.2),
)

if __name__ == "__main__":
    sys.exit(run(DATASET))
