"""A MONAI Deploy application on a DICOM series: its DICOM SEG and confidence map against those of this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
from direct import run_bundle
from shared import DATA
from telling import tell, tell_versions

from monai_calib.posthoc.export import copy_torchscript

APP = Path(__file__).with_name("app.py")
LACKED = {"SeriesNumber": 1, "PatientBirthDate": "", "PatientSex": ""}  # the SDK refuses a series without them


def main(shared: Path, work: Path) -> None:
    tell_versions(["monai-deploy-app-sdk", "holoscan-cu13", "monai", "torch", "pydicom", "highdicom"])
    series = make_series(DATA / "dicom_hippocrop", work / "series")
    bundle, models = shared / "bundle", shared / "run" / "models"
    exported = work / "exported" / "model.ts"
    export(bundle, models / "model.pt", exported)
    head = models / "model_calibrated.ts"
    shipped = copy_torchscript(head, work / "shipped" / "model.ts")
    for calibrated in (False, True):
        predict(shared, work / "ours" / str(calibrated), series, calibrated)
    for what, model, calibrated in (
        ("`model.ts` of `ckpt_export`", exported, False),
        ("`model_calibrated.ts`", head, True),
        ("it as `run` ships it, `model.ts`", shipped, True),
    ):
        out = work / "deployed" / model.parent.name
        try:
            deploy(series, out, model)
        except RuntimeError as error:
            tell(f"application with {what}", False, str(error)[-300:])
            continue
        compare(what, out, work / "ours" / str(calibrated), series)
    maps = [np.asanyarray(nib.load(work / "ours" / str(c) / "series_confidence.nii.gz").dataobj) for c in (False, True)]
    moved = int((maps[0] != maps[1]).sum())
    tell("the calibrated model's confidence is another one", moved > 0, f"{moved} of {maps[0].size} voxels differ")


def make_series(source: Path, target: Path) -> Path:
    """A copy with the attributes that the source lacks and the SDK needs."""
    target.mkdir(parents=True)
    for path in sorted(source.glob("*.dcm")):
        instance = pydicom.dcmread(path)
        for name, value in LACKED.items():
            if not instance.get(name):  # missing or empty
                setattr(instance, name, value)
        instance.save_as(target / path.name)
    return target


def export(bundle: Path, weights: Path, target: Path) -> None:
    """TorchScript with the configurations inside, by the command of the bundle's README."""
    target.parent.mkdir(parents=True)
    files = {"meta_file": "metadata.json", "config_file": "inference.json"}
    call = [
        sys.executable,
        "-m",
        "monai.bundle",
        "ckpt_export",
        "network_def",
        "--filepath",
        target,
        "--ckpt_file",
        weights,
    ]
    for option, name in files.items():
        call += [f"--{option}", bundle / "configs" / name]
    subprocess.run([*call, "--bundle_root", bundle], check=True, stdout=sys.stderr)


def predict(shared: Path, folder: Path, series: Path, calibrated: bool) -> None:
    """What this package makes of the series: ``segmentation.dcm``, and the bundle's own maps as NIfTI."""
    settings = ["device=cpu", f"calibrated={calibrated}"]
    command = [sys.executable, "-m", "monai_calib", "dicom"]
    segment = ["segment", series, shared / "bundle", folder, "--run_dir", shared / "run", "--set", *settings]
    subprocess.run([*command, *segment], check=True, stdout=sys.stderr)
    subprocess.run([*command, "to-nifti", series, folder / "images" / "series.nii.gz"], check=True, stdout=sys.stderr)
    run_bundle(
        shared / "bundle",
        ["inference"],
        dataset_dir=folder / "images",
        run_dir=shared / "run",
        output_dir=folder,
        calibrated=calibrated,
    )


def deploy(series: Path, out: Path, model: Path) -> None:
    """Run the application as its users do."""
    call = f"ulimit -s 32768; exec {sys.executable} {APP} -i {series} -o {out} -m {model}"
    done = subprocess.run(["bash", "-c", call], capture_output=True, text=True, timeout=600, check=False)
    print(done.stdout[-4000:], done.stderr[-4000:], file=sys.stderr)
    if done.returncode or not list(out.glob("*.dcm")):
        raise RuntimeError(f"the application ended with {done.returncode}: {done.stderr or done.stdout}")


def compare(what: str, out: Path, ours: Path, series: Path) -> None:
    """Segments slice by slice, by the UIDs of the series; the confidence map with the bundle's own."""
    slices = [path.SOPInstanceUID for path in sorted(map(pydicom.dcmread, series.glob("*.dcm")), key=place)]
    (segmentation,) = out.glob("*.dcm")
    found, expected = labels(segmentation, slices), labels(ours / "segmentation.dcm", slices)
    apart = int((found != expected).sum())
    sizes = [int((expected == k).sum()) for k in (1, 2)]
    numbers = f"{apart} of {found.size} voxels differ; segments of {sizes[0]} and {sizes[1]} voxels"
    tell(f"application with {what}, DICOM SEG", apart == 0 and min(sizes) > 0, numbers)
    percent = np.asanyarray(nib.load(ours / "series_confidence.nii.gz").dataobj).transpose(2, 1, 0)
    arrived = np.load(out / "confidence.npy")
    good = arrived.shape == percent.shape and arrived.dtype == np.uint8 and bool((arrived == percent).all())
    differing = int((arrived != percent).sum()) if arrived.shape == percent.shape else -1
    span = f"{arrived.min()} to {arrived.max()} percent"
    tell(f"application with {what}, confidence map", good, f"{differing} of {percent.size} voxels differ, {span}")


def place(instance: pydicom.Dataset) -> float:
    """Position along the normal of the slices."""
    rows, columns = np.reshape(np.asarray(instance.ImageOrientationPatient, float), (2, 3))
    return float(np.cross(rows, columns) @ np.asarray(instance.ImagePositionPatient, float))


def labels(segmentation: Path, slices: list[str]) -> np.ndarray:
    """(slices, rows, columns) of 0 and the segments' numbers; a frame that is not there is empty."""
    read = highdicom.seg.segread(segmentation)
    return read.get_pixels_by_source_instance(
        slices, combine_segments=True, assert_missing_frames_are_empty=True, ignore_spatial_locations=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
