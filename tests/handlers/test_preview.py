"""SlicePreviewHandler: which slice, which numbers, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.networks.utils import one_hot
from numpy.typing import NDArray

from monai_calib.handlers.preview import SlicePreviewHandler


def volume(name: str = "hippocampus_001.nii.gz", shape: tuple[int, ...] = (6, 5, 4)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    affine = torch.diag(torch.tensor([0.5, 2.0, 3.0, 1.0], dtype=torch.float64))
    image = MetaTensor(
        torch.rand(2, *shape, generator=generator), affine=affine, meta={"filename_or_obj": f"/data/{name}"}
    )
    label = MetaTensor(torch.zeros(1, *shape), affine=affine)
    label[0, 2:4, 1:3, ...] = 1
    prob = torch.softmax(torch.randn(3, *shape, generator=generator), dim=0)
    return {"image": image, "label": label, "pred": prob.argmax(dim=0, keepdim=True), "prob": prob}


def write(folder: Path, *cases: dict[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    engine = Engine(lambda _, batch: batch)
    SlicePreviewHandler(folder).attach(engine)
    engine.run([[case] for case in cases])
    (path,) = sorted((folder / "previews").iterdir())[:1]
    with np.load(path) as saved:
        return dict(saved)


def test_keeps_the_slice_with_most_foreground(tmp_path: Path) -> None:
    case = volume()
    case["label"][0, :, :, 2] = 2
    saved = write(tmp_path, case)
    assert [path.name for path in (tmp_path / "previews").iterdir()] == ["hippocampus_001.npz"]
    assert saved["slice_index"] == 2
    assert saved["spacing"].tolist() == [0.5, 2.0, 3.0]
    np.testing.assert_array_equal(saved["label"], 2)
    np.testing.assert_array_equal(saved["prediction"], case["pred"][0, :, :, 2].numpy())
    expected = 100 * case["prob"][..., 2].amax(dim=0).numpy()
    assert np.abs(saved["confidence"] - expected).max() <= 0.5 + 1e-4
    assert all(saved[key].dtype == np.uint8 for key in ("image", "label", "prediction", "confidence"))
    order = np.argsort(case["image"][0, :, :, 2].numpy().ravel())
    assert (np.diff(saved["image"].ravel()[order].astype(int)) >= 0).all(), "grey levels keep the order of intensities"


def test_one_hot_and_index_maps_give_the_same_file(tmp_path: Path) -> None:
    index = write(tmp_path / "index", volume())
    hot = volume()
    hot["label"] = one_hot(hot["label"], 3, dim=0)
    hot["pred"] = one_hot(hot["pred"], 3, dim=0)
    for key, value in write(tmp_path / "hot", hot).items():
        np.testing.assert_array_equal(value, index[key])


def test_two_dimensional_image_is_its_own_slice(tmp_path: Path) -> None:
    saved = write(tmp_path, volume(shape=(7, 9)))
    assert saved["image"].shape == (7, 9)
    assert saved["slice_index"] == 0
    assert saved["spacing"].tolist() == [0.5, 2.0]


def test_empty_label_falls_back_on_the_prediction_then_on_the_middle(tmp_path: Path) -> None:
    case = volume()
    case["label"].zero_()
    case["pred"] = torch.zeros_like(case["label"])
    case["pred"][0, :, :, 3] = 1
    assert write(tmp_path / "prediction", case)["slice_index"] == 3
    case["pred"].zero_()
    assert write(tmp_path / "middle", case)["slice_index"] == 2


def test_cases_without_a_file_name_are_numbered(tmp_path: Path) -> None:
    case = {key: value.as_subclass(torch.Tensor) for key, value in volume().items()}
    write(tmp_path, case, case)
    assert sorted(path.name for path in (tmp_path / "previews").iterdir()) == ["case_0001.npz", "case_0002.npz"]


def test_constant_image_is_black_not_nan(tmp_path: Path) -> None:
    case = volume()
    case["image"].fill_(7.0)
    assert not write(tmp_path, case)["image"].any()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("prob", torch.full((3, 6, 5, 4), 4.0), "hippocampus_001: prob must lie in"),
        ("prob", torch.full((3, 6, 5, 4), float("nan")), "hippocampus_001: prob must lie in"),
        ("pred", torch.zeros(1, 6, 5, 3), "hippocampus_001: a preview expects image, label, pred and prob"),
        ("label", torch.zeros(1, 6, 5, 3), "hippocampus_001: expected a label with the grid of the prediction"),
        ("label", torch.full((1, 6, 5, 4), 256.0), "hippocampus_001: a preview keeps labels up to 255"),
    ],
)
def test_refuses_and_names_the_case(tmp_path: Path, key: str, value: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path, {**volume(), key: value})
    assert not (tmp_path / "previews").exists(), "nothing half written is left behind"
