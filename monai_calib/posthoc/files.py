"""The files that a calibration leaves in a run's models folder, and what they say."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["FOLDED", "PARAMETERS", "WITH_HEAD", "calibrated_model", "posthoc_settings"]

FOLDED = "model_calibrated.pt"
"""State dict of the network with the correction in its last convolution."""
WITH_HEAD = "model_calibrated.ts"
"""TorchScript of the network and its head, for what does not fold."""
PARAMETERS = "calibration_parameters.json"
"""The fitted method."""


def calibrated_model(directory: str | os.PathLike[str]) -> str:
    """Path of the calibrated model in a models folder, folded or with its head.

    Raises: ``FileNotFoundError`` if the run was not calibrated.
    """
    for name in (WITH_HEAD, FOLDED):
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(
        f"there is neither {FOLDED} nor {WITH_HEAD} in {os.fspath(directory)!r}: calibrate the run first, with "
        "configs/calibrate.json laid over configs/train.json"
    )


def posthoc_settings(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The method and region of the calibrated model in a models folder, as an evaluation records them.

    Example:
        >>> import tempfile
        >>> from monai_calib.posthoc import TemperatureScaling
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, PARAMETERS).write_text(json.dumps(TemperatureScaling(3).to_json()))
        ...     posthoc_settings(folder)
        {'posthoc': 'temperature', 'posthoc_region': 'dilated:2mm'}
    """
    fitted = json.loads(Path(directory, PARAMETERS).read_text(encoding="utf-8"))
    return {"posthoc": fitted["method"], "posthoc_region": fitted["fit"]["region"]}
