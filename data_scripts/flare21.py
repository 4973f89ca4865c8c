"""Fast and Low GPU memory Abdominal oRgan sEgmentation 2021 (FLARE): four organs in abdominal CT.

``python data_scripts/flare21.py FLARE21 OUT``; see ``--help`` and docs/datasets.md.
"""

import sys
from pathlib import Path

from monai_calib.datasets.archives import visible
from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import Case, Dataset, SourceError, name_problems


def find_cases(folder: Path) -> list[Case]:
    """Images, perhaps in sub-folders of TrainingImg, each with the mask of its name less the channel number."""
    images = {path.name.removesuffix("_0000.nii.gz"): path for path in visible(folder, "TrainingImg/**/*_0000.nii.gz")}
    masks = {path.name.removesuffix(".nii.gz"): path for path in visible(folder, "TrainingMask/**/*.nii.gz")}
    problems = [f"{name}: has a mask, but no image in TrainingImg" for name in sorted(masks.keys() - images.keys())]
    problems += [f"{name}: has an image, but no mask in TrainingMask" for name in sorted(images.keys() - masks.keys())]
    if problems:
        raise name_problems(problems, f"{folder}: half-unpacked or altered")
    if not images:
        raise SourceError(f"{folder}: TrainingImg holds no train_000_0000.nii.gz.")
    return [Case(name, name, (images[name],), (masks[name],)) for name in images]


DATASET = Dataset(
    key="flare21",
    title="FLARE21",
    description="Liver, kidneys, spleen and pancreas in abdominal CT. Ma et al., Fast and Low-GPU-memory abdomen CT "
    "organ segmentation: the FLARE challenge, Medical Image Analysis 82 (2022)",
    licence="registration with the challenge; non-commercial research, see the terms of the download",
    layout="{TrainingImg/train_000_0000.nii.gz, TrainingMask/train_000.nii.gz, ...}",
    modality=("CT",),
    labels=("background", "liver", "kidney", "spleen", "pancreas"),
    find_cases=find_cases,
    root=("TrainingImg", "TrainingMask"),
    cases=361,
    fractions=(240 / 360, 40 / 360, 80 / 360),
)

if __name__ == "__main__":
    sys.exit(run(DATASET))
