"""A whole abdominal CT with 14 classes is measured in less than 64 MB beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHAPE = (1, 14, 512, 512, 300)

# Runs by itself, so that the memory of other tests does not count. Pages of the mapped files belong to the operating
# system, which takes them back at will: RssAnon is what the process holds.
SCRIPT = """
import json, re, sys, threading, time
import numpy as np, torch
from monai_calib.metrics import CalibrationHistogram

def held():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024

def update(hist, shape):
    logits = np.memmap(sys.argv[1], sys.argv[2], "r", shape=shape)
    label = np.memmap(sys.argv[3], np.uint8, "r", shape=(1, 1, *shape[2:]))
    hist.update(logits, label)

shape = tuple(json.loads(sys.argv[4]))
torch.set_num_threads(2)
update(CalibrationHistogram(14), (1, 14, 64, 64, 64))  # load and compile what there is
hist, before, peak, done = CalibrationHistogram(14), held(), 0.0, False

def watch():
    global peak
    while not done:
        peak = max(peak, held())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
update(hist, shape)
done = True
watcher.join()
print(json.dumps({"extra": peak - before, "voxels": hist.voxels, "background": hist.class_voxels()[0].item()}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_streaming_a_memory_map_needs_little_memory(dtype: str, tmp_path: Path) -> None:
    voxels = SHAPE[2] * SHAPE[3] * SHAPE[4]
    logits, label = tmp_path / "logits.raw", tmp_path / "label.raw"
    for path, size in ((logits, voxels * 14 * (4 if dtype == "float32" else 2)), (label, voxels)):
        with path.open("wb") as file:
            file.truncate(size)  # a sparse file of zeros, which takes no room on the disk
    command = [sys.executable, "-c", SCRIPT, str(logits), dtype, str(label), json.dumps(SHAPE)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    assert seen["voxels"] == seen["background"] == voxels
    assert seen["extra"] < 64, f"{seen['extra']:.1f} MB"
