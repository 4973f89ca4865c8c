"""Labels get the codes of published dictionaries; what has none is said to have none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom.sr._concepts_dict import concepts as published

from monai_calib.dicom import CONFIDENCE, Algorithm, name_structures, read_labels
from monai_calib.dicom import concepts as module

ROOT = Path(__file__).resolve().parents[2]
TABLE = json.loads(Path(module.__file__).with_name("concepts.json").read_text())
MEANINGS = {
    (value, scheme): {entry[value][0] for entry in names.values() if value in entry}
    for scheme, names in published.items()
    for value in {code for entry in names.values() for code in entry}
}


@pytest.mark.parametrize("name", TABLE)
def test_every_code_of_the_table_is_published_with_that_meaning(name):
    for value, scheme, meaning in TABLE[name].values():
        assert meaning in MEANINGS[value, scheme]
    (structure,) = name_structures({1: name}).values()
    assert structure.coded


@pytest.mark.parametrize("bundle", ["msd_hippocampus_segmentation_2d", "msd_hippocampus_segmentation_3d"])
def test_a_bundles_labels_are_coded_with_the_word_of_its_name(bundle):
    structures, algorithm = read_labels(ROOT / "bundles" / bundle / "configs" / "metadata.json")
    assert [(label, one.type.meaning, one.modifier.meaning) for label, one in structures.items()] == [
        (1, "Hippocampus", "Anterior"),
        (2, "Hippocampus", "Posterior"),
    ]
    assert algorithm.name.startswith("Hippocampus MRI segmentation")


def test_labels_of_ones_own(tmp_path):
    path = tmp_path / "labels.json"
    own = {"name": "gizzard", "category": ["91723000", "SCT", "Anatomical Structure"], "type": ["1", "99X", "Gizzard"]}
    path.write_text(json.dumps({"0": "background", "3": own, "1": "Liver", "2": "nest"}))
    structures, algorithm = read_labels(path)
    assert list(structures) == [1, 2, 3]
    assert [one.coded for one in structures.values()] == [True, False, True]
    assert structures[1].type.value == "10200004"
    assert structures[3].type.scheme_designator == "99X"
    assert algorithm == Algorithm()


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        "{",
        "[" * 100_000,
        '{"one": "liver"}',
        '{"-1": "liver"}',
        '{"1": {"name": "x"}}',
        '{"1": 7}',
        '{"1": {"name": "x", "category": ["1", "SCT"], "type": ["1", "SCT", "X"]}}',
        '{"1": {"name": "x", "category": ["12345678901234567", "SCT", "X"], "type": ["1", "SCT", "X"]}}',
    ],
)
def test_what_tells_no_labels_is_named(content, tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"labels\.json tells no labels .* expected a bundle's metadata\.json"):
        read_labels(path)


def test_the_confidence_has_a_private_code():
    assert CONFIDENCE.type.scheme_designator.startswith("99")
    assert len(CONFIDENCE.type.scheme_designator) <= 16
