"""Corrections judged as the network runs: the head acts on each window before windows are averaged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import drawn_cases
from monai.inferers import SlidingWindowInferer
from monai.metrics import compute_dice
from torch import Tensor, nn

from monai_calib.labels import top_class
from monai_calib.posthoc import CalibratedNetwork, LogitStream, TemperatureScaling, build_calibrator
from monai_calib.posthoc.auto import Held, RefusedCorrectionError, judge
from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.fitting import Asked, fit_methods
from monai_calib.posthoc.windows import MOST_IN_WINDOWS, windows_overlap, worse_in_windows

WINDOWS = SlidingWindowInferer((8, 8), overlap=0.5, mode="gaussian")


class WindowsDisagree(nn.Module):
    """Class 1 where the image is above the window's mean: overlapping windows see one pixel differently."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, image: Tensor) -> Tensor:
        above = self.scale * (image - image.mean((2, 3), keepdim=True))
        return torch.cat([-above, above], 1)


def loader(count: int = 4) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(2)
    batches = []
    for _ in range(count):
        image = torch.randn(1, 1, 20, 16, generator=generator)
        batches.append({"image": image, "label": (image + torch.randn(image.shape, generator=generator) > 0).byte()})
    return batches


def boundary(near: float, far: float) -> Calibrator:
    settings = {"knots": (-2.0, 2.0), "spacing": (1.0, 1.0)}
    record = build_calibrator("boundary_temperature", 2, "all", settings).to_json()
    return Calibrator.from_json({**record, "state": {"beta": [1 / near, 1 / far]}})


def by_hand(calibrator: Calibrator) -> list[str]:
    """Two runs of MONAI's inferer, of the network and of the network with its head, judged by MONAI's Dice too."""
    before, after = Held(), Held()
    corrected = CalibratedNetwork(WindowsDisagree(), calibrator)
    names, labels, guesses = [], [], []
    for case, batch in zip(LogitStream(WindowsDisagree(), loader(), WINDOWS), loader(), strict=True):
        before.add(case, case.logits)
        with torch.no_grad():
            logits = WINDOWS(batch["image"], corrected)
        after.add(case, logits[0])
        names.append(case.name)
        labels.append(batch["label"])
        guesses.append((case.logits[None].argmax(1, keepdim=True), logits.argmax(1, keepdim=True)))
    change = 0.0
    for label, (first, second) in zip(labels, guesses, strict=True):
        of_both = [compute_dice(guess, label, include_background=True) for guess in (first, second)]
        change += float(of_both[1] - of_both[0])
    return judge(before, after, names, 0.01 if change < 0 else MOST_IN_WINDOWS)


@pytest.mark.parametrize(("near", "far"), [(0.2, 5.0), (5.0, 0.2), (1.0, 1.0)])
def test_the_network_is_judged_with_its_head_in_each_window(near: float, far: float) -> None:
    found = worse_in_windows(boundary(near, far), LogitStream(WindowsDisagree(), loader(), WINDOWS))
    assert found == [f"{sentence}, with windows averaged" for sentence in by_hand(boundary(near, far))]
    assert bool(found) == (near != far)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_votes_of_windows_may_be_weighed_anew_where_dice_does_not_fall(share: float) -> None:
    """Some labels change; truth is what the corrected network says (share 1) or what the one as trained does."""
    calibrator = boundary(0.2, 5.0)
    first, second = (
        WINDOWS(batch["image"], network).argmax(1, keepdim=True)
        for batch in loader(1)
        for network in (WindowsDisagree(), CalibratedNetwork(WindowsDisagree(), calibrator))
    )
    batch = {"image": loader(1)[0]["image"], "label": second if share else first}
    changed = float((first != second).sum() / ((first | second) != 0).sum())
    assert 0.01 < changed < MOST_IN_WINDOWS
    found = worse_in_windows(calibrator, LogitStream(WindowsDisagree(), [batch], WINDOWS))
    assert any("labels change" in sentence for sentence in found) == (not share)


def test_a_correction_that_is_linear_in_the_logits_commutes_with_the_average() -> None:
    scaling = TemperatureScaling(2)
    scaling.set_temperature(2.0)
    batch = loader(1)[0]
    with torch.no_grad():
        whole = WINDOWS(batch["image"], WindowsDisagree())
        inside = WINDOWS(batch["image"], CalibratedNetwork(WindowsDisagree(), scaling))
    torch.testing.assert_close(inside, scaling.apply(whole), rtol=1e-4, atol=1e-5)
    assert torch.equal(top_class(inside[0]), top_class(whole[0]))


def test_a_choice_that_is_worse_as_run_is_made_again_without_it() -> None:
    tried = []

    def worse_as_run(calibrator: Calibrator) -> list[str]:
        tried.append(calibrator.method)
        return ["labels change, with windows averaged"] * (len(tried) == 1)

    found = fit_methods(drawn_cases(10, 2, 8), Asked("auto", 2), worse_as_run)
    choice = found.about["choice"]
    assert tried == ["temperature", next(iter(found.methods))]
    assert choice["guards"]["temperature"] == ["labels change, with windows averaged"]
    assert choice["chosen"] not in ("temperature", "none")
    assert choice["why"] != "the best"


def test_a_method_by_name_that_is_worse_as_run_is_refused_unless_forced() -> None:
    cases = drawn_cases(4, 2, 8)
    asked = Asked("temperature", 2)
    with pytest.raises(RefusedCorrectionError, match="volume error, with windows averaged"):
        fit_methods(cases, asked, lambda calibrator: ["volume error, with windows averaged"])
    found = fit_methods(cases, asked._replace(force=True), lambda calibrator: ["volume error, with windows averaged"])
    assert found.about["guards"] == ["volume error, with windows averaged"]


def test_windows_overlap_where_an_image_is_larger() -> None:
    assert not windows_overlap((8, 30, 6), (8, 8), slice_axis=1)
    assert windows_overlap((8, 30, 6), (8, 8, 8))
    images = [torch.zeros(1, 1, 8, 20), torch.zeros(1, 1, 12, 4)]
    stream = LogitStream(WindowsDisagree(), [{"image": image, "label": image} for image in images])
    list(stream)
    assert stream.largest == (12, 20)
