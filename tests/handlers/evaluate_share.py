"""Run under torchrun by test_ranks.py: evaluate a share of the cases and write what this rank reports."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from evaluation import evaluator
from monai.handlers import MetricsSaver

from monai_calib.handlers import CalibrationHandler, SurfaceHandler
from monai_calib.handlers.ranks import leave_process_group


def main(folder: Path, shares: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    items = json.loads((folder / "items.json").read_text())
    mine = [items[int(i)] for i in shares.split("/")[rank].split(",") if i]
    calibration = CalibrationHandler(3, output_dir=folder / f"ranks{dist.get_world_size()}")
    saver = MetricsSaver(
        str(folder / f"ranks{dist.get_world_size()}"),
        metric_details=["ece_all_15bins"],
        batch_transform=lambda batch: [case["image"].meta for case in batch],
    )
    # MONAI skips the run of a loader of length 0, and the other ranks would wait: a loader without length runs.
    run = evaluator(mine, [calibration, SurfaceHandler(3), saver], sized=bool(mine))
    run.run()
    (folder / f"rank{rank}of{dist.get_world_size()}.json").write_text(json.dumps(run.state.metrics))
    if rank == 0:
        torch.save(calibration.state_dict(), folder / f"state{dist.get_world_size()}.pt")
    # The saved state belongs to all ranks together: loaded on each of them, it gives the same figures again.
    dist.barrier()
    again = CalibrationHandler(3)
    again.load_state_dict(torch.load(folder / f"state{dist.get_world_size()}.pt", weights_only=True))
    resumed = again.compute()
    assert all(abs(resumed[name] - run.state.metrics[name]) < 1e-12 for name in resumed)
    leave_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
