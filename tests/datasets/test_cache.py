"""Prepared volumes on disk: whole, healed when damaged, and made anew when a file of the case changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.transforms import Compose, Transform

from monai_calib.datasets.cache import PreparedDataset


class Read(Transform):
    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "value": torch.tensor(float(Path(data["image"]).read_text()))}


def prepared(folder: Path, item: dict[str, Any]) -> dict[str, Any]:
    return PreparedDataset([item], Compose([Read()]), cache_dir=folder / "cache")[0]


@pytest.fixture
def item(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "image.txt").write_text("1")
    return {"image": str(tmp_path / "image.txt"), "case": "a"}


def test_a_file_replaced_in_place_is_read_again(tmp_path: Path, item: dict[str, Any]) -> None:
    assert prepared(tmp_path, item)["value"] == 1
    Path(item["image"]).write_text("2")
    os.utime(item["image"], ns=(1, 1))
    assert prepared(tmp_path, item)["value"] == 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"PK", b"text", None])
def test_a_damaged_file_is_named_and_made_again(tmp_path: Path, item: dict[str, Any], damage: bytes | None) -> None:
    prepared(tmp_path, item)
    [kept] = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:-40] if damage is None else damage)
    with pytest.warns(UserWarning, match=rf"{kept.name}: cannot be read .*prepared again"):
        assert prepared(tmp_path, item)["value"] == 1
    assert torch.load(kept, weights_only=True)["value"] == 1


def test_what_a_killed_run_left_is_not_taken_for_a_case(tmp_path: Path, item: dict[str, Any]) -> None:
    prepared(tmp_path, item)
    [kept] = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    kept.unlink()
    kept.with_name(f".elsewhere-1.partial.{kept.name}").write_bytes(whole[:100])
    assert prepared(tmp_path, item)["value"] == 1
    assert kept.read_bytes() == whole
