"""MONAI's own bundle API: load, workflows and their properties, verify_net_in_out, and a download that runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.bundle import create_workflow, download, load, verify_net_in_out
from telling import tell, tell_versions

NAME = "msd_hippocampus_segmentation_3d"


def place(shared: Path, work: Path) -> Path:
    """The bundle with its trained model, as one publishes it."""
    bundle = shutil.copytree(shared / "bundle", work / "bundles" / NAME)
    (bundle / "models").mkdir()
    for name in ("model.pt", "training.json"):
        shutil.copy(shared / "run" / "models" / name, bundle / "models")
    return bundle


def command(name: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "monai.bundle", name, *map(str, arguments)], check=True)


def check_load(bundle: Path) -> None:
    where = {"name": NAME, "bundle_dir": bundle.parent, "device": "cpu"}
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    network = load(**where)
    same = all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    tell("`load`: the network with its weights", same, f"{type(network).__name__}, {len(weights)} tensors equal")
    changed = load(**where, net_override={"dropout": 0.3})
    rates = {module.p for module in changed.modules() if "Dropout" in type(module).__name__}
    tell("`load(net_override={'dropout': 0.3})`", rates == {0.3}, f"dropout {sorted(rates)}")
    configs = bundle / "configs"
    command("ckpt_export", "network_def", "--filepath", bundle / "models" / "model.ts", "--ckpt_file",
            bundle / "models" / "model.pt", "--meta_file", configs / "metadata.json",
            "--config_file", configs / "inference.json", "--bundle_root", bundle)  # fmt: skip
    scripted, metadata, extra = load(**where, load_ts_module=True, config_files=("inference.json",))
    patch = torch.randn(1, 1, 40, 56, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = float((scripted.eval()(patch) - network.eval()(patch)).abs().max())
    tell(
        "`load(load_ts_module=True)` of what `ckpt_export` wrote",
        difference < 1e-4 and metadata["name"] and "inference.json" in extra,
        f"largest difference of logits {difference:.1g}; metadata and inference.json inside",
    )


def check_workflows(bundle: Path, shared: Path) -> None:
    missing = {}
    for names in (["train"], ["train", "evaluate"], ["train", "calibrate"], ["inference"]):
        files = [str(bundle / "configs" / f"{name}.json") for name in names]
        infers = names == ["inference"]
        workflow = create_workflow(
            config_file=files,
            workflow_type="infer" if infers else "train",
            bundle_root=str(bundle),
            dataset_dir=str(shared / ("images" if infers else "data")),
            meta_file=str(bundle / "configs" / "metadata.json"),
            logging_file=False,
        )
        missing["+".join(names)] = workflow.check_properties()
    tell(
        "`create_workflow(...).check_properties()`",
        not any(missing.values()),
        f"nothing missing in {', '.join(missing)}" if not any(missing.values()) else str(missing),
    )
    configs = bundle / "configs"
    verify_net_in_out("network_def", str(configs / "metadata.json"), str(configs / "inference.json"), device="cpu")
    tell("`verify_net_in_out` on metadata.json", True, "shapes, channels and values as promised")


def check_download(bundle: Path, shared: Path, work: Path) -> None:
    archive = shutil.make_archive(str(work / NAME), "zip", bundle.parent, NAME)
    folder = work / "downloaded"
    folder.mkdir()
    download(name=NAME, url=Path(archive).as_uri(), bundle_dir=folder, progress=False)
    root, out = folder / NAME, work / "predictions"
    command("run", "--config_file", root / "configs" / "inference.json", "--bundle_root", root,
            "--dataset_dir", shared / "images", "--output_dir", out)  # fmt: skip
    files = sorted(path.name for path in (shared / "direct").iterdir())
    voxels, different = 0, 0
    for name in files:
        ours, direct = (np.asanyarray(nibabel.load(place / name).dataobj) for place in (out, shared / "direct"))
        voxels += direct.size
        different += int((ours != direct).sum())
    tell(
        "`download --url file://….zip`, then inference in the downloaded folder",
        different == 0 and len(files) == 6,
        f"{len(files)} maps equal to direct in all {voxels} voxels" if not different else f"{different} voxels differ",
    )


def main(shared: Path, work: Path) -> None:
    tell_versions(["monai", "torch"])
    bundle = place(shared, work)
    check_load(bundle)
    check_workflows(bundle, shared)
    check_download(bundle, shared, work)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
