"""PNG, JPEG and TIFF go into inference, and PNG comes out: what the network sees is what it was trained on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import named, whole_story
from numpy.typing import NDArray
from PIL import Image
from random_network import infer, inference_config, save_random_weights

from monai_calib.__main__ import main
from monai_calib.bundling.bundle import bundle_data

WIDTH, HEIGHT = 52, 37
ULTRASOUND = Path(os.environ.get("MONAI_CALIB_DATA", Path(__file__).resolve().parents[3] / "shared/data")) / "usgra_seg"


def colours(number: int) -> NDArray[np.uint8]:
    """``(HEIGHT, WIDTH, 3)``, dark at the top left, brighter downwards and to the right, unlike in any mirror image."""
    rng = np.random.default_rng(number)
    slope = np.add.outer(4.0 * np.arange(HEIGHT), np.arange(WIDTH))
    return (slope[..., None] * [1.0, 0.8, 0.5] + rng.integers(0, 40, (HEIGHT, WIDTH, 3))).astype(np.uint8)


def coloured(number: int) -> Image.Image:
    return Image.fromarray(colours(number))


def grey(number: int) -> Image.Image:
    return coloured(number).convert("L")


KINDS: dict[str, Callable[[], Image.Image]] = {
    "grey.png": lambda: grey(0),
    "colours.png": lambda: coloured(1),
    "alpha.png": lambda: coloured(2).convert("RGBA"),
    "palette.png": lambda: coloured(3).quantize(32),
    "grey_alpha.png": lambda: grey(4).convert("LA"),
    "one_bit.png": lambda: grey(5).convert("1"),
    "photograph.jpg": lambda: coloured(6),
    "printed.JPEG": lambda: coloured(7).convert("CMYK"),
    "scan.tif": lambda: coloured(8),
    "old.bmp": lambda: grey(9),
}


def prepared(
    root: Path, kinds: dict[str, Callable[[], Image.Image]], unit: str = "px", spacing: list[float] | None = None
) -> tuple[Path, Path, Path]:
    """Folder of pictures, the data folder that ``prepare`` makes of them, and a bundle with random weights."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for name, make in kinds.items():
        make().save(root / "images" / name)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[5:20, 8:30], mask[22:30, 35:50] = 1, 2
        Image.fromarray(mask).save(root / "masks" / f"{Path(name).stem}.png")
    data = root / "data"
    words = ["prepare", root / "images", root / "masks", data, "--labels", "nerve=1", "blood vessel=2", "--unit", unit]
    assert main(list(map(str, words))) == 0
    bundle = bundle_data(data, root / "pictures_segmentation_2d", {"spacing": spacing}).folder
    save_random_weights(bundle, sharpness=30)
    return root / "images", data, bundle


@pytest.fixture(scope="module", params=[("px", None), ("mm", None), ("mm", [2.0, 1.5])], ids=["px", "mm", "coarser"])
def grey_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Pictures of every kind, some in colours, all read as grey: as stored, turned to RAS, and on a coarser grid."""
    return prepared(tmp_path_factory.mktemp("pictures"), KINDS, *request.param)


def same_names(folder: Path) -> dict[str, Path]:
    return {path.name.split(".")[0]: path for path in folder.iterdir()}


def assert_network_sees_the_same(pictures: Path, data: Path, bundle: Path) -> None:
    preprocessing = inference_config(bundle, dataset_dir=str(pictures)).get_parsed_content("preprocessing")
    volumes = same_names(data / "imagesTr")
    assert len(volumes) >= 6
    for name, picture in same_names(pictures).items():
        seen, trained = (preprocessing({"image": str(path)})["image"] for path in (picture, volumes[name]))
        assert torch.equal(seen.as_tensor(), trained.as_tensor()), name
        assert torch.equal(seen.affine, trained.affine), name


def test_the_network_sees_a_picture_as_it_was_prepared_for_training(grey_case: tuple[Path, Path, Path]) -> None:
    assert_network_sees_the_same(*grey_case)


def test_predictions_of_a_picture_are_those_of_its_volume_upright(
    grey_case: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    pictures, data, bundle = grey_case
    as_picture = infer(bundle, pictures, tmp_path / "pictures", save_probabilities=True)
    as_volume = infer(bundle, data / "imagesTr", tmp_path / "volumes", save_probabilities="True")
    names = {path.name.removesuffix(".png") for path in as_picture.iterdir()}
    parts = ("seg", "confidence", "prob_0_background", "prob_1_nerve", "prob_2_blood_vessel")
    assert names == {f"{Path(name).stem}_{part}" for name in KINDS for part in parts}
    assert names == {path.name.removesuffix(".nii.gz") for path in as_volume.iterdir()}
    seen = set()
    for name in names:
        with Image.open(as_picture / f"{name}.png") as picture:
            assert picture.size == (WIDTH, HEIGHT)
            mode, values = picture.mode, np.asarray(picture)
        volume = np.asarray(nib.load(as_volume / f"{name}.nii.gz").dataobj)
        assert volume.shape == (WIDTH, HEIGHT, 1)
        upright = volume[..., 0].T
        if "_prob_" in name:
            assert mode == "I;16"
            assert np.abs(values / 65535 - upright).max() <= 2.0**-12 + 1e-5  # float16 there, 16 bits here
        else:
            assert mode == ("P" if name.endswith("seg") else "L")
            np.testing.assert_array_equal(values, upright)
            seen |= set(np.unique(values)) if name.endswith("seg") else set()
    assert len(seen) > 1, "a network that predicts one class shows no orientation"


def test_without_the_flag_there_are_labels_and_confidence_only(
    grey_case: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    pictures, _, bundle = grey_case
    (tmp_path / "one").mkdir()
    shutil.copy(pictures / "scan.tif", tmp_path / "one")
    infer(bundle, tmp_path / "one", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"scan_seg.png", "scan_confidence.png"}


def test_three_channels_read_grey_as_three_equal_ones(tmp_path: Path) -> None:
    kinds = {name: make for name, make in KINDS.items() if not name.startswith(("grey", "one_bit", "old"))}
    pictures, data, bundle = prepared(tmp_path, kinds)
    assert_network_sees_the_same(pictures, data, bundle)
    grey(0).save(tmp_path / "grey.png")
    preprocessing = inference_config(bundle, dataset_dir=str(tmp_path)).get_parsed_content("preprocessing")
    seen = preprocessing({"image": str(tmp_path / "grey.png")})["image"].numpy()
    expected = np.asarray(grey(0)).T[..., None] / np.float32(255)
    np.testing.assert_allclose(seen, np.stack([expected] * 3), rtol=1e-6)


def test_sixteen_bits_are_kept_where_the_network_was_trained_on_them(tmp_path: Path) -> None:
    def bright(number: int) -> Callable[[], Image.Image]:
        return lambda: Image.fromarray(np.asarray(grey(number)).astype(np.uint16) * 200 + number)

    kinds = {f"x{number}.{ending}": bright(number) for number, ending in enumerate(["png", "tif"] * 4)}
    assert_network_sees_the_same(*prepared(tmp_path, kinds))


def save_several(folder: Path) -> None:
    coloured(0).save(folder / "a.tif", save_all=True, append_images=[coloured(1)])


def save_truncated(folder: Path) -> None:
    coloured(0).save(folder / "a.png")
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:900])


def save_sixteen_bits(folder: Path) -> None:
    Image.fromarray(np.asarray(grey(0)).astype(np.uint16) * 257).save(folder / "a.png")


def save_twice(folder: Path) -> None:
    grey(0).save(folder / "a.png")
    grey(0).save(folder / "a.jpg")


def save_both(folder: Path) -> None:
    grey(0).save(folder / "a.png")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 1), np.uint8), np.eye(4)), folder / "b.nii.gz")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "found nothing"),
        (lambda folder: (folder / "a.txt").write_text("a"), "found ['a.txt']"),
        (lambda folder: (folder / "a.png").write_text("a"), "a.png (cannot identify"),
        (save_truncated, "a.png (image file is truncated"),
        (save_several, "a.tif (expected one picture in the file, got several)"),
        (save_sixteen_bits, "a.png: expected a picture of 8 bits"),
        (save_twice, "got ['a.jpg', 'a.png']"),
        (save_both, "expected pictures or NIfTI, got both"),
    ],
)
def test_what_is_no_picture_is_named(
    make: Callable[[Path], object], said: str, grey_case: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    make(images)
    with pytest.raises(RuntimeError) as caught:
        infer(grey_case[2], images, tmp_path / "out")
    story = whole_story(caught.value)
    assert said in story
    assert str(images) in story
    assert not (tmp_path / "out").exists()


def test_volumes_are_not_taken_for_pictures(tmp_path: Path) -> None:
    """A bundle of volumes reads NIfTI alone, and names what it found instead."""
    (tmp_path / "images").mkdir()
    grey(0).save(tmp_path / "images" / "a.png")
    with pytest.raises(RuntimeError) as caught:
        infer(named("acdc_segmentation_2d"), tmp_path / "images", tmp_path / "out")
    assert "expected images named *.nii or *.nii.gz, found ['a.png']" in whole_story(caught.value)


def test_an_image_in_memory_passes(grey_case: tuple[Path, Path, Path]) -> None:
    """Deployment tools load images themselves, and take LoadImage out of the preprocessing."""
    steps = inference_config(grey_case[2]).get_parsed_content("preprocessing").transforms
    image = torch.rand(1, 36, 40, 1)
    for step in steps[2:4]:
        assert type(step).__name__ == "Lambdad"
        assert torch.equal(step({"image": image})["image"], image)


@pytest.mark.real_data
@pytest.mark.skipif(not ULTRASOUND.is_dir(), reason="needs usgra_seg in MONAI_CALIB_DATA")
def test_real_pictures_grey_and_in_colours_of_two_sizes(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for path in sorted((ULTRASOUND / folder).glob("*.png"))[::20]:
            shutil.copy(path, tmp_path / folder)
    data = tmp_path / "data"
    words = ["prepare", tmp_path / "images", tmp_path / "masks", data, "--labels", "nerve=1", "vessel=2"]
    assert main(list(map(str, words))) == 0
    bundle = bundle_data(data, tmp_path / "ultrasound_segmentation_2d").folder
    kinds = set()
    for path in (tmp_path / "images").iterdir():
        with Image.open(path) as picture:
            kinds.add((picture.mode, picture.size))
    assert {mode for mode, _ in kinds} == {"L", "RGB"}
    assert len({size for _, size in kinds}) > 1
    assert_network_sees_the_same(tmp_path / "images", data, bundle)
