"""What is seen in a data folder, and what is planned from it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from monai.networks.nets import BasicUNet
from small_data import cubes, write_data

from monai_calib.__main__ import main
from monai_calib.bundling.crops import share_of_crops
from monai_calib.bundling.fingerprint import Fingerprint, Intensity
from monai_calib.bundling.measure import take_fingerprint
from monai_calib.bundling.patch import check_patch, forward_fails, sizes_that_work
from monai_calib.bundling.plan import make_plan


def seen(**changes: object) -> Fingerprint:
    """The fingerprint of 100 MRI of 100 x 100 x 100 mm."""
    grey = Intensity(0, 1, 500, 2000, 3000, 500, 300, 0.01, True, (300.0, 1500.0))
    found = Fingerprint(
        name="x",
        description="",
        licence="",
        unit="mm",
        pictures=False,
        channels=("MRI",),
        labels=("background", "organ"),
        ignore_index=None,
        regions={},
        cases={"training": 100, "validation": 10, "test": 10},
        subjects={"training": 100, "validation": 10, "test": 10},
        raters=1,
        posterior=False,
        orient=True,
        shapes=((100, 100, 100),),
        spacings=((1.0, 1.0, 1.0),),
        intensity=(grey,),
        shares=(0.9, 0.1),
        boxes=(((100, 100, 100), (((40, 40, 40), (60, 60, 60)),)),),
        read=1,
        datalist="",
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def test_sizes_shares_boxes_and_intensities_are_those_of_the_files(tmp_path: Path) -> None:
    found = take_fingerprint(write_data(tmp_path / "data", spacing=(0.5, 0.7, 2.0), ignore_index=255))
    assert found.labels == ("background", "cube 1", "cube 2")
    assert found.cases == {"training": 4, "validation": 2, "test": 2}
    assert found.subjects == found.cases
    assert np.allclose(found.spacing, (0.5, 0.7, 2.0))
    assert found.shape.tolist() == [36, 40, 20]
    counts = np.zeros(3)
    for number in range(4):
        label = cubes((36, 40, 20), 3, number)[12:]
        counts += [(label == k).sum() for k in range(3)]
    assert np.allclose(found.shares, counts / counts.sum())
    for number, (shape, boxes) in enumerate(found.boxes):
        label = cubes((36, 40, 20), 3, number)
        label[:12] = 0
        where = np.argwhere(label == 2)
        assert shape == (36, 40, 20)
        assert boxes[1] == (tuple(where.min(0)), tuple(where.max(0) + 1))
    assert 0 <= found.intensity[0].least < 50
    assert 200 <= found.intensity[0].most < 250
    assert found.intensity[0].foreground[0] >= 100, "the cubes alone"


def test_axes_are_turned_where_slices_stay_slices(tmp_path: Path) -> None:
    """Sagittal volumes with far slices would become volumes whose last axis is none of slices."""
    import nibabel as nib

    folder = write_data(tmp_path / "data", shape=(36, 40, 20))
    for path in (folder / "files").iterdir():
        affine = np.array([[0, 0, 5.0, 0], [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]])
        nib.save(nib.Nifti1Image(np.asanyarray(nib.load(path).dataobj), affine), path)
    found = take_fingerprint(folder)
    assert not found.orient
    assert found.spacing.tolist() == [1, 1, 5]
    near = write_data(tmp_path / "near", shape=(36, 40, 20), spacing=(1, 2, 1))
    for path in (near / "files").iterdir():
        affine = np.array([[0, 0, 1.0, 0], [1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])
        nib.save(nib.Nifti1Image(np.asanyarray(nib.load(path).dataobj), affine), path)
    found = take_fingerprint(near)
    assert found.orient
    assert found.shape.tolist() == [20, 36, 40], "right, anterior, superior"
    assert found.spacing.tolist() == [1, 1, 2]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_share_of_crops_counts_every_crop(data: st.DataObject) -> None:
    size = data.draw(st.lists(st.integers(1, 8), min_size=2, max_size=2))
    patch = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=2))
    first = [data.draw(st.integers(0, n - 1)) for n in size]
    last = [data.draw(st.integers(a + 1, n)) for a, n in zip(first, size, strict=True)]
    window = [min(p, n) for p, n in zip(patch, size, strict=True)]
    starts = list(itertools.product(*[range(n - p + 1) for n, p in zip(size, window, strict=True)]))
    met = [all(s < b and s + p > a for s, p, a, b in zip(start, window, first, last, strict=True)) for start in starts]
    found = share_of_crops([(size, [(tuple(first), tuple(last)), None])], patch)
    assert found.keys() == {1}
    assert math.isclose(found[1], sum(met) / len(starts))


@settings(max_examples=40, deadline=None)
@example(shape=(8, 8, 17), spacing=(1.0, 1.0, 1.0))
@example(shape=(8, 8, 9), spacing=(1.0, 1.0, 1.0))
@example(shape=(20, 30, 24), spacing=(1.0, 1.0, 1.0))
@given(
    shape=st.tuples(st.integers(8, 700), st.integers(8, 700), st.integers(1, 400)),
    spacing=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3), st.floats(0.2, 10)),
)
def test_a_planned_patch_fits_the_network_and_its_bound(shape: tuple, spacing: tuple) -> None:
    box = tuple(n // 3 for n in shape), tuple(n // 3 + 1 for n in shape)
    plan = make_plan(
        seen(shapes=(shape,), spacings=(spacing,), boxes=((shape, (box,)),), pictures=shape[2] == 1),
        {"dimensions": None},
    )
    patch, channels = plan.entry["patch_size"], plan.entry["channels"]
    assert len(patch) == plan.dims
    assert math.prod(patch) <= (2**16 if plan.dims == 2 else 2**21)
    assert forward_fails(lambda: BasicUNet(plan.dims, 1, 2, features=[*channels, channels[0]]), patch, 1) is None
    assert all(choice.reason for choice in plan.choices.values())


def test_the_plan_follows_the_data() -> None:
    whole = make_plan(seen())
    assert (whole.dims, whole.entry["resample"], whole.entry["crops"]) == (3, "none", "random")
    assert whole.entry["patch_size"] == [104, 104, 104]
    heart = make_plan(seen(shapes=((216, 256, 10), (200, 200, 12)), spacings=((1.5, 1.5, 10.0), (1.2, 1.2, 8.0))))
    assert heart.entry["resample"] == "slices", "no slice is interpolated between others far apart"
    brain = make_plan(seen(spacings=((1.0, 1.0, 1.0), (1.0, 1.0, 1.2))))
    assert brain.entry["resample"] == "volumes"
    few = make_plan(seen(shapes=((100, 100, 3),)))
    assert few.dims == 2
    asked = make_plan(seen(), {"spacing": [2.0, 2.0, 2.0], "patch_size": [64, 64, 64], "epochs": 7, "batch_size": 3})
    assert [asked.entry[n] for n in ("spacing", "patch_size", "epochs", "batch_size")] == [
        [2.0, 2.0, 2.0],
        [64, 64, 64],
        7,
        3,
    ]
    assert asked.choices["epochs"].reason == "asked for"


@pytest.mark.parametrize(("spacing", "protocol"), [([2.0, 2.0, 5.0], "by_region"), ([4.0, 4.0, 4.0], "by_region_px")])
def test_a_band_of_2_mm_that_would_hold_no_voxel_is_one_of_2_voxels(
    spacing: list[float], protocol: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    assert main(["phantom", str(data), "--cases", "5", "--shape", "24", "24", "24"]) == 0
    size = [str(length) for length in spacing]
    bundle = tmp_path / "own"
    assert main(["bundle", str(data), str(bundle), "--spacing", *size, "--patch_size", "32", "16", "16"]) == 0
    assert f"'paper', '{protocol}'" in (bundle / "configs" / "evaluate.json").read_text(encoding="utf-8")


def test_a_rare_structure_gets_balanced_crops_and_large_data_the_disk() -> None:
    body = seen(
        shapes=((500, 500, 500),),
        boxes=(((500, 500, 500), (((10, 10, 10), (20, 20, 20)),)),),
        cases={"training": 300, "validation": 10, "test": 10},
    )
    plan = make_plan(body)
    assert plan.entry["resample"] == "volumes", "made coarser"
    assert math.prod(500 / np.array(plan.entry["spacing"])) <= 8 * 2**21 * 1.001
    assert plan.entry["crops"] == "balanced"
    assert plan.entry["cache"] == "disk"


def test_ct_is_known_by_name_and_by_its_air() -> None:
    air = Intensity(-1024, -1000, -50, 900, 2000, 0, 1, 0, True, (-60.4, 250.2))
    for found in (seen(channels=("CT",)), seen(channels=("image",), intensity=(air,))):
        assert found.modality == "CT"
    window = make_plan(seen(channels=("image",), intensity=(air,))).entry["intensity"][0]
    assert (window["a_min"], window["a_max"], window["clip"]) == (-60, 250, True)
    stripped = replace(seen().intensity[0], zeros=0.6)
    assert make_plan(seen(intensity=(stripped,))).entry["intensity"][0]["nonzero"]
    eight = Intensity(0, 1, 100, 250, 255, 100, 30, 0, True, (5.0, 250.0))
    pictures = seen(pictures=True, unit="px", shapes=((500, 600, 1),), intensity=(eight,))
    plan = make_plan(pictures)
    assert plan.entry["intensity"][0]["a_max"] == 255
    assert plan.entry["spacing"] == [2, 2, 1], "pixels are halved"
    assert plan.entry["patch_size"] == [256, 256]


@pytest.mark.parametrize("patch", [[20, 20, 10], [16, 16, 16], [8, 8, 8], [17, 40, 9]])
def test_a_patch_that_fails_is_refused_with_sizes_that_work(patch: list[int]) -> None:
    def build() -> BasicUNet:
        return BasicUNet(3, 1, 2, features=(4, 4, 4, 4, 4, 4))

    near = sizes_that_work(build, patch, 1)
    assert near
    with pytest.raises(ValueError, match="forward pass") as error:
        check_patch(build, patch, 1, "unet")
    for sizes in near:
        assert forward_fails(build, sizes, 1) is None
        assert f"[{', '.join(map(str, sizes))}]" in str(error.value)
    check_patch(build, [33, 35, 37], 1, "unet")  # no power of two, and it works
