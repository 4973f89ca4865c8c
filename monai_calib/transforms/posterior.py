"""The known probability of each class beside a case, as a synthetic data set has it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import nibabel as nib
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, ResampleToMatch

from monai_calib.datasets.phantom import load_posterior

__all__ = ["LoadPosteriord"]


class LoadPosteriord(MapTransform):
    """Reads the probabilities from which a label was drawn, on the grid that the image has by now.

    A file ``(X, Y, Z, K)``, as :func:`monai_calib.datasets.phantom.write_phantom` leaves it, becomes ``(K, *spatial)``
    float32 that sums to 1 in each voxel. Where the image was turned or resampled, it is interpolated linearly.

    Args:
        keys: items that name the files.
        image_key: the image, loaded.

    Raises: ``ValueError`` naming the file if it holds no probabilities.

    Example:
        >>> import tempfile
        >>> from monai_calib.data import load_datalist
        >>> from monai_calib.datasets.phantom import write_phantom
        >>> from monai_calib.transforms import LoadCased
        >>> folder = tempfile.mkdtemp()
        >>> _ = write_phantom(folder, cases=3, shape=(12, 16, 12), spacing=(3, 3, 3))
        >>> case = load_datalist(folder, "test", also=("posterior",))[0]
        >>> LoadPosteriord("posterior")(LoadCased(("image", "label"), 3)(case))["posterior"].shape
        torch.Size([3, 12, 16, 12])
    """

    def __init__(self, keys: KeysCollection, image_key: str = "image") -> None:
        super().__init__(keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        image = case[self.image_key]
        for key in self.key_iterator(case):
            affine = torch.as_tensor(nib.nifti1.load(case[key]).affine, dtype=torch.float64)
            known: torch.Tensor = MetaTensor(torch.from_numpy(load_posterior(case[key])), affine=affine)
            if known.shape[1:] != image.shape[1:] or not torch.allclose(affine, image.affine.double(), atol=1e-4):
                known = ResampleToMatch(mode="bilinear", padding_mode="border")(known, image)
                known = known / known.sum(0, keepdim=True)
            case[key] = known
        return case
