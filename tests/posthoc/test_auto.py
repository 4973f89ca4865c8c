"""A correction is chosen on held-out subjects, and never one that makes the network worse there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import draw, drawn_cases
from torch import nn

from monai_calib.posthoc import (
    Calibrator,
    KeptCases,
    LogitCase,
    LogitStream,
    RefusedCorrectionError,
    calibrate,
    calibrated_model,
    choose,
    fit,
    posthoc_settings,
)
from monai_calib.posthoc.auto import Candidate, Held, degenerate, judge, standard_error

LITTLE = [
    Candidate("none", "none", None, {}, 0),
    Candidate("temperature", "temperature", "all", {}, 1),
    Candidate("vector", "vector", "all", {}, 6),
]


def over_confident(count: int, temperature: float = 3.0) -> list[LogitCase]:
    return drawn_cases(count, size=10, temperature=temperature)


def test_an_over_confident_network_gets_a_temperature_and_a_calibrated_one_gets_nothing() -> None:
    choice = choose(over_confident(10), 3, LITTLE)
    assert choice.chosen == "temperature"
    assert choice.subjects == choice.cases == 10
    assert choice.held["temperature"].mean("nll") < choice.held["none"].mean("nll")
    assert not choice.guards["temperature"]
    assert choose(over_confident(10, temperature=1.0), 3, LITTLE).chosen == "none"


def test_figures_of_a_case_are_those_of_a_correction_fitted_without_its_subject() -> None:
    cases = over_confident(8)
    for number, case in enumerate(cases):
        case.subject = f"subject {number // 2}"  # pairs, as left and right of one patient
    choice = choose(cases, 3, LITTLE[:2])
    assert choice.folds == 4
    for fold in range(4):
        calibrator = LITTLE[1].build(3)
        fit([calibrator], [case for case in cases if case.subject != f"subject {fold}"])
        for number in (2 * fold, 2 * fold + 1):
            case = cases[number]
            expected = nn.functional.cross_entropy(calibrator.apply(case.logits[None]).double(), case.label[None])
            assert choice.held["temperature"].nll[number] == pytest.approx(float(expected), rel=1e-5)


def test_few_subjects_allow_few_numbers_and_a_single_case_allows_none() -> None:
    few = choose(over_confident(5), 3, LITTLE)
    assert set(few.held) == {"none", "temperature"}
    assert "5 subjects" in few.dropped["vector"]
    two = choose([replace(case, subject="ab"[i % 2]) for i, case in enumerate(over_confident(4))], 3)
    assert set(two.held) == {"none", "temperature"}
    assert "proves nothing about new ones" in two.why
    alone = choose(over_confident(1), 3)
    assert (alone.chosen, alone.why) == ("none", "a single case decides nothing")
    with pytest.raises(ValueError, match="no case"):
        choose([], 3)


def test_the_simplest_within_one_standard_error_is_chosen() -> None:
    """A vector can do all that a temperature can; its gain is noise where a temperature is the truth."""
    choice = choose(over_confident(12), 3, LITTLE)
    none, temperature, vector = (choice.held[name] for name in ("none", "temperature", "vector"))
    groups = [str(i) for i in range(12)]
    gain = temperature.mean("nll") - vector.mean("nll")
    assert gain <= standard_error(vector.nll, temperature.nll, groups)
    assert none.mean("nll") - temperature.mean("nll") > standard_error(none.nll, temperature.nll, groups)
    assert choice.chosen == "temperature"


def test_guards_tell_what_gets_worse() -> None:
    groups = ["a", "b", "c"]
    good = Held([0.1, 0.2, 0.3], [0.02] * 3, [0.1, 0.2, 0.3], [0.0] * 3)
    assert judge(good, good, groups) == []
    worse = Held([0.2, 0.3, 0.4], [0.03] * 3, [0.3, 0.5, 0.6], [0.02] * 3)
    told = judge(good, worse, groups)
    assert [sentence.split(" rises")[0] for sentence in told[:3]] == [
        "negative log-likelihood of the whole volume",
        "ECE of the whole volume",
        "error of the expected volume",
    ]
    assert told[3] == "2 % of the foreground's labels change"
    noisy = replace(good, volume_error=[0.9, 0.1, 0.1])  # a rise by one case is within its standard error
    assert judge(good, noisy, groups) == []


def test_a_region_narrower_than_two_voxels_is_degenerate() -> None:
    coarse = [replace(case, spacing=(4.0, 4.0, 4.0)) for case in over_confident(2)]

    def told(region: str | None, cases: list[LogitCase]) -> str | None:
        return degenerate(Candidate("temperature", "temperature", region, {}, 1).build(3), cases)

    narrow = told("boundary:2mm", coarse)
    assert narrow is not None
    assert "0.5 voxels wide" in narrow
    assert told("boundary:2mm", over_confident(2)) is None
    assert told("boundary:1vx", over_confident(2)) is not None
    assert told("all", coarse) is None
    assert told(None, [sparse(case) for case in coarse]) is None, "the default is at least two voxels wide"


def test_a_dilated_region_that_is_the_union_is_degenerate() -> None:
    full = [replace(case, label=torch.ones_like(case.label)) for case in over_confident(2)]
    region = Candidate("temperature", "temperature", "dilated:3mm", {}, 1).build(3)
    assert degenerate(region, full) == "region dilated:3mm is the union itself on every case; take region 'all'"
    assert degenerate(region, [*full, sparse(full[0])]) is None


def sparse(case: LogitCase) -> LogitCase:
    """One voxel of foreground, in the truth and in the prediction."""
    logits, label = torch.zeros_like(case.logits), torch.zeros_like(case.label)
    logits[0], label[5, 5, 5] = 1.0, 1
    logits[1, 5, 5, 5] = 3.0
    return replace(case, logits=logits, label=label)


class Logits(nn.Module):
    """A network whose input is its logits, times a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv3d(3, 3, 1, bias=True)
        with torch.no_grad():
            self.scale.weight.copy_(torch.eye(3).view(3, 3, 1, 1, 1))
            self.scale.bias.zero_()
        self.runs = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self.scale(image)


def batches(count: int, temperature: float) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for i in range(count):
        logits = 3 * torch.randn(3, 8, 8, 8, generator=generator)
        label = draw(logits / temperature, generator)
        found.append({"image": logits[None], "label": label[None, None].to(torch.uint8), "subject": [f"s{i}"]})
    return found


def run(folder: Path, network: nn.Module, loader: list[dict[str, Any]], **arguments: Any) -> Any:
    return calibrate(
        network, loader, num_classes=3, models_dir=folder / "models", output_dir=folder / "eval", spacing=(1, 1, 1),
        **arguments,
    )  # fmt: skip


def test_auto_writes_a_record_of_every_candidate_and_runs_the_network_once_a_case(tmp_path: Path) -> None:
    network = Logits()
    run(tmp_path, network, batches(9, 3.0))
    record = json.loads((tmp_path / "models" / "calibration_parameters.json").read_text())
    assert record["asked"] == "auto"
    assert set(record["choice"]["candidates"]) == {
        *("none", "temperature", "boundary_temperature_2", "boundary_temperature", "vector", "isotonic"),
    }
    assert record["choice"]["chosen"].startswith(record["method"])
    assert posthoc_settings(tmp_path / "models")["posthoc"] == record["method"] != "none"
    candidates = record["choice"]["candidates"]
    assert candidates[record["choice"]["chosen"]]["nll"] < candidates["none"]["nll"]
    assert network.runs <= 9 + 4, "beside the cases: folding looks at an example"


def test_where_none_wins_the_model_is_the_unchanged_network_with_a_record(tmp_path: Path) -> None:
    network = Logits()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run(tmp_path, network, batches(9, 1.0))
    models = tmp_path / "models"
    told = posthoc_settings(models)
    assert (told["posthoc"], told["posthoc_region"]) == ("none", "all")
    assert (told["correction"]["cases"], told["correction"]["in_words"]) == (9, "the network as trained")
    saved = torch.load(calibrated_model(models), weights_only=True)
    assert saved.keys() == before.keys()
    assert all(torch.equal(saved[name], before[name]) for name in before)
    logits = torch.randn(1, 3, 4, 4, 4)
    record = json.loads((models / "calibration_parameters.json").read_text())
    assert torch.equal(Calibrator.from_json(record).apply(logits), logits)


def test_a_named_method_that_makes_it_worse_is_refused_and_writes_nothing_unless_forced(tmp_path: Path) -> None:
    loader = batches(4, 1.0)  # calibrated, but the region holds mistakes only
    for batch in loader:
        batch["wrong"] = (batch["image"].argmax(1, keepdim=True) != batch["label"]).to(torch.uint8)
    with pytest.raises(RefusedCorrectionError, match=r"temperature makes .* worse .*rises from .*--force True"):
        run(tmp_path, Logits(), loader, method="temperature", region="mask:wrong")
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "eval").exists()
    run(tmp_path, Logits(), loader, method="temperature", region="mask:wrong", force=True)
    record = json.loads((tmp_path / "models" / "calibration_parameters.json").read_text())
    assert any("log-likelihood" in sentence for sentence in record["guards"])


def test_auto_takes_no_region() -> None:
    with pytest.raises(ValueError, match="name a method"):
        run(Path("nowhere"), Logits(), [], region="all")


@pytest.mark.parametrize("most_bytes", [0, 40_000, 2**30])
def test_kept_whole_cases_are_those_of_the_stream_whatever_fits(most_bytes: int) -> None:
    """With images no samples are kept: the network runs again for what did not fit into its share."""
    loader = batches(4, 2.0)
    loader[1]["label"][..., 0] = 255
    network = Logits()
    stream = LogitStream(network, loader, ignore_index=255, spacing=(1, 1, 1))
    expected = list(stream)
    kept = KeptCases(stream, most_bytes, with_images=True)
    network.runs = 0
    for _ in range(3):
        for case, other in zip(kept, expected, strict=True):
            assert (case.name, case.subject, case.spacing) == (other.name, other.subject, other.spacing)
            assert torch.equal(case.logits, other.logits)
            for region in ("all", "boundary:2mm", "union"):
                assert torch.equal(case.mask(region), other.mask(region))
    assert kept.bytes <= most_bytes
    first = expected[0]
    assert first.image is not None
    size = 4 * first.logits.numel() + 4 * first.image.numel() + 2 * first.label.numel()
    fitting = 0
    for number in range(4):  # each has an equal share of what the former left
        fitting += size <= (most_bytes - fitting * size) // (4 - number)
    assert kept.bytes == fitting * size
    assert network.runs == 4 + 2 * (4 - fitting)
