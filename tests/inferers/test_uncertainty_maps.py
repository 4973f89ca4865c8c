"""Maps of uncertainty of several predictions, against sums over all members at once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from monai_calib.inferers import EnsembleInferer, log_mean_probability, uncertainty_maps


def members(number: int = 4, classes: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(2, classes, 5, 4, 3, generator=generator) for _ in range(number)]


def test_maps_are_those_of_all_members_at_once() -> None:
    logits = members()
    p = torch.stack(logits).double().softmax(2).numpy()
    mean = p.mean(0)
    entropy = -(mean * np.log(mean)).sum(1)
    expected = -(p * np.log(p)).sum(2).mean(0)
    labels = p.argmax(2)
    apart = np.mean([labels[i] != labels[j] for i, j in itertools.combinations(range(4), 2)], axis=0)
    maps = uncertainty_maps(iter(logits))
    assert maps.probability.numpy() == pytest.approx(mean, abs=1e-6)
    for found, exact in zip(maps[1:], (entropy, expected, entropy - expected, apart), strict=True):
        assert found.shape == (2, 1, 5, 4, 3)
        assert found[:, 0].numpy() == pytest.approx(exact, abs=1e-5)
    assert torch.allclose(maps.probability.log(), log_mean_probability(logits), atol=1e-5)


def test_one_prediction_has_nothing_to_disagree_with() -> None:
    maps = uncertainty_maps(members(1))
    assert float(maps.mutual_information.max()) < 1e-6
    assert float(maps.disagreement.max()) == 0
    certain = uncertainty_maps([torch.tensor([[[1e4], [-1e4]]]), torch.tensor([[[1e4], [-torch.inf]]])])
    assert all(float(found) == 0 for found in certain[1:])


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="at least one"):
        uncertainty_maps([])
    with pytest.raises(ValueError, match="all of one shape"):
        uncertainty_maps([torch.zeros(1, 2, 3), torch.zeros(1, 3, 3)])


def test_an_ensembles_predictions_go_straight_in(tmp_path) -> None:
    network, image = torch.nn.Conv2d(1, 3, 1), torch.randn(1, 1, 6, 5)
    paths, logits = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        network.reset_parameters()
        paths.append(tmp_path / f"{seed}.pt")
        torch.save(network.state_dict(), paths[-1])
        logits.append(network(image).detach())
    maps = uncertainty_maps(EnsembleInferer(paths).predictions(image, network))
    assert not maps.entropy.requires_grad
    for found, exact in zip(maps, uncertainty_maps(logits), strict=True):
        assert torch.allclose(found, exact, atol=1e-6)
