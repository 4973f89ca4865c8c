"""Images unlike those of training: the rate of false alarms by simulation, and what gives an image away."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from monai_calib.clinical import InputCheck, TooFewSubjectsWarning, image_statistics
from monai_calib.clinical.inputs import PERCENTILES, statistic_names
from monai_calib.transforms import ImageStatisticsd


def population(rng: np.random.Generator, images: int) -> NDArray[np.float64]:
    """Statistics of images: intensities of differing spread, two scanners of different slices, sizes of all kinds."""
    spread = rng.lognormal(0, 0.3, images)[:, None]
    noise = rng.normal(0, 0.05, (images, len(PERCENTILES)))
    intensities = np.sort(spread * np.array([-2, -0.6, 0, 0.6, 2.5]) + noise, axis=1)
    spacing = np.column_stack([rng.choice([0.8, 1.0], images), np.ones(images), rng.choice([3.0, 5.0], images)])
    roughness = rng.lognormal(-3, 0.2, (images, 1))
    return np.hstack([intensities, roughness, spacing, spacing * rng.integers(90, 130, (images, 3))])


def check_of(rows: NDArray[np.float64], rate: float) -> InputCheck:
    return InputCheck.from_json({"channels": 1, "axes": 3, "false_alarms": rate, "images": rows.tolist()})


@pytest.mark.parametrize(("rate", "images"), [(0.02, 49), (0.1, 29)])
def test_false_alarms_are_as_rare_as_stated(rate: float, images: int) -> None:
    rng = np.random.default_rng(0)
    alarms, repeats = 0, 2500
    for _ in range(repeats):
        rows = population(rng, images + 1)
        alarms += check_of(rows[:-1], rate).apply(rows[-1]).strange
    error = (rate * (1 - rate) / repeats) ** 0.5
    exact = np.floor(rate * (images + 1) + 1e-9) / (images + 1)  # of scores without ties
    assert abs(alarms / repeats - exact) < 4.5 * error
    assert alarms / repeats < rate + 4.5 * error


def lonely_by_hand(values: list[float]) -> list[float]:
    return [sum(sorted(abs(v - other) for j, other in enumerate(values) if j != i)[:3]) for i, v in enumerate(values)]


@pytest.mark.parametrize("new", [2.4, 0.95, 10.0])
def test_the_p_value_is_the_rank_of_the_score_by_hand(new: float) -> None:
    rows = np.tile(population(np.random.default_rng(1), 1), (20, 1))
    rows[:, 2] = np.sort(np.random.default_rng(2).uniform(0, 2, 20))  # only the median differs
    found = check_of(rows, 0.1).apply(np.concatenate([rows[0, :2], [new], rows[0, 3:]]))
    away = lonely_by_hand([*rows[:, 2], new])
    assert found.p_value == sum(score >= away[-1] for score in away) / 21
    assert found.strange == (found.p_value <= 0.1)
    if found.strange:
        where = f"of training ({rows[0, 2]:.3g} … {rows[-1, 2]:.3g})"
        assert found.reasons[0] == f"50th percentile of intensity {new:.3g}, beyond those {where}"


def test_something_between_two_scanners_is_strange() -> None:
    rows = population(np.random.default_rng(9), 100)
    between = np.median(rows, 0)
    for slices, strange in ((3.0, False), (5.0, False), (4.0, True)):
        between[8] = slices
        assert check_of(rows, 0.02).apply(between).strange == strange
    assert check_of(rows, 0.02).apply(between).reasons == (
        "voxel foot to head 4 mm, far from those of training (3 … 5)",
    )


@pytest.mark.parametrize(
    ("place", "factor", "reason"),
    [
        (8, 8.0, "voxel foot to head 40 mm, beyond those of training (3 … 5)"),
        (9, 0.2, "extent left to right"),
        (4, 5.0, "99th percentile of intensity"),
        (5, 0.1, "roughness of intensity 0.0"),
    ],
)
def test_what_is_beyond_training_is_named(place: int, factor: float, reason: str) -> None:
    rows = population(np.random.default_rng(2), 100)
    new = rows[rows[:, 8] == 5.0][0].copy()
    new[place] *= factor
    found = check_of(rows, 0.02).apply(new)
    assert found.strange
    assert any(told.startswith(reason) for told in found.reasons), found.reasons


def test_equal_sizes_may_differ_by_rounding_and_no_more() -> None:
    rows = population(np.random.default_rng(3), 100)
    rows[:, 7] = 1.0
    middle = np.median(rows, 0)
    for size, strange in ((1.004, False), (1.5, True)):
        middle[7] = size
        assert check_of(rows, 0.02).apply(middle).strange == strange


def test_too_few_subjects_call_nothing_strange_and_say_so() -> None:
    check = InputCheck(1, false_alarms=0.05)
    rows = population(np.random.default_rng(4), 40)
    for number, row in enumerate(rows):
        check.update(row, str(number % 18))  # 40 images of 18 subjects
    with pytest.warns(TooFewSubjectsWarning, match="a false-alarm rate of 0.05 needs 19 subjects, the fit had 18"):
        check.fit()
    assert not check.apply(100 * rows[0]).strange
    assert check.seen == 18


def test_each_image_of_a_subject_is_kept_as_often_as_the_others() -> None:
    kept = np.zeros(3)
    check = InputCheck(1)
    row = population(np.random.default_rng(5), 1)[0]
    for subject in range(1500):
        for image in range(3):
            row[0] = -10 - image
            check.update(row, str(subject))
    for found in check._rows:
        kept[int(-10 - found[0])] += 1
    assert np.abs(kept / 1500 - 1 / 3).max() < 4.5 * (2 / 9 / 1500) ** 0.5


def test_files_hold_numbers_and_no_names() -> None:
    check = InputCheck(1)
    for number, row in enumerate(population(np.random.default_rng(6), 60)):
        check.update(row, f"Jane Doe {number}")
    text = json.dumps(check.to_json(), allow_nan=False)
    assert "Jane" not in text
    new = population(np.random.default_rng(7), 1)[0]
    assert InputCheck.from_json(json.loads(text)).apply(new).p_value == check.apply(new).p_value


def test_a_turned_image_has_the_same_statistics() -> None:
    rng = np.random.default_rng(8)
    image = rng.normal(size=(2, 5, 6, 7))
    affine = np.diag([1.0, 2.0, 4.0, 1.0])
    turned = affine[:, [1, 0, 2, 3]] * [-1, 1, -1, 1]
    plain = image_statistics(image, affine, (5, 6, 7))
    assert plain[-6:].tolist() == [1, 2, 4, 5, 12, 28]
    assert plain == pytest.approx(image_statistics(image.transpose(0, 2, 1, 3), turned, (6, 5, 7)))
    assert len(plain) == len(statistic_names(2))
    assert plain[5:10] == pytest.approx(np.percentile(image[1], PERCENTILES))


def test_roughness_falls_with_blur_and_grows_with_noise() -> None:
    rng = np.random.default_rng(10)
    image = gaussian_filter(rng.normal(size=(1, 40, 40, 6)), (0, 1, 1, 0))
    images = (gaussian_filter(image, (0, 2, 2, 0)), image, image + rng.normal(0, image.std(), image.shape))
    smooth, plain, noisy = (image_statistics(one, np.eye(4), one.shape[1:])[5] for one in images)
    assert 2 * smooth < plain < noisy / 1.5
    by_hand = (np.abs(np.diff(image, axis=1)).mean() + np.abs(np.diff(image, axis=2)).mean()) / 2
    assert plain == pytest.approx(by_hand / np.ptp(np.percentile(image, (1, 99))))
    assert np.isfinite(np.log(image_statistics(np.ones((1, 3, 3, 3)), np.eye(4), (3, 3, 3))[5]))


def test_the_transform_takes_sizes_of_the_file_and_intensities_of_the_network() -> None:
    meta = {"original_affine": np.diag([0.5, 0.5, 2, 1]), "spatial_shape": np.array([20, 30, 4])}
    image = MetaTensor(torch.arange(8.0).reshape(1, 2, 2, 2), affine=torch.eye(4, dtype=torch.float64), meta=meta)
    found = ImageStatisticsd("image")({"image": image})["statistics"].tolist()
    assert found[2] == 3.5
    assert found[-6:] == [0.5, 0.5, 2.0, 10.0, 15.0, 8.0]


def test_wrong_statistics_are_refused() -> None:
    check = InputCheck(1)
    with pytest.raises(ValueError, match="expected 12 finite numbers"):
        check.update(np.full(12, np.nan))
    with pytest.raises(ValueError, match="expected 12 numbers"):
        check.apply(np.ones(12))
    with pytest.raises(ValueError, match="false_alarms"):
        InputCheck(1, false_alarms=0)
