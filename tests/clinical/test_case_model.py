"""The statements about a case together: fitted, written, read, and refused for another network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_calib.clinical import (
    ClinicalModel,
    TooFewSubjectsWarning,
    expected_dice,
    read_clinical_model,
    write_clinical_model,
)
from monai_calib.files import FileError

NAMES = ["background", "liver", "tumour"]
SPACING = (1.0, 1.0, 2.5)
SHAPE = (10, 10, 6)


def case(seed: int, poor: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """A box of liver with a smaller one of tumour; a poor network is unsure and shifted by three voxels."""
    rng = np.random.default_rng(seed)
    label = torch.zeros(SHAPE, dtype=torch.long)
    label[2:8, 2:8, 1:5] = 1
    label[3:6, 3 : 5 + int(rng.integers(0, 3)), 2:4] = 2
    seen = label.roll(3, 0) if poor else label
    logits = 5.0 * torch.nn.functional.one_hot(seen, 3).movedim(-1, 0)
    noise = torch.from_numpy(rng.normal(0, 1.0, logits.shape))
    return ((logits + noise) * (0.4 if poor else 1)).float().softmax(0), label


def statistics(rng: np.random.Generator) -> list[float]:
    return [*np.sort(rng.normal(size=5)).tolist(), rng.lognormal(), 1.0, 1.0, 2.5, 10.0, 10.0, 15.0]


@pytest.fixture(scope="module")
def model() -> ClinicalModel:
    made = ClinicalModel(NAMES, level=0.9, share=0.9)
    rng = np.random.default_rng(0)
    for seed in range(24):
        made.update(*case(seed, poor=seed % 2 == 0), SPACING, f"Jane Doe {seed}", f"scan {seed}")
    for number in range(60):
        made.update_image(statistics(rng), 1, str(number))
    made.fit()
    return made


def test_what_is_said_is_what_its_parts_say(model: ClinicalModel) -> None:
    p, _ = case(100)
    said = model.apply(p, SPACING, statistics(np.random.default_rng(1)))
    assert [one.name for one in said.structures] == NAMES[1:]
    assert [one.volume for one in said.structures] == model.volumes.apply(p, SPACING)
    assert [one.dice for one in said.structures] == expected_dice(p)
    assert torch.equal(said.margins, model.margins.apply(p, SPACING))
    assert torch.equal(said.sets, model.sets.apply(p))
    assert torch.equal(said.label.long(), p.argmax(0))
    assert said.image is not None
    assert (said.flag, said.reasons) == ("ok", ())


def test_the_flag_follows_the_threshold_of_validation(model: ClinicalModel) -> None:
    assert model.quality is not None
    assert model.quality.possible
    said = model.apply(case(101, poor=True)[0], SPACING)
    assert said.flag == "check"
    assert all("expected Dice" in reason for reason in said.reasons)
    assert said.image is None
    strange = model.apply(case(100)[0], SPACING, [50 * value for value in statistics(np.random.default_rng(1))])
    assert strange.flag == "check"
    assert strange.reasons[0].startswith("this image does not look like the training data, ")


def test_it_is_read_as_written_and_names_nobody(model: ClinicalModel, tmp_path: Path) -> None:
    network = tmp_path / "model.pt"
    network.write_bytes(b"weights")
    file = tmp_path / "models" / "clinical.json"
    write_clinical_model(model, file, network, split="validation")
    text = file.read_text()
    assert "Jane" not in text
    assert "scan" not in text
    assert str(tmp_path) not in text
    again = read_clinical_model(file, network)
    p = case(102)[0]
    ours, theirs = model.apply(p, SPACING), again.apply(p, SPACING)
    assert ours.structures == theirs.structures
    assert torch.equal(ours.margins, theirs.margins)
    assert torch.equal(ours.sets, theirs.sets)
    assert again.in_words() == model.in_words()
    assert again.about["subjects"] == 24
    network.write_bytes(b"other weights")
    with pytest.raises(
        FileError, match=r"clinical\.json: expected what was fitted for the network .* Write it with: fit"
    ):
        read_clinical_model(file, network, "fit")


@pytest.mark.parametrize("content", ["", "[]", '{"format": "monai_calib/clinical/1"}', '{"format": "else"}'])
def test_a_broken_file_is_named_with_the_command_that_writes_it(content: str, tmp_path: Path) -> None:
    file = tmp_path / "clinical.json"
    file.write_text(content)
    with pytest.raises(FileError, match=r"clinical\.json: .*Write it with: fit --it"):
        read_clinical_model(file, command="fit --it")


def test_a_refused_case_leaves_nothing_behind() -> None:
    made = ClinicalModel(NAMES)
    p, label = case(0)
    for wrong in ((2 * p, label, SPACING), (p, label + 1, SPACING), (p, label, (1.0, 1.0))):
        with pytest.raises(ValueError, match=r"scan 1|voxel size"):
            made.update(*wrong, "a", "scan 1")
    assert not any(scores for part in (made.volumes, made.margins, made.sets) for scores in part._scores)
    assert made._cases == 0
    with pytest.raises(ValueError, match="no case to fit on"):
        made.fit()
    with pytest.raises(RuntimeError, match="call fit"):
        made.to_json()


def test_too_few_subjects_are_told_everywhere_and_still_give_numbers() -> None:
    made = ClinicalModel(NAMES)
    for seed in range(3):
        made.update(*case(seed), SPACING, str(seed))
        made.update_image(statistics(np.random.default_rng(seed)), 1, str(seed))
    with pytest.warns(TooFewSubjectsWarning) as told:
        made.fit()
    assert {str(warning.message).partition(":")[0] for warning in told} >= {*NAMES, "images like those of training"}
    said = made.apply(case(9)[0], SPACING, statistics(np.random.default_rng(9)))
    assert said.structures[0].volume.high_ml == float("inf")
    assert said.structures[0].volume.ml > 0
    assert said.structures[0].margin.in_words() == "no margin: held by 3 validation subjects, the promise needs 9"
    assert said.margins.all()
    assert said.sets.all()
    assert said.flag == "ok"  # the fixed limit holds where no threshold can be promised
    words = " ".join(made.in_words())
    assert "is not promised" in words
    assert "No image is called strange" in words
    json.dumps(made.to_json(), allow_nan=False)
