"""CalibrationHistogram: exact, equal to independent implementations, and the same by either path."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import CalibrationErrorMetric
from netcal.metrics import ECE
from torchmetrics.functional.classification import multiclass_calibration_error

from monai_calib.files import FileError
from monai_calib.metrics import CalibrationHistogram, ace, adaptive_ece, brier, classwise_ece, ece, mce, nll
from monai_calib.metrics.inputs import flatten_inputs
from monai_calib.metrics.sums import Sums, add_flat

REFERENCE = Path(__file__).parents[1] / "reference"
CASES = ["case_2d_2classes", "case_2d_4classes", "case_3d_4classes"]


def sample(classes: int = 4, voxels: int = 5000, batch: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits from near 0 to saturated, and labels that follow them about half the time."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.logspace(-1, 1.5, voxels)
    logits = torch.randn(batch, classes, voxels, generator=generator) * spread
    label = torch.randint(0, classes, (batch, 1, voxels), generator=generator)
    follow = torch.rand(batch, 1, voxels, generator=generator) < 0.5
    return logits, torch.where(follow, logits.argmax(1, keepdim=True), label)


def filled(prediction: Any, label: Any, classes: int = 4, **options: Any) -> CalibrationHistogram:
    settings = {k: options.pop(k) for k in ("activation", "ignore_index", "strict", "num_bins") if k in options}
    hist = CalibrationHistogram(classes, **settings)
    hist.update(prediction, label, **options)
    return hist


def assert_same(a: CalibrationHistogram, b: CalibrationHistogram) -> None:
    for name, value in a.sums.tensors().items():
        if name == "scores":
            torch.testing.assert_close(value, b.sums.scores, rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(value, getattr(b.sums, name)), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("region", ["all", "foreground"])
def test_reference_vectors(case: str, region: str) -> None:
    arrays = np.load(REFERENCE / f"{case}.npz")
    expected = json.loads((REFERENCE / f"{case}.json").read_text())["metrics_per_case"]["cases"]
    logits, label = torch.from_numpy(arrays["logits"]), torch.from_numpy(arrays["label"])
    for i, reference in enumerate(expected):
        mask = None if region == "all" else label[i : i + 1] > 0
        hist = filled(logits[i : i + 1], label[i : i + 1], logits.shape[1], mask=mask)
        figures = reference[region]
        assert hist.voxels == figures["voxels"]
        assert ece(hist) == pytest.approx(figures["ece"], abs=1e-6)
        assert classwise_ece(hist, absent="paper") == pytest.approx(figures["classwise_ece"], abs=1e-6)
        assert nll(hist) == pytest.approx(figures["nll"], abs=1e-6)
        assert adaptive_ece(hist) == pytest.approx(figures["adaptive_ece"], abs=5e-3)


@pytest.mark.parametrize("num_bins", [10, 15, 20])
def test_top_label_ece_is_that_of_torchmetrics_and_netcal(num_bins: int) -> None:
    logits, label = sample()
    hist = filled(logits, label)
    probabilities = logits.softmax(1).movedim(1, -1).reshape(-1, 4)
    theirs = multiclass_calibration_error(probabilities, label.reshape(-1), num_classes=4, n_bins=num_bins, norm="l1")
    assert ece(hist, num_bins) == pytest.approx(float(theirs), abs=1e-6)
    theirs = ECE(num_bins).measure(probabilities.numpy(), label.reshape(-1).numpy())
    assert ece(hist, num_bins) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("num_bins", [15, 20])
def test_classwise_ece_is_that_of_monai_below_its_limit(num_bins: int) -> None:
    logits, label = sample(batch=1)
    metric = CalibrationErrorMetric(num_bins=num_bins, include_background=True, calibration_reduction="expected")
    one_hot = torch.nn.functional.one_hot(label[:, 0], 4).movedim(-1, 1)
    metric(y_pred=logits.softmax(1), y=one_hot)
    hist = filled(logits, label)
    assert classwise_ece(hist, num_bins, absent="count") == pytest.approx(float(metric.aggregate()), abs=1e-6)


@pytest.mark.parametrize(("reduction", "figure"), [("average", ace), ("maximum", mce)])
def test_ace_and_mce_of_the_classes_are_those_of_monai(reduction: str, figure: Callable[..., float]) -> None:
    logits, label = sample(batch=1)
    metric = CalibrationErrorMetric(num_bins=20, include_background=False, calibration_reduction=reduction)
    metric(y_pred=logits.softmax(1), y=torch.nn.functional.one_hot(label[:, 0], 4).movedim(-1, 1))
    hist = filled(logits, label)
    ours = sum(figure(hist, 20, k) for k in range(1, 4)) / 3
    assert ours == pytest.approx(float(metric.aggregate()), abs=1e-6)


@pytest.mark.slow
def test_forty_million_calibrated_voxels_are_calibrated() -> None:
    voxels, positives = 40_000_000, 400_000
    prediction = torch.empty(1, 2, voxels)
    prediction[0, 0], prediction[0, 1] = 0.99, 0.01
    label = torch.zeros(1, voxels, dtype=torch.uint8)
    label[0, :positives] = 1
    hist = filled(prediction, label, 2, from_logits=False)
    assert hist.voxels == voxels
    assert hist.class_voxels().tolist() == [voxels - positives, positives]
    assert ece(hist) < 1e-6
    assert classwise_ece(hist) < 1e-6
    bins = hist.bins(15, 1)
    assert (int(bins.count[0]), int(bins.hits[0])) == (voxels, positives)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("classes", [2, 3, 14])
@pytest.mark.parametrize("voxels", [1, 5, 1023, 40_001])
def test_compiled_and_plain_path_agree(from_logits: bool, classes: int, voxels: int) -> None:
    prediction, label = sample(classes, voxels, 1)
    mask = torch.rand(1, voxels) < 0.7
    prediction = prediction if from_logits else prediction.softmax(1)
    compiled = CalibrationHistogram(classes, ignore_index=1, strict=False)
    compiled.update(prediction, label, mask, from_logits)
    flat = flatten_inputs(prediction, label, mask, classes, "softmax")
    plain = CalibrationHistogram(classes, ignore_index=1, strict=False)
    add_flat(plain.sums, flat, 960, "softmax", from_logits, 1)
    if from_logits:  # the exponentials differ in their last bits, so that a voxel may change the bin
        moved = (compiled.sums.count - plain.sums.count).abs().sum()
        assert moved <= max(2, 1e-4 * plain.sums.count.sum())
        assert torch.equal(compiled.sums.count.sum(1), plain.sums.count.sum(1))
        torch.testing.assert_close(compiled.sums.confidence.sum(1), plain.sums.confidence.sum(1), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(compiled.sums.scores, plain.sums.scores, rtol=1e-6, atol=1e-6)
    else:
        assert_same(compiled, plain)
        assert torch.equal(compiled.sums.confidence, plain.sums.confidence)


def test_exact_edges_by_the_compiled_path() -> None:
    p = torch.cat([torch.linspace(0, 1, 31), torch.tensor([1 / 3, 2 / 3, 0.6, 1e-3])])
    prediction = torch.stack([p, 1 - p])[None]
    hist = filled(prediction, torch.zeros(1, len(p)), 2, from_logits=False)
    edges = torch.linspace(0, 1, 16)
    expected = torch.bucketize(p, edges[1:-1]).bincount(minlength=15)
    assert torch.equal(hist.bins(15, 0).count, expected)


def test_ties_go_to_the_first_class() -> None:
    hist = filled(torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2, 0]]), 3)
    assert int(hist.bins(15).hits.sum()) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_count_the_same(dtype: torch.dtype) -> None:
    logits, label = sample()
    logits = logits.to(dtype)
    assert_same(filled(logits, label), filled(logits.float(), label))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64])
def test_label_forms_count_the_same(dtype: torch.dtype) -> None:
    logits, label = sample()
    expected = filled(logits, label)
    one_hot = torch.nn.functional.one_hot(label[:, 0], 4).movedim(-1, 1)
    for form in (label, label[:, 0], one_hot):
        assert_same(filled(logits, form.to(dtype)), expected)


def test_layouts_and_containers_count_the_same(tmp_path: Path) -> None:
    logits, label = sample(voxels=4 * 5 * 6)
    logits, label = logits.reshape(2, 4, 4, 5, 6), label.reshape(2, 1, 4, 5, 6)
    expected = filled(logits, label)
    array = np.memmap(tmp_path / "logits.raw", np.float32, "w+", shape=tuple(logits.shape))
    array[:] = logits.numpy()
    array.flush()
    read_only = np.memmap(tmp_path / "logits.raw", np.float32, "r", shape=tuple(logits.shape))
    channels_last = logits.contiguous(memory_format=torch.channels_last_3d)
    for prediction in (MetaTensor(logits), read_only, channels_last, logits.requires_grad_()):
        assert_same(filled(prediction, label.numpy() if prediction is read_only else label), expected)


def test_under_autocast() -> None:
    logits, label = sample()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(filled(logits, label), filled(logits, label))
        sigmoid = filled(logits, (logits > 0).float(), activation="sigmoid")
    assert sigmoid.sums.confidence.dtype == torch.float64
    assert_same(sigmoid, filled(logits, (logits > 0).float(), activation="sigmoid"))


def test_mask_and_ignore_index_leave_out() -> None:
    logits, label = sample(batch=1)
    mask = torch.arange(5000)[None] % 3 == 0
    some = mask[0]
    assert_same(filled(logits, label, mask=mask.float()), filled(logits[..., some], label[..., some]))
    kept = label[0, 0] != 2
    ignoring = filled(logits, label, ignore_index=2)
    assert_same(ignoring, filled(logits[..., kept], label[..., kept]))
    unlabelled = torch.where(label == 2, 255, label).to(torch.uint8)
    assert_same(filled(logits, unlabelled, ignore_index=255), ignoring)


def test_wrong_voxels_outside_the_mask_are_no_error() -> None:
    logits, label = sample(batch=1)
    mask = torch.arange(5000)[None] >= 10
    spoilt, bad = logits.clone(), label.clone()
    spoilt[..., :5], bad[..., 5:10] = math.nan, 77
    assert_same(filled(spoilt, bad, mask=mask), filled(logits, label, mask=mask))


def test_sigmoid_against_plain_sums() -> None:
    logits, _ = sample(3, 2000, 1)
    label = (torch.rand(1, 3, 2000, generator=torch.Generator().manual_seed(5)) < logits.sigmoid()).float()
    hist = filled(logits, label, 3, activation="sigmoid")
    p = logits.double().sigmoid()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), label.double(), reduction="sum")
    assert nll(hist) == pytest.approx(float(expected) / 2000, rel=1e-6)
    assert brier(hist) == pytest.approx(float((p - label).square().sum()) / 2000, rel=1e-5)
    for k in range(3):
        bins = hist.bins(15, k)
        index = torch.bucketize(logits.sigmoid()[0, k], torch.linspace(0, 1, 16)[1:-1])
        assert torch.equal(bins.count, index.bincount(minlength=15))
        assert torch.equal(bins.hits, index[label[0, k] == 1].bincount(minlength=15))
    with pytest.raises(ValueError, match="no top label"):
        ece(hist)
    assert_same(filled(logits.sigmoid(), label, 3, activation="sigmoid", from_logits=False), hist)


def test_single_channel_sigmoid_takes_its_label() -> None:
    hist = filled(torch.zeros(1, 1, 4), torch.tensor([[[0.0, 1, 1, 0]]]), 1, activation="sigmoid")
    assert nll(hist) == pytest.approx(math.log(2))


def test_brier_and_nll_against_float64() -> None:
    logits, label = sample()
    hist = filled(logits, label)
    expected = torch.nn.functional.cross_entropy(logits.double(), label[:, 0])
    assert nll(hist) == pytest.approx(float(expected), rel=1e-6)
    one_hot = torch.nn.functional.one_hot(label[:, 0], 4).movedim(-1, 1)
    assert brier(hist) == pytest.approx(float((logits.double().softmax(1) - one_hot).square().sum(1).mean()), rel=1e-6)


def test_zero_probability_of_the_truth_is_floored_and_told() -> None:
    prediction = torch.tensor([[[1.0, 0.5], [0.0, 0.5]]])
    hist = filled(prediction, torch.tensor([[1, 0]]), 2, from_logits=False)
    assert nll(hist) == pytest.approx((-math.log(torch.finfo(torch.float32).tiny) + math.log(2)) / 2)
    assert "1 zero likelihood" in hist.describe()


def test_state_survives_torch_save_and_npz(tmp_path: Path) -> None:
    hist = filled(*sample(), ignore_index=3)
    buffer = io.BytesIO()
    torch.save(hist.state_dict(), buffer)
    buffer.seek(0)
    loaded = CalibrationHistogram.from_state(torch.load(buffer, weights_only=True))
    hist.to_npz(tmp_path / "hist.npz")
    for other in (loaded, CalibrationHistogram.from_npz(tmp_path / "hist.npz")):
        assert_same(hist, other)
        assert torch.equal(hist.sums.scores, other.sums.scores)
        assert (other.ignore_index, other.updates) == (3, 1)
    hist.update(*sample(seed=1))
    assert hist.voxels != loaded.voxels  # a state is a copy


def test_histograms_of_other_settings_do_not_mix() -> None:
    hist = filled(*sample())
    for other in (CalibrationHistogram(5), CalibrationHistogram(4, num_bins=480)):
        with pytest.raises(ValueError, match="expected a histogram with"):
            hist.merge(other)
        with pytest.raises(ValueError, match="expected a histogram with"):
            hist.load_state_dict(other.state_dict())


@pytest.mark.parametrize(
    "change",
    [
        {"settings": np.array("{}")},
        {"settings": np.array('{"format": "monai_calib/histogram/3", "num_classes": 1000000000, "num_bins": 960}')},
        {"settings": np.array('{"format": "monai_calib/histogram/3", "num_classes": 4, "num_bins": 1e999}')},
        {"count": np.zeros(3)},
        {"hits": np.array([{}])},
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    filled(*sample()).to_npz(tmp_path / "hist.npz")
    with np.load(tmp_path / "hist.npz") as saved:
        arrays = {**saved, **change}
    np.savez(tmp_path / "hist.npz", **arrays)
    with pytest.raises(FileError, match=r"hist\.npz: expected a histogram"):
        CalibrationHistogram.from_npz(tmp_path / "hist.npz")


def test_reset_forgets_and_all_reduce_alone_does_nothing() -> None:
    hist = filled(*sample())
    before = hist.state_dict()
    hist.all_reduce()
    assert torch.equal(before["count"], hist.sums.count)
    hist.reset()
    assert_same(hist, CalibrationHistogram(4))


def test_sums_have_one_row_a_class_and_one_for_the_top_label() -> None:
    assert CalibrationHistogram(4).sums.count.shape == (5, 1008)
    assert CalibrationHistogram(4, activation="sigmoid").sums.count.shape == (4, 1008)
    assert Sums.zeros(2, 3).count.dtype == torch.int64
