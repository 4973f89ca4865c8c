"""The folder of the trainers, for nnU-Net: ``export nnUNet_extTrainer=$(python -m monai_calib.nnunet)``."""

from __future__ import annotations

import importlib.util
import sys

from monai_calib.nnunet import TRAINERS
from monai_calib.terminal import fail


def main() -> int:
    """Print the folder, and refuse where nnU-Net would not find this package."""
    if importlib.util.find_spec("nnunetv2") is None:
        fail(
            "monai_calib",
            f"nnunetv2: expected it beside monai_calib, got none in {sys.executable}. Install monai_calib where "
            "nnU-Net is, and ask that Python.",
        )
        return 1
    print(TRAINERS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
