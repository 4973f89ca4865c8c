"""Breast Ultrasound Images (BUSI): benign and malignant lesions, and normal breasts, converted from PNG.

``python data_scripts/busi.py Dataset_BUSI_with_GT OUT``; see ``--help`` and docs/datasets.md.
"""

import sys
from pathlib import Path

from monai_calib.datasets.archives import visible
from monai_calib.datasets.checksums import sha256
from monai_calib.datasets.command import run
from monai_calib.datasets.dataset import Case, Dataset, Volume
from monai_calib.datasets.pictures import read_mask, read_picture


def find_cases(folder: Path) -> list[Case]:
    """Images such as ``benign (1).png`` with their masks ``benign (1)_mask.png``, ``benign (1)_mask_1.png``, ...

    No patient is named. Images that occur twice, be it as benign and as malignant, at least stay in one split.
    """
    pictures = sorted({path.with_name(f"{path.stem.split('_mask')[0]}.png") for path in visible(folder, "*/*.png")})
    sums = {path: sha256(path)[:12] if path.is_file() else path.stem for path in pictures}
    groups: dict[str, set[str]] = {}
    for path, digest in sums.items():
        groups.setdefault(digest, set()).add(path.parent.name)
    cases = []
    for path in pictures:
        masks = visible(path.parent, f"{path.stem}_mask*.png") or [path.with_name(f"{path.stem}_mask.png")]
        name = "_".join(path.stem.replace("(", "").replace(")", "").split())
        cases.append(Case(name, sums[path], (path,), tuple(masks), "+".join(sorted(groups[sums[path]]))))
    return cases


def read_image(case: Case) -> Volume:
    return read_picture(case.images[0])


def read_label(case: Case) -> Volume:
    return read_mask(case.label)


DATASET = Dataset(
    key="busi",
    title="BUSI",
    description="Lesions in breast ultrasound; a picture is a volume of one slice, its pixels are taken as 1 mm, their "
    "true size not being published. Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28 (2020)",
    licence="free for research with citation, see the terms of the download",
    layout="Dataset_BUSI_with_GT/{benign,malignant,normal}/{benign (1).png, benign (1)_mask.png, ...}",
    modality=("ultrasound",),
    labels=("background", "lesion"),
    find_cases=find_cases,
    read_image=read_image,
    read_label=read_label,
    root=("benign", "malignant", "normal"),
    cases=780,
)

if __name__ == "__main__":
    sys.exit(run(DATASET))
