"""Brain Tumor Segmentation Challenge 2019 (BraTS): necrosis, oedema and enhancing tumour in four MRI contrasts.

``python data_scripts/brats19.py MICCAI_BraTS_2019_Data_Training OUT``; see ``--help`` and docs/datasets.md.
"""

import sys
from pathlib import Path

from monai_calib.datasets.archives import visible
from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import Case, Dataset

CONTRASTS = ("flair", "t1", "t1ce", "t2")


def find_cases(folder: Path) -> list[Case]:
    """Scans of both grades; the last part of a name numbers the scans of a patient."""
    return [
        Case(
            name=place.name,
            subject=place.name.rpartition("_")[0],
            images=tuple(place / f"{place.name}_{contrast}.nii.gz" for contrast in CONTRASTS),
            label=(place / f"{place.name}_seg.nii.gz",),
            group=grade,
        )
        for grade in ("HGG", "LGG")
        for place in visible(folder, f"{grade}/BraTS19_*")
    ]


DATASET = Dataset(
    key="brats19",
    title="BraTS 2019",
    description="Glioma in co-registered, skull-stripped brain MRI of 1 mm. Menze et al., The Multimodal Brain Tumor "
    "Image Segmentation Benchmark (BRATS), IEEE TMI 34:1993-2024 (2015)",
    licence="registration with the challenge, see the terms of the download",
    layout="{HGG,LGG}/BraTS19_x_1/BraTS19_x_1_{flair,t1,t1ce,t2,seg}.nii.gz",
    modality=("FLAIR", "T1", "T1 with contrast agent", "T2"),
    labels=("background", "necrotic and non-enhancing core", "oedema", "enhancing tumour"),
    label_map={0: 0, 1: 1, 2: 2, 4: 3},
    find_cases=find_cases,
    root=("HGG", "LGG"),
    cases=335,
    fractions=(235 / 335, 35 / 335, 65 / 335),
)

if __name__ == "__main__":
    sys.exit(run(DATASET))
