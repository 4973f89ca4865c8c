"""Cases kept as samples: exact counts, unbiased sums, fits near the exact ones, one pass of the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import drawn_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from monai_calib.metrics.scores import nll
from monai_calib.posthoc import (
    KeptCases,
    LogitCase,
    LogitStream,
    SigmoidStream,
    build_calibrator,
    calibrate,
    choose,
    fit,
)
from monai_calib.posthoc.distance import distance_in_boxes, distance_to_boundary
from monai_calib.posthoc.sample import SampledCase, sample_case

METHODS = ["temperature", "vector", "boundary_temperature", "boundary_vector", "isotonic", "classwise_temperature"]


def smooth_case(number: int, size: int = 30, classes: int = 3) -> LogitCase:
    """A blob with a sure background and inside, labels drawn from the logits over 2."""
    generator = torch.Generator().manual_seed(number)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 3, indexing="ij")
    radius = sum(axis**2 for axis in axes).sqrt()
    fields = [12 * (radius - 0.5), 12 * (0.5 - radius) + 6 * axes[0], 12 * (0.5 - radius) - 6 * axes[0]][:classes]
    logits = torch.stack(fields) + torch.randn(classes, size, size, size, generator=generator)
    label = torch.multinomial((logits / 2).flatten(1).softmax(0).T, 1, generator=generator)
    return LogitCase(f"case {number}", logits, label.reshape(size, size, size), spacing=(1.0, 1.0, 2.0))


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 5000), st.integers(0, 5), st.booleans())
def test_weights_count_every_voxel_and_memory_is_bounded(most: int, number: int, ignoring: bool) -> None:
    case = drawn_cases(1, size=10, seed=number)[0]
    if ignoring:
        label = case.label.clone()
        label[:3] = 9
        case = LogitCase("a", case.logits, label, spacing=case.spacing, ignore_index=9)
    sample = sample_case(case, most, ["union"], seed=number)
    assert sample.count("all") == case.count("all") == (700 if ignoring else 1000)
    assert len(sample.weight) <= most + 3
    wrong = int(((case.predicted != case.label) & case.mask("all")).sum())
    of_wrong = sample.weight[sample.predicted != sample.label]
    if most >= 4000:
        assert bool((sample.weight == 1).all())
        assert int(of_wrong.sum()) == wrong


@pytest.mark.parametrize("channels", [None, ["a", "b", "c"]])
def test_one_case_is_in_memory_at_a_time(channels: list[str] | None) -> None:
    images: list[weakref.ref[torch.Tensor]] = []

    def loader() -> Iterator[dict[str, torch.Tensor]]:
        for _ in range(3):
            assert all(image() is None for image in images), "the case before is still there"
            logits = torch.randn(1, 3, 16, 16, 16)
            images.append(weakref.ref(logits))
            label = torch.zeros(1, 1 if channels is None else 3, 16, 16, 16)
            batch = {"image": logits, "label": label}
            del logits, label
            yield batch
            del batch

    stream = LogitStream(nn.Identity(), loader())
    if channels is not None:
        stream = SigmoidStream(nn.Identity(), loader(), channels=channels)
    kept = KeptCases(stream, most_bytes=10_000)
    assert [len(case.label) < 16**3 for case in kept] == [True] * 3 * (1 if channels is None else 3)
    assert len(images) == 3


def test_a_sample_of_all_voxels_gives_the_same_fit() -> None:
    case = smooth_case(0)
    distances = KeptCases(LogitStream(nn.Identity(), []))._distances(case)
    whole = sample_case(case, 10**6, ["union", "dilated:2mm"], distances)
    assert isinstance(whole, SampledCase)
    assert torch.equal(whole.weight, torch.ones_like(whole.weight))
    for method in METHODS:
        region = "all" if method != "temperature" else "dilated:2mm"
        one, other = build_calibrator(method, 3, region), build_calibrator(method, 3, region)
        fit([one], [case])
        fit([other], [whole])
        for name, value in one.head.state_dict().items():
            torch.testing.assert_close(other.head.state_dict()[name], value, rtol=1e-5, atol=1e-5)
        assert one.record.voxels == other.record.voxels


def test_sums_are_unbiased() -> None:
    """Means over 200 samples of a tenth lie within four standard errors of the whole case's values."""
    case = smooth_case(1, 16)
    exact = case.histogram("all")
    samples = [sample_case(case, 400, seed=seed).histogram("all") for seed in range(200)]
    for measure in (
        nll,
        lambda hist: float(hist.bins(15).hits.sum()),
        lambda hist: float(hist.class_bins().confidence[1].sum()),
    ):
        found = torch.tensor([measure(sample) for sample in samples], dtype=torch.float64)
        error = float(found.std() / len(found) ** 0.5)
        assert abs(float(found.mean()) - measure(exact)) <= 4 * error + 1e-9
    assert {sample.voxels for sample in samples} == {16**3}


@pytest.mark.parametrize("method", METHODS)
def test_fits_from_a_tenth_of_the_voxels_are_near_the_exact_ones(method: str) -> None:
    cases = [smooth_case(number) for number in range(4)]
    share = cases[0].label.numel() // 10
    kept = KeptCases(LogitStream(nn.Identity(), []))
    samples = [sample_case(case, share, ["union"], kept._distances(case), seed=i) for i, case in enumerate(cases)]
    exact, sampled = build_calibrator(method, 3, "all"), build_calibrator(method, 3, "all")
    fit([exact], cases)
    fit([sampled], samples)
    before = after = best = 0.0
    for case in cases:
        before += nll(case.histogram("all"))
        best += nll(case.histogram("all", exact.apply_case(case)))
        after += nll(case.histogram("all", sampled.apply_case(case)))
    assert after - best < 0.03 * (before - best)


def test_kept_cases_are_samples_within_their_bytes_and_the_network_runs_once() -> None:
    cases = [smooth_case(number, 20) for number in range(3)]
    runs = []

    class Network(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            runs.append(1)
            return image

    loader = [
        {"image": c.logits[None], "label": c.label[None, None], "case": [c.name], "subject": [c.name]} for c in cases
    ]
    most = 3 * 20_000
    kept = KeptCases(LogitStream(Network(), loader, spacing=(1.0, 1.0, 2.0)), most, slice_axis=2)
    for _ in range(3):
        for case, whole in zip(kept, cases, strict=True):
            assert isinstance(case, SampledCase)
            assert case.name == whole.name
            assert case.count("all") == 8000
            assert case.distances is not None
            assert case.distances.spacing == (1.0, 1.0)
    assert kept.bytes <= most
    assert (len(runs), kept.sampled) == (3, 3)
    choice = choose(kept, 3, slice_axis=2)
    assert len(runs) == 3
    assert choice.held[choice.chosen].mean("nll") < choice.held["none"].mean("nll")
    assert choice.held["none"].nll[0] == pytest.approx(nll(cases[0].histogram("all")), rel=0.2)


def test_distances_of_a_sample_are_those_of_the_volume_or_of_its_slices() -> None:
    case = smooth_case(2, 14)
    for axis in (None, 2):
        kept = KeptCases(LogitStream(nn.Identity(), []), slice_axis=axis)
        found = kept._distances(case)
        assert found is not None
        if axis is None:
            expected = case.distance(3, case.spacing or (), 8.0)
        else:
            slices = [
                LogitCase("s", case.logits[..., i], case.label[..., i]).distance(3, (1.0, 1.0), 8.0) for i in range(14)
            ]
            expected = torch.stack(slices, 2)
        torch.testing.assert_close(found.values, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([(1.0, 1.0, 1.0), (0.7, 1.3, 3.0)]))
def test_distances_in_boxes_are_those_of_all_classes_together(
    seed: int, classes: int, spacing: tuple[float, ...]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rough = torch.nn.functional.avg_pool3d(torch.randn(1, classes, 13, 11, 7, generator=generator), 3, 1, 1)
    predicted = rough[0].argmax(0)
    for reach in (2.0, 8.0):
        expected = distance_to_boundary(predicted[None], classes, list(spacing), reach)[0]
        torch.testing.assert_close(
            distance_in_boxes(predicted, classes, spacing, reach), expected, rtol=1e-6, atol=1e-6
        )


def test_a_region_or_reach_that_was_not_kept_is_named() -> None:
    sample = sample_case(smooth_case(3, 10), 200)
    with pytest.raises(ValueError, match=r"case 3: a sample keeps masks of regions none, not of boundary:2mm"):
        sample.mask("boundary:2mm")
    with pytest.raises(ValueError, match=r"case 3: the sample holds no distances up to 8 mm"):
        sample.distance(3, (1.0, 1.0, 2.0), 8.0)


def test_calibrate_samples_what_does_not_fit_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = [smooth_case(number, 16) for number in range(9)]
    network = nn.Conv3d(3, 3, 1)
    with torch.no_grad():
        network.weight.copy_(torch.eye(3).reshape(3, 3, 1, 1, 1))
        network.bias.zero_()
    loader: list[dict[str, Any]] = [
        {"image": c.logits[None], "label": c.label[None, None], "subject": [c.name]} for c in cases
    ]
    with caplog.at_level("INFO"):
        result = calibrate(
            network, loader, num_classes=3, models_dir=tmp_path / "models", output_dir=tmp_path, spacing=(1, 1, 2),
            most_bytes=9 * 20_000,
        )  # fmt: skip
    assert "9 of 9 cases kept as samples" in caplog.text
    record = json.loads((tmp_path / "models" / "calibration_parameters.json").read_text())
    assert record["sampled_cases"] == 9
    assert record["fit"]["voxels"] == 9 * 16**3, "weights stand for all voxels"
    assert set(result.evaluated) == {"as_trained", record["method"]}


def test_the_folder_of_a_killed_calibration_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("monai_calib-dead", "monai_calib-new", "monai_calib-no_lock"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0_logits.npy").write_bytes(b"")
    for name in ("dead", "new"):
        (tmp_path / f"monai_calib-{name}" / ".lock").touch()
    os.utime(tmp_path / "monai_calib-dead" / ".lock", (0, 0))
    loader = [{"image": torch.zeros(1, 1, 4, 4), "label": torch.zeros(1, 1, 4, 4)}]
    kept = KeptCases(LogitStream(torch.nn.Conv2d(1, 3, 1), loader))
    other = subprocess.run(
        [sys.executable, "-c", "from monai_calib.posthoc.kept import KeptCases; KeptCases(None)"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=True,
    )
    assert other.returncode == 0
    assert len(list(kept)) == 1
    left = {path.name for path in tmp_path.iterdir()} - {kept._folder.name}
    assert left == {"monai_calib-new", "monai_calib-no_lock"}
    del kept
    assert {path.name for path in tmp_path.iterdir()} == left
