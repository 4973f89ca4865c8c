"""Maps as a bundle's inference writes them: named by number and class, with labels beside, PNG of pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from stored_maps import AFFINE, softmax, volume

from monai_calib.__main__ import main

NAMES = ("0_background", "1_blood_vessel", "2_type_2")
SHAPE = (23, 14, 1)


def picture(number: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Logits ``(3, x, y, 1)`` and label: the middle slice of a volume."""
    logits, label = volume(number, (*SHAPE[:2], 3))
    return logits[..., 1:2], label[..., 1:2]


def save(path: Path, values: NDArray[Any]) -> None:
    """``(x, y, 1)`` as NIfTI, or as PNG with rows first."""
    if path.suffix == ".png":
        Image.fromarray(np.ascontiguousarray(values[..., 0].T)).save(path)
    else:
        nib.save(nib.Nifti1Image(values, AFFINE), path)


def write(root: Path, ending: str, bits: int = 16, count: int = 5) -> None:
    """``root/maps`` and ``root/labels`` of pictures, the probabilities rounded as the form asks."""
    for folder in ("maps", "labels"):
        (root / folder).mkdir()
    for number in range(count):
        logits, label = picture(number)
        maps = softmax(logits)
        save(root / f"labels/case_{number}{ending}", label)
        save(root / f"maps/case_{number}_seg{ending}", maps.argmax(0).astype(np.uint8))
        save(root / f"maps/case_{number}_confidence{ending}", np.rint(100 * maps.max(0)).astype(np.uint8))
        whole = np.rint(maps * (2**bits - 1)).astype(f"uint{bits}")
        for part, name in zip(whole if ending == ".png" else maps, NAMES, strict=True):
            save(root / f"maps/case_{number}_prob_{name}{ending}", part)


def measure(root: Path) -> dict[str, Any]:
    assert main(["measure", str(root / "maps"), str(root / "labels"), str(root / "run")]) == 0
    return json.loads((root / "run/eval/calibration.json").read_text())


def test_forms_give_the_same_figures_and_the_names_of_the_classes(tmp_path: Path) -> None:
    found = {}
    for form, ending, bits in (("volumes", ".nii.gz", 16), ("pictures", ".png", 16), ("coarse", ".png", 8)):
        (tmp_path / form).mkdir()
        write(tmp_path / form, ending, bits)
        content = measure(tmp_path / form)
        assert content["classes"] == ["background", "blood_vessel", "type_2"]
        assert len(content["cases"]) == 5
        units = {match[1] for name in content["summary"] if (match := re.search(r"[0-9_](mm|px)(_|$)", name))}
        assert units == {"mm" if form == "volumes" else "px"}
        found[form] = content["summary"]
    for metric in ("nll_all_macro", "brier_all_macro", "mean_dice"):
        assert found["pictures"][metric] == pytest.approx(found["volumes"][metric], abs=1e-3)
        assert found["coarse"][metric] == pytest.approx(found["volumes"][metric], abs=0.05)


@pytest.mark.parametrize("bits", [8, 16])
def test_pictures_come_back_corrected_with_as_many_bits(bits: int, tmp_path: Path) -> None:
    write(tmp_path, ".png", bits)
    measure(tmp_path)
    (tmp_path / "fit.txt").write_text("case_0\ncase_1\ncase_2\n")
    words = ["correct", "run", "out", "--fit_on", "fit.txt", "--method", "temperature", "--force", "True"]
    assert main([str(tmp_path / word) if word in ("run", "out", "fit.txt") else word for word in words]) == 0
    temperature = json.loads((tmp_path / "out/correction.json").read_text())["intervals"][0]["value"]
    assert abs(temperature - 1) > 0.1
    written = {path.name for path in (tmp_path / "out/maps").iterdir()}
    assert written == {f"case_{number}_prob_{name}.png" for number in (3, 4) for name in NAMES}
    for number in (3, 4):
        expected = softmax(picture(number)[0] / temperature)
        for k, name in enumerate(NAMES):
            with Image.open(tmp_path / f"out/maps/case_{number}_prob_{name}.png") as written_map:
                assert written_map.mode == ("L" if bits == 8 else "I;16")
                values = np.asarray(written_map).T / (2**bits - 1)
            # A number rounded to 0 is taken as half a step, whose root at temperature 2 is 0.003, and 0.04 at 8 bits.
            assert np.abs(values - expected[k, ..., 0]).max() < (0.06 if bits == 8 else 4e-3)


def in_colours(path: Path) -> None:
    Image.fromarray(np.arange(SHAPE[0] * SHAPE[1] * 3, dtype=np.uint8).reshape(*SHAPE[1::-1], 3)).save(path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "got none of prob_1_blood_vessel"),
        (lambda path: path.write_bytes(b"no picture"), "case_1_prob_1_blood_vessel.png: cannot be read"),
        (in_colours, "case_1_prob_1_blood_vessel.png: expected one probability a pixel, got colours"),
        (lambda path: save(path, np.zeros(SHAPE, np.uint8)), "case_1_prob_1_blood_vessel.png: expected"),
        (lambda path: save(path, np.zeros((9, 9, 1), np.uint16)), "case_1_prob_1_blood_vessel.png: expected"),
        (lambda path: save(path, np.zeros(SHAPE, np.uint16)), "sum to 1"),
    ],
)
def test_a_spoilt_picture_is_named(
    spoil: Callable[[Path], object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ".png")
    spoil(tmp_path / "maps/case_1_prob_1_blood_vessel.png")
    assert main(["measure", str(tmp_path / "maps"), str(tmp_path / "labels"), str(tmp_path / "run")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
