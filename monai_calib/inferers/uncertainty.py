"""Maps of what several predictions are unsure of: entropy, mutual information and disagreement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from monai_calib.labels import top_class

__all__ = ["UncertaintyMaps", "uncertainty_maps"]


class UncertaintyMaps(NamedTuple):
    """Of ``M`` predictions ``p_m`` with mean ``p``; entropies in nats, each map ``(B, 1, *spatial)`` in float32.

    Attributes:
        probability: ``p``, ``(B, K, *spatial)``.
        entropy: ``H(p)``, all that is uncertain: at most ``log K``.
        expected_entropy: ``1 / M sum_m H(p_m)``, the part that every prediction has for itself, as where an image is
            ambiguous.
        mutual_information: the rest, ``H(p) - 1 / M sum_m H(p_m)``, by which the predictions differ, as where there was
            too little to learn from; at least 0.
        disagreement: share of the pairs of predictions with different labels, 0 of one prediction.
    """

    probability: torch.Tensor
    entropy: torch.Tensor
    expected_entropy: torch.Tensor
    mutual_information: torch.Tensor
    disagreement: torch.Tensor


@torch.no_grad()
def uncertainty_maps(predictions: Iterable[torch.Tensor]) -> UncertaintyMaps:
    """Maps of uncertainty of several predictions, each in memory only while it is added.

    Args:
        predictions: logits ``(B, K, *spatial)`` of exclusive classes, such as
            ``EnsembleInferer(paths).predictions(image, network)`` or those of
            :class:`~monai_calib.inferers.MCDropoutInferer`.

    Raises: ``ValueError`` without any, or if their shapes differ.
    Source: Depeweg et al., ICML 2018, https://arxiv.org/abs/1710.07283, of the decomposition; Lakshminarayanan et al.,
        NeurIPS 2017, of disagreement.

    Example:
        >>> maps = uncertainty_maps([torch.tensor([[[20.0], [0.0]]]), torch.tensor([[[0.0], [20.0]]])])
        >>> [round(m.item(), 4) for m in maps[1:]]  # each is certain, and of something else
        [0.6931, 0.0, 0.6931, 1.0]
    """
    probability = entropies = votes = None
    number = 0
    for logits in predictions:
        logits = logits.float()
        if probability is not None and logits.shape != probability.shape:
            raise ValueError(
                f"predictions: expected all of one shape, got {tuple(probability.shape)} and {tuple(logits.shape)}"
            )
        number += 1
        logs = logits.log_softmax(1)
        member = logs.exp()
        # log 0 is minus infinity only where the logits are; 0 times that counts as 0
        entropy = -(member * logs.clamp_min(-1e4)).sum(1, keepdim=True)
        vote = torch.zeros_like(member).scatter_(1, top_class(member, 1).long().unsqueeze(1), 1.0)
        if probability is None or entropies is None or votes is None:
            probability, entropies, votes = member, entropy, vote
        else:
            probability += member
            entropies += entropy
            votes += vote
        del logits, logs, member, vote
    if probability is None or entropies is None or votes is None:
        raise ValueError("predictions: expected at least one, got none")
    probability /= number
    entropies /= number
    total = -torch.special.xlogy(probability, probability).sum(1, keepdim=True)
    pairs = number * (number - 1)
    same = (votes * (votes - 1)).sum(1, keepdim=True)
    apart = 1 - same / pairs if pairs else torch.zeros_like(entropies)
    return UncertaintyMaps(probability, total, entropies, (total - entropies).clamp_min(0), apart)
