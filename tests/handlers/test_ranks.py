"""Several processes give what one gives: counts to the last bit, figures, rows and file, also if a rank has no data."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from evaluation import evaluator, write_cases

from monai_calib.handlers import CalibrationHandler, SurfaceHandler
from monai_calib.metrics import CalibrationHistogram

pytestmark = pytest.mark.slow
SHARES = {2: "0,1,2,3,4/", 3: "1,4,0//2,3"}


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_equal_one_process(tmp_path, ranks):
    items = write_cases(tmp_path, 5, empty=[3])
    (tmp_path / "items.json").write_text(json.dumps(items))
    single = evaluator(items, [CalibrationHandler(3, output_dir=tmp_path / "single"), SurfaceHandler(3)])
    single.run()

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    script = Path(__file__).with_name("evaluate_share.py")
    subprocess.run([*torchrun, str(script), str(tmp_path), SHARES[ranks]], check=True, timeout=150)

    for rank in range(ranks):
        reported = json.loads((tmp_path / f"rank{rank}of{ranks}.json").read_text())
        assert reported == pytest.approx(single.state.metrics, abs=1e-12, nan_ok=True)

    expected = json.loads((tmp_path / "single" / "calibration.json").read_text())
    found = json.loads((tmp_path / f"ranks{ranks}" / "calibration.json").read_text())
    for region in expected["pooled"]:
        one, many = (CalibrationHistogram.from_json(content["pooled"][region]).sums for content in (expected, found))
        assert torch.equal(one.count, many.count)
        assert torch.equal(one.hits, many.hits)
        torch.testing.assert_close(one.confidence, many.confidence, rtol=1e-13, atol=0)
    by_case = {case["case"]: case for case in found["cases"]}
    assert len(by_case) == len(found["cases"]) == 5
    assert all(by_case[case["case"]] == case for case in expected["cases"])

    # MONAI's saver puts file names beside our rows: they must be of the same case. (MONAI 1.6.1 gathers an empty name
    # from a rank without data and shifts the names after it, so only an empty last rank can be tested.)
    if not SHARES[ranks].endswith("/"):
        return
    with open(tmp_path / f"ranks{ranks}" / "ece_all_15bins_raw.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert len(rows) == 5
    for file_name, value, *_ in rows:
        case = by_case[Path(file_name).name.removesuffix(".nii.gz")]
        assert float(value) == pytest.approx(case["metrics"]["ece_all_15bins"], abs=1e-4)
