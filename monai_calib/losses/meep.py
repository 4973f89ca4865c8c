"""MEEP: where the network is wrong it should be unsure."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from monai_calib.labels import top_class

from .arguments import one_of
from .base import Options, StatisticLoss
from .cross_entropy import CrossEntropy
from .target import Target

__all__ = ["ErroneousConfidence", "MEEPLoss"]

FORMS = ("binary", "entropy", "kl")


class ErroneousConfidence(nn.Module):
    """Mean confidence of the misclassified voxels in one of three forms; 0 if there is none.

    ``"binary"``: the negative mean over classes of the binary entropies of s_k; ``"entropy"``: ``sum_k s_k log s_k``;
    ``"kl"``: the divergence of s from the uniform distribution, ``-mean_k log s_k - log K``.
    """

    def __init__(self, form: str = "binary") -> None:
        super().__init__()
        self.form = one_of("form", form, FORMS)

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        wrong = target.known(logits.dtype) * (top_class(logits, 1) != target.index)
        return (self._confidence(logits) * wrong).sum() / wrong.sum().clamp(min=1)

    def _confidence(self, logits: Tensor) -> Tensor:
        log_prob = logits.log_softmax(1)
        if self.form == "kl":
            return -log_prob.mean(1) - math.log(logits.shape[1])
        if self.form == "entropy":
            return (log_prob.exp() * log_prob).sum(1)
        prob = log_prob.exp()
        rest = 1 - prob
        # x log x is 0 at 0, and its gradient must be finite there
        return (prob * log_prob + rest * rest.clamp(min=torch.finfo(rest.dtype).tiny).log()).mean(1)

    def extra_repr(self) -> str:
        return f"form={self.form!r}"


class MEEPLoss(StatisticLoss):
    """Cross-entropy less the entropy of the predictions that are wrong (maximum entropy on erroneous predictions).

    ``CE - alpha * mean_{misclassified} H(s)``, s = softmax(l), H the mean over classes of the binary entropies of s_k,
    as in the authors' code; for two classes that is the entropy. Unlike :class:`ECPLoss` it leaves confident
    predictions alone where they are right. Under a soft label a voxel is wrong if the likeliest classes differ.

    Args:
        alpha: weight of the entropy.
        form: ``"binary"``; ``"entropy"`` for ``H(s) = -sum_k s_k log s_k``; ``"kl"`` for ``CE + alpha * KL(uniform ||
            s)``, which the authors' script runs, and whose gradient does not fade as the wrong prediction grows sure.
        options: the arguments of :class:`ConstrainedLoss`.

    Shape: logits ``(B, K, *spatial)``, label ``(B, 1, *spatial)``; returns a scalar.
    Raises: ``ValueError`` for an unknown form, and for ``reduction="none"``.
    Source: Larrazabal et al., MICCAI 2023; https://arxiv.org/abs/2112.12218

    Example:
        >>> import torch
        >>> loss = MEEPLoss(alpha=0.3)
        >>> loss(torch.zeros(1, 2, 4), torch.ones(1, 1, 4)).item()  # all wrong, all unsure: log 2 - 0.3 * log 2
        0.4852...
    """

    def __init__(
        self,
        alpha: float = 0.3,
        form: str = "binary",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(CrossEntropy(), ErroneousConfidence(form), alpha, **options)
