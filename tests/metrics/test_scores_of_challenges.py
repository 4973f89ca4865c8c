"""pECE, root Brier score, thresholded Dice and the normal CRPS, by loops, closed forms and numerical integrals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from monai_calib.labels import mean_label
from monai_calib.metrics import CalibrationHistogram, CaseEvaluation, Protocol, penalised_ece, root_brier
from monai_calib.metrics.raters import thresholded_dice, volume_crps_normal


def case(seed: int = 0, classes: int = 3, n: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probability = (2 * torch.randn(classes, n, generator=generator)).softmax(0)
    return probability, torch.randint(0, classes, (n,), generator=generator)


def filled(probability: torch.Tensor, label: torch.Tensor) -> CalibrationHistogram:
    hist = CalibrationHistogram(len(probability))
    hist.update(probability[None], label[None], from_logits=False)
    return hist


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("bins", [10, 15])
def test_penalised_ece_is_the_loop_over_bins(weight: float, bins: int) -> None:
    probability, label = case()
    hist = filled(probability, label)
    p, true = 1 - probability[0].double().numpy(), (label != 0).numpy()
    index = np.clip(np.ceil(p * bins) - 1, 0, bins - 1)
    exact = 0.0
    for b in range(bins):
        inside = index == b
        if inside.any():
            wrong = p[inside & ~true]
            offset = weight * wrong.mean() if len(wrong) else 0.0
            exact += inside.mean() * abs(p[inside].mean() - true[inside].mean() + offset)
    found = penalised_ece(hist, bins, weight)
    assert found.low - 1e-9 <= exact <= found.high + 1e-9
    assert found.value == pytest.approx(exact, abs=1e-4)
    assert found.high - found.low <= 2 * weight / 960 + 1e-9
    if weight == 0:
        assert found.high == pytest.approx(found.low)


def test_penalised_ece_of_a_calibrated_constant_is_the_penalty() -> None:
    label = (torch.arange(1000) % 5 == 0).long()
    hist = filled(torch.tensor([0.8, 0.2])[:, None].expand(2, 1000), label)
    assert penalised_ece(hist).value == pytest.approx(2 * 0.2, abs=1e-6)
    assert all(math.isnan(value) for value in penalised_ece(CalibrationHistogram(2)))
    with pytest.raises(ValueError, match="exclusive classes"):
        penalised_ece(CalibrationHistogram(2, activation="sigmoid"))
    with pytest.raises(ValueError, match="fp_weight"):
        penalised_ece(hist, fp_weight=-1)


def test_root_brier_is_the_root_of_the_mean_square() -> None:
    probability, label = case(1)
    hot = torch.nn.functional.one_hot(label, 3).T
    exact = (probability.double() - hot).square().sum(0).mean().sqrt()
    assert root_brier(filled(probability, label)) == pytest.approx(float(exact), rel=1e-6)
    assert math.isnan(root_brier(CalibrationHistogram(2)))


def test_protocols_take_the_new_metrics_by_name() -> None:
    kinds = ["root_brier", "smooth_ece", "mmce", "penalised_ece", "aurc", "excess_aurc", "augrc"]
    evaluation = CaseEvaluation(3, [Protocol("more", ["all"], kinds, 10, ("macro", "micro"))])
    probability, label = case(2)
    values = evaluation.measure(probability, label).values
    hist = filled(probability, label)
    assert values["root_brier_all"] == [root_brier(hist)]
    assert values["penalised_ece_all_10bins"] == [penalised_ece(hist, 10).value]
    assert 0 < values["augrc_all"][0] < values["aurc_all"][0] < 1
    assert 0 < values["smooth_ece_all"][0] < 1
    with pytest.raises(ValueError, match="no top label"):
        CaseEvaluation(3, [Protocol("more", ["all"], ["aurc"])], activation="sigmoid")


def test_thresholded_dice_is_the_mean_over_thresholds() -> None:
    probability, _ = case(3)
    generator = torch.Generator().manual_seed(1)
    raters = torch.randint(0, 2, (5, 2000), generator=generator)  # nobody gives the last class
    shares = mean_label(raters, 3)
    scores = []
    for t in np.linspace(0.1, 0.8, 6):
        found, true = probability[1].numpy() > t, (raters == 1).numpy().mean(0) > t  # 4 of 5 are not above 0.8
        scores.append(2 * (found & true).sum() / (found.sum() + true.sum()))
    first, last = thresholded_dice(probability, shares)
    assert first == pytest.approx(np.mean(scores))
    assert last == 0  # found, and never there
    nothing = torch.tensor([1.0, 0.0, 0.0])[:, None].expand(3, 2000)
    assert thresholded_dice(nothing, shares)[1] == 1
    with pytest.raises(ValueError, match="shares: expected the shape"):
        thresholded_dice(probability, shares[:2])


@pytest.mark.parametrize("volume", [3.0, 10.0, 12.5, 40.0])
def test_normal_crps_is_the_integral(volume: float) -> None:
    raters = [9.0, 11.0, 14.0]
    fitted = norm(np.mean(raters), np.std(raters))
    below, _ = quad(lambda v: fitted.cdf(v) ** 2, -50, volume, points=[np.mean(raters)])
    above, _ = quad(lambda v: (1 - fitted.cdf(v)) ** 2, volume, 100, points=[max(volume, np.mean(raters))])
    assert volume_crps_normal(volume, raters) == pytest.approx(below + above, rel=1e-6)
    assert volume_crps_normal(volume, [10.0, 10.0]) == abs(volume - 10)
    assert math.isnan(volume_crps_normal(volume, []))
