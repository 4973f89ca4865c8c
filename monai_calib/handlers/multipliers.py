"""The multipliers of CRaC and CALS, updated from every validation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.handlers import from_engine
from torch import nn

from monai_calib.losses.adaptive import AdaptivePenalty, ConstraintSums
from monai_calib.losses.base import ConstrainedLoss

__all__ = ["MultiplierHandler"]


class MultiplierHandler:
    """Sets the multipliers of :class:`CRaCLoss` and :class:`CALSLoss` to what the validation cases ask for.

    When a validation epoch ends, each constraint's multiplier becomes the mean slope ``dP/dh`` of its penalty over all
    validation voxels of all cases and ranks, within ``smallest`` to ``largest``. Outside its region a constraint is 0
    and its slope the multiplier, so a rare region moves slowly, as in the authors' code. Every
    ``rho_every`` validations the rho of each constraint whose mean did not fall below ``improvement`` times its last
    value is multiplied by ``rho_factor``, up to ``rho_largest``. A region without a voxel keeps what it has.

    Attach it to the **evaluator** that validates during training; it reads the logits before the postprocessing. All
    its state is in the loss, so save and load the loss with the network, after the validation::

        {"_target_": "CheckpointSaver", "save_dict": {"network": "@network", "loss": "@loss", ...}, ...}

    A loss without multipliers is left alone, so that the handler may stay in a configuration whose loss changes.

    The evaluator's ``state.metrics`` get ``multiplier_<region>_class<k>``, ``rho_<region>_max`` and
    ``constraint_<region>_mean``, as floats, for logs and TensorBoard.

    Args:
        loss: the training loss, alone or inside others (``"crac+mdca"``, ``DeepSupervisionLoss``).
        rho_every: validations between changes of rho.
        rho_factor: what rho is multiplied by.
        rho_largest: upper bound of rho.
        improvement: share of its last value that a constraint must fall below to keep its rho.
        smallest, largest: bounds of the multipliers.
        output_transform: takes the engine's output to logits ``(B, K, *spatial)`` and label;
            ``from_engine(["pred", "label"])`` by default.
        logger_name: of the ``logging`` logger that is told the multipliers.

    Raises:
        ValueError: bounds or factors out of their range.

    Source: Murugesan et al., 2024 (https://arxiv.org/abs/2403.12364); Liu et al., CVPR 2023
    (https://arxiv.org/abs/2211.15088). The authors' code bounds the slope voxel by voxel, this bounds its mean.

    Example:
        >>> from monai.engines import SupervisedEvaluator
        >>> from monai_calib.losses import CRaCLoss
        >>> loss = CRaCLoss(num_classes=2)
        >>> data = [{"image": torch.zeros(1, 2, 4), "label": torch.zeros(1, 1, 4)}]
        >>> evaluator = SupervisedEvaluator(torch.device("cpu"), data, torch.nn.Identity(), decollate=False)
        >>> MultiplierHandler(loss).attach(evaluator)
        >>> evaluator.run()
        >>> loss.penalty.multiplier[0]  # inner: 1e-6 + rho |5 - 0| and 1e-6 + rho |0 - 0|
        tensor([5.0000e-01, 1.0000e-06])
    """

    def __init__(
        self,
        loss: nn.Module,
        rho_every: int = 10,
        rho_factor: float = 1.2,
        rho_largest: float = 10.0,
        improvement: float = 0.9,
        smallest: float = 1e-6,
        largest: float = 1e6,
        output_transform: Callable[[Any], Any] | None = None,
        logger_name: str = "monai_calib.multipliers",
    ) -> None:
        if rho_every < 1 or not rho_factor >= 1:
            raise ValueError(f"rho_every and rho_factor must be at least 1, got {rho_every} and {rho_factor}.")
        if not 0 < smallest <= largest:
            raise ValueError(f"Multipliers need 0 < smallest <= largest, got {smallest} and {largest}.")
        self.adaptive: list[tuple[AdaptivePenalty, int | None]] = [
            (part.penalty, part.ignore_index)
            for part in loss.modules()
            if isinstance(part, ConstrainedLoss) and isinstance(part.penalty, AdaptivePenalty)
        ]
        self.rho_every = rho_every
        self.rho_factor = rho_factor
        self.rho_largest = rho_largest
        self.improvement = improvement
        self.smallest = smallest
        self.largest = largest
        self.output_transform = from_engine(["pred", "label"]) if output_transform is None else output_transform
        self.logger = logging.getLogger(logger_name)
        self._sums: dict[int, ConstraintSums] = {}

    def attach(self, engine: Engine) -> None:
        """Follow ``engine``, the MONAI evaluator that validates during training."""
        if self.adaptive:
            engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.forward_completed)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_started(self, engine: Engine) -> None:
        """Start the sums of this validation."""
        self._sums = {}

    def forward_completed(self, engine: Engine) -> None:
        """Add a batch."""
        logits, label = self.output_transform(engine.state.output)
        for number, (penalty, ignore_index) in enumerate(self.adaptive):
            batch = penalty.sums(logits, label, ignore_index)
            before = self._sums.get(number)
            self._sums[number] = batch if before is None else ConstraintSums(*map(torch.add, before, batch))

    def epoch_completed(self, engine: Engine) -> None:
        """Update every multiplier from the sums over all ranks."""
        for number, (penalty, _) in enumerate(self.adaptive):
            total = _over_ranks(penalty, self._sums.get(number))
            if total is not None:
                self._update(penalty, total)
                self._report(engine, penalty)

    @torch.no_grad()
    def _update(self, penalty: AdaptivePenalty, total: ConstraintSums) -> None:
        seen = total.voxels > 0
        everywhere = total.voxels.sum(0).clamp(min=1)
        elsewhere = everywhere - total.voxels
        slope = (total.slope + elsewhere * penalty.multiplier) / everywhere
        constraint = total.constraint / everywhere
        penalty.updates += 1
        penalty.multiplier.copy_(torch.where(seen, slope.clamp(self.smallest, self.largest), penalty.multiplier))
        if int(penalty.updates) % self.rho_every == 0:
            # false for the NaN of a constraint that has no last value
            stuck = seen & (constraint > self.improvement * penalty.last_constraint.clamp(min=0))
            raised = torch.clamp(penalty.rho * self.rho_factor, max=max(self.rho_largest, penalty.first_rho))
            penalty.rho.copy_(torch.where(stuck, raised, penalty.rho))
        penalty.last_constraint.copy_(torch.where(seen, constraint, penalty.last_constraint))

    def _report(self, engine: Engine, penalty: AdaptivePenalty) -> None:
        rows = zip(
            penalty.regions,
            penalty.multiplier.tolist(),
            penalty.rho.amax(1).tolist(),
            penalty.last_constraint.mean(1).tolist(),
            strict=True,
        )
        for region, multipliers, rho, constraint in rows:
            for k, multiplier in enumerate(multipliers):
                engine.state.metrics[f"multiplier_{region}_class{k}"] = multiplier
            engine.state.metrics[f"rho_{region}_max"] = rho
            engine.state.metrics[f"constraint_{region}_mean"] = constraint
            listed = " ".join(f"{multiplier:.3g}" for multiplier in multipliers)
            self.logger.info(f"multipliers {region}: {listed}; largest rho {rho:.3g}; mean constraint {constraint:.3g}")


def _over_ranks(penalty: AdaptivePenalty, sums: ConstraintSums | None) -> ConstraintSums | None:
    """The sums of all ranks, on the multipliers' device; a rank that saw nothing adds nothing; None if none did."""
    if not (dist.is_available() and dist.is_initialized()):
        return sums
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    most = torch.tensor(penalty.multiplier.shape[1], device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    if not int(most):
        return None
    penalty.fit_to(int(most))
    packed = torch.zeros(len(penalty.regions), 2 * int(most) + 1, dtype=torch.float64, device=device)
    if sums is not None:
        packed += torch.cat(sums, dim=1).to(device)
    dist.all_reduce(packed)
    return ConstraintSums(*packed.to(penalty.multiplier.device).split([int(most), int(most), 1], dim=1))
