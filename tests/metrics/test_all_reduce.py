"""Several processes count what one does, to the last bit, with uneven data and a rank that has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from monai_calib.handlers.ranks import leave_process_group
from monai_calib.metrics import CalibrationHistogram


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 3, 400, generator=generator) * 4, torch.randint(0, 3, (5, 400), generator=generator)


def work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    logits, label = data()
    hist = CalibrationHistogram(3)
    mine = {0: range(4), 1: range(4, 5)}.get(rank, range(0))  # four cases, one, none
    for i in mine:
        hist.update(logits[i : i + 1], label[i : i + 1])
    hist.all_reduce()
    torch.save(hist.state_dict(), f"{folder}/{rank}.pt")
    leave_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_add_up(world: int, tmp_path: Path) -> None:
    mp.spawn(work, args=(world, str(tmp_path)), nprocs=world)
    one = CalibrationHistogram(3)
    one.update(*data())
    for rank in range(world):
        hist = CalibrationHistogram.from_state(torch.load(tmp_path / f"{rank}.pt", weights_only=True))
        for name in ("count", "hits", "confidence", "problems"):
            assert torch.equal(getattr(hist.sums, name), getattr(one.sums, name)), name
        torch.testing.assert_close(hist.sums.scores, one.sums.scores, rtol=1e-12, atol=0)
        assert hist.updates == 5
