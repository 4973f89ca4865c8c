"""Does the check of images see what is unlike training, and how often does it call what is like it strange?

    python studies/shift.py NAME=BUNDLE,DATA NAME=BUNDLE,DATA   # statistics of all images, changed ones too; page
    python studies/shift.py                                      # the page from shift.json

Fitted on one image a subject of training and validation; asked of one image a subject of test, as it is and changed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from pages import rounded, shown, table, write_json, write_page
from scipy.ndimage import gaussian_filter

from monai_calib.clinical import InputCheck
from monai_calib.datasets import load_datalist
from monai_calib.transforms import ImageStatisticsd

FIGURES = Path(__file__).with_name("shift.json")
RATE = 0.02
SPLITS = 100
Image = tuple[NDArray[np.float64], NDArray[np.float64]]


def _noise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values + np.random.default_rng(0).normal(0, values.std(), values.shape)


def _half(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[: values.shape[0] // 2, : values.shape[1] // 2]


def _padded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.pad(values, [(values.shape[0] // 2, 0), (0, 0), (0, 0)])


def _gamma(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = values.min(), values.max()
    return (values - low) ** 2 / max(high - low, 1e-9) + low


CHANGES: dict[str, Callable[[Image], Image]] = {
    "as it is": lambda image: image,
    "intensities times ten": lambda image: (10 * image[0], image[1]),
    "mirrored left to right": lambda image: (image[0][::-1], image[1]),
    "slices said twice as far apart": lambda image: (image[0], image[1] @ np.diag([1, 1, 2, 1])),
    "one slice in two": lambda image: (image[0][..., ::2], image[1] @ np.diag([1, 1, 2, 1])),
    "a quarter of each slice": lambda image: (_half(image[0]), image[1]),
    "padded with zeros by half its width": lambda image: (_padded(image[0]), image[1]),
    "dark made bright": lambda image: (image[0].max() + image[0].min() - image[0], image[1]),
    "squared intensities": lambda image: (_gamma(image[0]), image[1]),
    "noise as large as the image's spread": lambda image: (_noise(image[0]), image[1]),
    "blurred by two voxels": lambda image: (gaussian_filter(image[0], (2, 2, 0)), image[1]),
}


def statistics(bundle: Path, images: Iterator[Image]) -> list[list[float]]:
    """Statistics of images after the steps of the bundle's inference."""
    parser = ConfigParser(ConfigParser.load_config_file(bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(bundle)
    prepare, measure = parser.get_parsed_content("preprocessing"), ImageStatisticsd("image")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for values, affine in images:
            file = Path(folder, "image.nii.gz")
            nib.save(nib.Nifti1Image(values.astype(np.float32), affine), file)
            found.append([float(f"{v:.6g}") for v in measure(prepare({"image": str(file)}))["statistics"].tolist()])
    return found


def _read(path: str) -> Image:
    volume: Any = nib.load(path)
    return np.asarray(volume.dataobj, dtype=np.float64), volume.affine


def one_a_subject(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A case of each subject, drawn at random."""
    rng = np.random.default_rng(0)
    of_subject: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        of_subject.setdefault(case["subject"], []).append(case)
    return [of[rng.integers(len(of))] for of in of_subject.values()]


def measured(sources: dict[str, tuple[Path, Path]]) -> dict[str, Any]:
    """Shares called strange, by data set and change, and over re-splits of all subjects as they are."""
    kept: dict[str, Any] = {}
    new = {name: one_a_subject(load_datalist(data, "test")) for name, (_, data) in sources.items()}
    for name, (bundle, data) in sources.items():
        cases = [case for split in ("training", "validation") for case in load_datalist(data, split)]
        known = statistics(bundle, (_read(case["image"]) for case in one_a_subject(cases)))
        check = InputCheck.from_json({"channels": 1, "axes": 3, "false_alarms": RATE, "images": known})
        changed = {}
        for change, function in CHANGES.items():
            rows = statistics(bundle, (function(_read(case["image"])) for case in new[name]))
            changed[change] = float(np.mean([check.apply(row).strange for row in rows]))
            print(name, change, changed[change], flush=True)
            if change == "as it is":
                everyone = np.array([*known, *rows])
        for other in sources:
            if other != name:
                rows = statistics(bundle, (_read(case["image"]) for case in new[other]))
                changed["images of the other data set"] = float(np.mean([check.apply(row).strange for row in rows]))
        kept[name] = {"known": len(known), "new": len(new[name]), "changed": changed, **alarms(everyone, len(known))}
    return kept


def alarms(everyone: NDArray[np.float64], known: int) -> dict[str, Any]:
    """Share of images as they are called strange, over re-splits: its mean over re-splits, and how many images."""
    rng, shares = np.random.default_rng(0), []
    for _ in range(SPLITS):
        order = rng.permutation(len(everyone))
        seen = everyone[order[:known]].tolist()
        check = InputCheck.from_json({"channels": 1, "axes": 3, "false_alarms": RATE, "images": seen})
        shares.append(np.mean([check.apply(row).strange for row in everyone[order[known:]]]))
    return {"rate_percent": 100 * RATE, "splits": SPLITS, "false_alarms_percent": 100 * float(np.mean(shares))}


def tables(kept: dict[str, Any]) -> dict[str, str]:
    """The table of the page."""
    names = list(kept)
    changes = list(kept[names[0]]["changed"])
    rows = [[change, *(f"{shown(100 * kept[name]['changed'][change], 0)} %" for name in names)] for change in changes]
    return {"changes": table(["test images", *names], rows)}


def main() -> None:
    if sys.argv[1:]:
        pairs = (argument.partition("=") for argument in sys.argv[1:])
        sources = {name: (Path(said.split(",")[0]), Path(said.split(",")[1])) for name, _, said in pairs}
        write_json(FIGURES, rounded(measured(sources), 4), depth=1)
    write_page("shift")


if __name__ == "__main__":
    main()
