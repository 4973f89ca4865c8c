"""DICOM in and out: a series as volume for the network, its predictions as DICOM SEG; extra ``[dicom]``."""

try:
    import highdicom  # noqa: F401
    import pydicom  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'monai_calib.dicom needs highdicom and pydicom ({error}): pip install "monai_calib[dicom]"',
        name=error.name,
    ) from error

from .concepts import CONFIDENCE, Algorithm, Structure, name_structures, read_labels
from .grid import load_on_grid
from .parametric_map import (
    CONFIDENCE_MAP,
    Quantity,
    probability_of,
    read_parametric_map,
    write_parametric_map,
)
from .readback import read_segmentation
from .segmentation import write_confidence, write_labels, write_masks, write_probabilities
from .series import Series, find_series, read_series
from .volume import to_metatensor, write_nifti

__all__ = [
    "CONFIDENCE",
    "CONFIDENCE_MAP",
    "Algorithm",
    "Quantity",
    "Series",
    "Structure",
    "find_series",
    "load_on_grid",
    "name_structures",
    "probability_of",
    "read_labels",
    "read_parametric_map",
    "read_segmentation",
    "read_series",
    "to_metatensor",
    "write_confidence",
    "write_labels",
    "write_masks",
    "write_nifti",
    "write_parametric_map",
    "write_probabilities",
]
