"""Random numbers of an epoch that depend on seed and epoch alone, so that a resumed training is the same training."""

from __future__ import annotations

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.utils import set_determinism

__all__ = ["EpochSeeds"]


class EpochSeeds:
    """Seeds everything random anew at the start of each epoch: PyTorch, NumPy, Python, MONAI's transforms, loading.

    A training that was stopped after any epoch and resumed then ends with the weights, bit for bit, of one that ran
    through; nothing random is saved for it. The loader starts its epoch after the seeding, and its workers take their
    seeds from it: they must be new in every epoch (``persistent_workers`` off), since those that stay go on from where
    they were. Each rank has seeds of its own.

    Args:
        seed: of the training.

    Example:
        >>> import random
        >>> def numbers(first_epoch: int) -> list[float]:
        ...     drawn: list[float] = []
        ...     trainer = Engine(lambda engine, batch: drawn.append(random.random()))
        ...     EpochSeeds(7).attach(trainer)
        ...     trainer.add_event_handler(Events.STARTED, lambda: setattr(trainer.state, "epoch", first_epoch - 1))
        ...     _ = trainer.run([0], max_epochs=3)
        ...     return drawn
        >>> numbers(first_epoch=1)[1:] == numbers(first_epoch=2)
        True
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Seed when an epoch of ``engine``, the trainer, starts."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the epoch that starts, and let its loading start after that."""
        entropy = (self.seed % 2**32, engine.state.epoch, idist.get_rank())
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        set_determinism(seed)
        loader = engine.state.dataloader
        if loader is not None:
            set_rnd(getattr(loader, "dataset", None), seed)
            engine.set_data(loader)
