"""Labels that fits of volumes and of false negatives learn from: the value of whole class numbers, or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_calib.clinical import ConformalVolumeFit, FalseNegativeControl, VolumeFit, volume_error

SPACING = (1.0, 2.0, 5.0)


def probabilities() -> torch.Tensor:
    return (2 * torch.randn(3, 4, 6, 8, generator=torch.Generator().manual_seed(0)).double()).softmax(0)


def labels() -> torch.Tensor:
    return torch.randint(0, 3, (4, 6, 8), generator=torch.Generator().manual_seed(1))


def volume_errors(label: Any, ignore_index: int | None = None) -> list[float]:
    return volume_error(probabilities(), label, SPACING, ignore_index, case="case liver_07")


def models(label: Any, ignore_index: int | None = None) -> list[float]:
    fit = VolumeFit(3, ignore_index=ignore_index)
    fit.update(probabilities(), label, SPACING, case="case liver_07")
    return [value for model in fit.models() for value in (model.correlation_mm, model.inflation)]


def half_widths(label: Any, ignore_index: int | None = None) -> list[float]:
    fit = ConformalVolumeFit(3, ignore_index=ignore_index)
    fit.update(probabilities(), label, SPACING, "liver_07", case="case liver_07")
    return [model.quantile(0.5) for model in fit.models()]


def thresholds(label: Any, ignore_index: int | None = None) -> list[float]:
    control = FalseNegativeControl(3, 0.6, ignore_index=ignore_index)
    control.update(probabilities(), label, case="case liver_07")
    control.fit()
    return [value for threshold in control.thresholds for value in threshold]


CONSUMERS = (volume_errors, models, half_widths, thresholds)
WHOLE = {
    **{f"{dtype}": lambda label, dtype=dtype: label.to(dtype) for dtype in (torch.uint8, torch.int16, torch.float16)},
    **{f"{dtype}": lambda label, dtype=dtype: label.to(dtype) for dtype in (torch.uint16, torch.uint32, torch.uint64)},
    "a channel": lambda label: label[None],
    "header": lambda label: MetaTensor(label.float()),
    "big endian": lambda label: label.numpy().astype(">u2"),
    "mirrored": lambda label: label.numpy()[::-1].copy()[::-1],
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_every_type_of_whole_numbers_gives_the_same(consumer: Callable[..., list[float]], kind: str) -> None:
    assert consumer(WHOLE[kind](labels())) == consumer(labels())


def scaled(label: torch.Tensor) -> torch.Tensor:
    return label * 0.9999


def replaced(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda label: label.float().masked_fill(label == 2, value)


WRONG = {
    "scaled": (scaled, "got 0.9999, 1.9998"),
    "255": (replaced(255), "got 255"),
    "7": (replaced(7), "got 7"),
    "nan": (replaced(float("nan")), "got nan"),
    "-1": (replaced(-1), "got -1"),
    "uint16": (lambda label: replaced(256)(label).to(torch.uint16), "got 256"),
    "65535": (lambda label: replaced(65535)(label).numpy().astype(">u2"), "got 65535"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_what_is_no_class_is_refused_with_the_name_of_the_case(consumer: Callable[..., list[float]], kind: str) -> None:
    change, message = WRONG[kind]
    with pytest.raises(ValueError, match=f"case liver_07: label: expected whole class numbers from 0 to 2, {message}"):
        consumer(change(labels()))


@pytest.mark.parametrize("ignore_index", [255, -100])
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_ignored_voxels_change_nothing(consumer: Callable[..., list[float]], ignore_index: int) -> None:
    label = labels().float()
    label[:2] = ignore_index
    cropped = [value.clone() for value in (probabilities(), labels())]
    cropped[0][0, :2], cropped[0][1:, :2], cropped[1][:2] = 1.0, 0.0, 0
    expected = {
        volume_errors: lambda: volume_error(*cropped, SPACING),
        models: lambda: fitted(VolumeFit(3), *cropped),
        half_widths: lambda: fitted(ConformalVolumeFit(3), *cropped, "a"),
        thresholds: lambda: thresholds(cropped[1]),
    }[consumer]()
    assert consumer(label, ignore_index) == pytest.approx(expected, nan_ok=True)


def fitted(fit: VolumeFit | ConformalVolumeFit, p: torch.Tensor, label: torch.Tensor, *subject: str) -> list[float]:
    fit.update(p, label, SPACING, *subject)
    if isinstance(fit, VolumeFit):
        return [value for model in fit.models() for value in (model.correlation_mm, model.inflation)]
    return [model.quantile(0.5) for model in fit.models()]


def test_the_label_of_a_file_is_named() -> None:
    label = MetaTensor(labels() * 0.9999, meta={"filename_or_obj": "/data/liver_07.nii.gz"})
    with pytest.raises(ValueError, match=r"^/data/liver_07\.nii\.gz: label: "):
        VolumeFit(3).update(probabilities(), label, SPACING)
    with pytest.raises(ValueError, match=r"^subject 7: label: "):
        ConformalVolumeFit(3).update(probabilities(), label, SPACING, "7")
    with pytest.raises(ValueError, match=r"^subject 7: label: "):
        FalseNegativeControl(3).update(probabilities(), label, subject="7")


def test_a_refused_case_leaves_nothing_behind() -> None:
    volume, conformal, control = VolumeFit(3), ConformalVolumeFit(3), FalseNegativeControl(3, 0.6)
    for label in (labels() * 0.9999, labels()):
        for update in (
            lambda label=label: volume.update(probabilities(), label, SPACING),
            lambda label=label: conformal.update(probabilities(), label, SPACING, "a"),
            lambda label=label: control.update(probabilities(), label),
        ):
            if label.is_floating_point():
                with pytest.raises(ValueError, match="whole class numbers"):
                    update()
            else:
                update()
    control.fit()
    assert {model.cases for model in volume.models()} == {1}
    assert [len(model.scores) for model in conformal.models()] == [1, 1]
    assert [threshold.cases for threshold in control.thresholds] == [1, 1]


@pytest.mark.parametrize("num_classes", [2, 4])
def test_another_number_of_classes_is_refused(num_classes: int) -> None:
    for update in (
        lambda: VolumeFit(num_classes).update(probabilities(), labels(), SPACING, case="a"),
        lambda: ConformalVolumeFit(num_classes).update(probabilities(), labels(), SPACING, "a", case="a"),
        lambda: FalseNegativeControl(num_classes).update(probabilities(), labels(), case="a"),
    ):
        with pytest.raises(ValueError, match=rf"a: expected probabilities \({num_classes}, \*spatial\), got \(3, 4"):
            update()


def test_sigmoid_outputs_need_not_add_up_for_false_negatives() -> None:
    p = torch.tensor([[0.2, 0.1], [0.9, 0.95]])
    control = FalseNegativeControl(2, 0.8)
    control.update(p, np.array([1, 1], dtype=np.uint16))
    control.fit()
    assert control.keep(p).tolist() == [[False, True]]


def test_two_volumes_of_a_subject_give_one_degree_of_freedom() -> None:
    fit = VolumeFit(3)
    for subject in ("a", "a", "b"):
        fit.update(probabilities(), labels(), SPACING, subject)
    assert {model.cases for model in fit.models()} == {2}
    fit.update(probabilities(), labels(), SPACING)
    assert {model.cases for model in fit.models()} == {3}
