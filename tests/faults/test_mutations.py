"""A small part of the harness: mutated inputs end with the whole file's result or an error that names the file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hostile import Prepared
from readers import Reader, readers
from tally import Tally

FAST = ("LoadCased", "load_datalist", "training settings", "model.pt", "dicom to-nifti", "measure, subjects")
CHOSEN = [reader for reader in readers() if reader.name in FAST and reader.kind != "picture"]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="inputs are read in forks")


@pytest.mark.parametrize("reader", CHOSEN, ids=lambda reader: reader.name)
def test_mutated_inputs_are_read_or_named(reader, tmp_path: Path) -> None:
    prepared = Prepared(reader, tmp_path)
    for seed in range(6):
        read = prepared.read(seed)
        assert read.good, f"{read.mutation}, seed {seed}: {read.outcome}\n{read.told}"


def test_a_reader_that_does_not_name_its_file_is_found(tmp_path: Path) -> None:
    def prepare(folder: Path) -> None:
        (folder / "a.json").write_text('{"a": 1}')

    def call(folder: Path) -> object:
        return json.loads((folder / "a.json").read_bytes())["a"] + 9

    prepared = Prepared(Reader("plain", "JSON", prepare, ["a.json"], call), tmp_path)
    found = {prepared.read(0, "emptied").outcome, prepared.read(0, "json deep").outcome}
    assert found == {"not named"}
    assert prepared.read(0, "json without").outcome == "traceback"


def test_the_tally_adds_up_and_keeps_what_was_wrong(tmp_path: Path) -> None:
    for _ in range(2):
        tally = Tally(tmp_path / "tally.json")
        tally.add("input · JSON · report", "named")
        tally.add("kill · train", "different: model.pt", {"mutation": "after 3.0 of 9.0 s"})
        tally.save()
    tally = Tally(tmp_path / "tally.json")
    assert tally.counts == {"input · JSON · report": {"named": 2}, "kill · train": {"fault": 2}}
    assert "| kill · train | after 3.0 of 9.0 s (2 times) | different: model.pt | no |" in tally.page()
