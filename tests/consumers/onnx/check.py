"""ONNX Runtime on what ``onnx_export`` writes, for one patch and for a batch, against the network itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from monai.bundle import ConfigParser
from telling import tell, tell_versions

FREE_BATCH = "{'dynamic_axes': {'input': {0: 'batch'}}, 'input_names': ['input'], 'dynamo': False}"


def export(bundle: Path, weights: Path, target: Path, *settings: str) -> onnxruntime.InferenceSession:
    call = [sys.executable, "-m", "monai.bundle", "onnx_export", "network_def", "--filepath", target]
    files = [
        "--meta_file",
        bundle / "configs" / "metadata.json",
        "--config_file",
        bundle / "configs" / "inference.json",
    ]
    subprocess.run([*call, "--ckpt_file", weights, *files, "--bundle_root", bundle, *settings], check=True)
    return onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])


def largest_difference(session: onnxruntime.InferenceSession, network: torch.nn.Module, inputs: torch.Tensor) -> float:
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    with torch.no_grad():
        return float(np.abs(found - network(inputs).numpy()).max())


def main(shared: Path, work: Path) -> None:
    tell_versions(["onnxruntime", "onnx", "torch", "monai"])
    bundle, weights = shared / "bundle", shared / "run" / "models" / "model.pt"
    parser = ConfigParser.load_config_file(bundle / "configs" / "inference.json")
    config = ConfigParser(parser)
    network = config.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    torch.manual_seed(0)
    patch = torch.randn(1, 1, *config.get_parsed_content("patch_size"))
    one = largest_difference(export(bundle, weights, work / "one.onnx"), network, patch)
    tell("`onnx_export`, logits of a patch", one < 1e-3, f"largest difference {one:.1g}")
    free = export(bundle, weights, work / "free.onnx", "--converter_kwargs", FREE_BATCH)
    batch = largest_difference(free, network, patch.repeat(4, 1, 1, 1, 1) * torch.arange(1, 5).reshape(4, 1, 1, 1, 1))
    tell("`onnx_export` with a free batch axis, four patches at once", batch < 1e-3, f"largest difference {batch:.1g}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
