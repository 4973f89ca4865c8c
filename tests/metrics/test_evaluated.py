"""The evaluated folder: what is written is read, to the bit; what is damaged is named, before anything is allocated."""

from __future__ import annotations

import json
import math
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_calib.files import FileError
from monai_calib.metrics import CalibrationHistogram, EvaluatedWriter, Metric, Protocol, read_evaluated
from monai_calib.metrics.case_table import CaseTable

PROTOCOL = Protocol("mine", ["all", "boundary:2mm"], ["ece", "classwise_ece"], reductions=["macro", "micro"])
CLASSES = ["background", "a", "b"]


def some_histogram(seed: int = 1, voxels: int = 3000, soft: bool = False, **arguments: Any) -> CalibrationHistogram:
    generator = torch.Generator().manual_seed(seed)
    hist = CalibrationHistogram(3, **arguments)
    label = torch.randint(0, 3, (1, voxels), generator=generator)
    if soft or arguments.get("activation") == "sigmoid":
        label = torch.rand(1, 3, voxels, generator=generator)
        label = label / label.sum(1, keepdim=True) if soft else label.round()
    hist.update(3 * torch.randn(1, 3, voxels, generator=generator), label)
    return hist


def again(hist: CalibrationHistogram) -> CalibrationHistogram:
    return CaseTable.pack(
        {"all": some_histogram(9, **{k: v for k, v in hist.settings().items() if k != "num_classes"}), "it": hist}
    ).unpack(1)


def assert_same(one: CalibrationHistogram, other: CalibrationHistogram) -> None:
    assert one.updates == other.updates
    assert one.settings() == other.settings()
    for name, value in one.sums.tensors().items():
        assert torch.equal(value, other.sums.tensors()[name]), name


def write(folder: Path, cases: int = 3) -> Path:
    writer = EvaluatedWriter(folder, CLASSES, [PROTOCOL], run={"seed": 1})
    for i in range(cases):
        values = {"ece_all_15bins": 0.1 * i, "classwise_ece_all_15bins": [0.1, math.nan, 0.2], "odd": math.inf}
        hists = {"all": some_histogram(i), "boundary2mm": some_histogram(10 + i, 50)}
        writer.add(f"case_{i}", values, hists, subject=f"subject_{i // 2}", spacing=(1.0, 2.0))
    dice = Metric("mean_dice", "dice", per="class", classes=("a", "b"), label="DSC", direction=1)
    writer.close({"ece_all_15bins_macro": math.nan}, [dice], {"mean_dice": [[0.5, 1.0]] * cases})
    return folder


def test_what_is_written_is_read(tmp_path: Path) -> None:
    evaluated = read_evaluated(write(tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["calibration.json", "calibration.npz"]
    assert (evaluated.run, evaluated.classes, evaluated.regions) == (
        {"seed": 1},
        tuple(CLASSES),
        ("all", "boundary2mm"),
    )
    assert evaluated.protocols == {"mine": PROTOCOL}
    assert [case.subject for case in evaluated.cases] == ["subject_0", "subject_0", "subject_1"]
    assert evaluated.values("ece_all_15bins").tolist() == [0.0, 0.1, 0.2]
    assert evaluated.values("classwise_ece_all_15bins").tolist() == pytest.approx([0.15] * 3)
    assert evaluated.class_values("mean_dice").tolist() == [[0.5, 1.0]] * 3
    assert evaluated.values("odd").tolist() == [math.inf] * 3
    assert math.isnan(evaluated.summary["ece_all_15bins_macro"])
    assert evaluated.metrics["ece_all_15bins_macro"].reduction == "macro"
    assert "ece_boundary2mm_15bins_micro" not in evaluated.metrics  # what nobody measured is not described
    for i, hist in enumerate(evaluated.histograms("boundary2mm")):
        assert_same(hist, some_histogram(10 + i, 50))
    assert evaluated.bins("all", 30).shape == (3, 4, 3, 30)
    assert evaluated.bins("all", 30)[1, 3, 0].tolist() == some_histogram(1).bins(30).count.tolist()
    for region, table in evaluated.all_bins(15).items():
        for i, hist in enumerate(evaluated.histograms(region)):
            expected = np.concatenate([torch.stack(hist.class_bins(15)[1:], 1), torch.stack(hist.bins(15)[1:])[None]])
            assert table[i] == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match="expected a divisor"):
        evaluated.bins("all", 7)
    with pytest.raises(KeyError, match="no histograms of region 'union'"):
        next(evaluated.histograms("union"))


def test_plain_numpy_reads_it(tmp_path: Path) -> None:
    """The lines of the module's docstring."""
    npz = np.load(write(tmp_path) / "calibration.npz")
    regions, rows, lower = npz["regions"], int(npz["rows"]), npz["lower"]
    steps, count, hits, above = npz["case_0"][:4].astype("int64")
    place = steps.cumsum()
    confidence = count * lower[place % len(lower)] + above * 2.0**-30
    hist = some_histogram(0)
    for values, expected in ((count, hist.sums.count), (hits, hist.sums.hits), (confidence, hist.sums.confidence)):
        table = np.zeros((len(regions), rows, len(lower)))
        table.flat[place] = values
        assert table[0] == pytest.approx(expected.double().numpy(), abs=1e-12)
    assert list(npz["cases"]) == ["case_0", "case_1", "case_2"]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    voxels=st.integers(0, 500),
    num_bins=st.sampled_from([60, 960]),
    kind=st.sampled_from(["softmax", "sigmoid", "soft"]),
)
def test_a_histogram_comes_back_to_the_bit(seed: int, voxels: int, num_bins: int, kind: str) -> None:
    activation = "sigmoid" if kind == "sigmoid" else "softmax"
    hist = some_histogram(seed, voxels, kind == "soft", num_bins=num_bins, activation=activation, ignore_index=7)
    assert_same(hist, again(hist))


@pytest.mark.parametrize("factor", [3 * 10**5, 10**7])
def test_sums_too_large_for_exact_arithmetic_come_back_to_the_bit(factor: int) -> None:
    """Above 2^23 voxels a bin confidences are rounded, above 2^33 they are no int64 in units of 2^-30."""
    hist = some_histogram()
    hist.sums.count *= factor
    hist.sums.hits *= factor
    hist.sums.confidence *= factor / 3 * 3.000000001
    assert_same(hist, again(hist))


def test_a_single_huge_bin_comes_back_to_the_bit() -> None:
    hist = some_histogram()
    hist.sums.count[0, 0] += 2**40
    hist.sums.confidence[0, 0] += 2.0**25
    assert_same(hist, again(hist))


def test_infinite_scores_come_back() -> None:
    hist = some_histogram()
    hist.sums.scores[0] = torch.inf
    assert_same(hist, again(hist))


def test_a_case_takes_few_bytes(tmp_path: Path) -> None:
    """24 bytes for each of 4032 bins before compression; three quarters of them hold a voxel here."""
    writer = EvaluatedWriter(tmp_path, CLASSES, [PROTOCOL])
    for i in range(10):
        writer.add(f"{i}", {}, {"all": some_histogram(i)})
    writer.close({})
    assert (tmp_path / "calibration.npz").stat().st_size / 10 < 20_000


def test_a_case_keeps_little_memory(tmp_path: Path) -> None:
    """Nine classes have some 560 figures a case: 8 bytes each, not the 32 of a number of Python in its place."""
    writer = EvaluatedWriter(tmp_path, CLASSES, [PROTOCOL])
    table = CaseTable.pack({"all": some_histogram(1, 50)})
    random = np.random.default_rng(0)

    def add(cases: range) -> int:
        for i in cases:
            values = {f"metric_{k}": random.random(9).tolist() for k in range(60)}
            writer.add_table(table, f"case_{i}", values | {"single": 0.5}, "someone", (1.0, 1.0, 1.0))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first = add(range(50))
        assert (add(range(50, 150)) - first) / 100 < 8_000  # of them 541 * 8 = 4.3 kB numbers
    finally:
        tracemalloc.stop()
        writer.abort()


def test_a_former_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text('{"format": "monai_calib/calibration/1", "cases": []}')
    with pytest.raises(FileError, match=r"calibration.json: written by an older monai_calib.*Evaluate the run again"):
        read_evaluated(tmp_path)


def test_histograms_of_another_evaluation_are_refused(tmp_path: Path) -> None:
    """As after a kill between the renames of the two files: the names agree, the values do not."""
    write(tmp_path / "a")
    writer = EvaluatedWriter(tmp_path / "b", CLASSES, [PROTOCOL])
    for i in range(3):
        writer.add(f"case_{i}", {}, {"all": some_histogram(30 + i), "boundary2mm": some_histogram(40 + i)})
    writer.close({})
    (tmp_path / "b" / "calibration.npz").replace(tmp_path / "a" / "calibration.npz")
    with pytest.raises(FileError, match=r"a/calibration.npz: .*another evaluation"):
        list(read_evaluated(tmp_path / "a").histograms("all"))


def test_a_case_measured_twice_keeps_a_name_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = EvaluatedWriter(tmp_path, CLASSES, [PROTOCOL])
    for seed in range(2):
        writer.add("scan", {}, {"all": some_histogram(seed)})
    writer.close({})
    assert [case.case for case in read_evaluated(tmp_path).cases] == ["scan", "scan (2)"]
    assert "case scan was measured more than once" in caplog.text


DAMAGE: dict[str, Any] = {
    "list": lambda content: [],
    "classes": lambda content: {**content, "classes": 10**9},
    "no classes": lambda content: {**content, "classes": []},
    "bins": lambda content: {**content, "protocols": {"mine": {**content["protocols"]["mine"], "num_bins": math.inf}}},
    "region": lambda content: {**content, "protocols": {"mine": {**content["protocols"]["mine"], "regions": [3]}}},
    "metric": lambda content: {**content, "metrics": {**content["metrics"], "odd": {"kind": 3}}},
    "value": lambda content: {**content, "cases": [{**content["cases"][0], "metrics": {"odd": "abc"}}]},
    "width": lambda content: {**content, "cases": [{**content["cases"][0], "metrics": {"odd": [1.0, 2.0]}}]},
    "spacing": lambda content: {**content, "cases": [{**content["cases"][0], "spacing": ["x"]}]},
    "name": lambda content: {**content, "cases": [{**content["cases"][0], "case": "\ud800"}]},
    "twice": lambda content: {**content, "cases": [content["cases"][0]] * 2},
    "summary": lambda content: {**content, "summary": {"ece_all_15bins_macro": [1]}},
    "no cases": lambda content: {k: v for k, v in content.items() if k != "cases"},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_json_is_named(tmp_path: Path, name: str) -> None:
    file = write(tmp_path) / "calibration.json"
    file.write_text(json.dumps(DAMAGE[name](json.loads(file.read_text()))))
    with pytest.raises(FileError, match=r"calibration\.json: expected"):
        read_evaluated(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "", "\x00"])
def test_what_is_no_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(FileError, match=r"calibration\.json: cannot be read"):
        read_evaluated(tmp_path)


def rewrite(path: Path, member: str, data: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, member: data}.items():
            archive.writestr(name, content)


def npy(array: np.ndarray, **header: Any) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, array)
    data = stream.getvalue()
    for old, new in header.items():
        data = data.replace(old.encode(), new.encode())
    return data


@pytest.mark.parametrize(
    ("member", "data"),
    [
        ("settings.npy", npy(np.array("{}"))),
        ("settings.npy", npy(np.array(json.dumps({"regions": ["all"], "rows": 10**9, "num_bins": 960})))),
        ("settings.npy", npy(np.array(json.dumps({"regions": ["all"], "rows": 4, "num_bins": 10**30})))),
        ("case_0.npy", npy(np.zeros((4, 5)))),
        ("case_0.npy", npy(np.zeros((4, 5), np.uint32)).replace(b"(4, 5)", b"(4, 50000000000)"[:6])),
        ("case_0.npy", npy(np.full((4, 5), 2**31, np.uint32))),
        ("case_0.npy", b"PK"),
        ("scores.npy", npy(np.zeros(3))),
    ],
)
def test_damaged_histograms_are_named(tmp_path: Path, member: str, data: bytes) -> None:
    evaluated = read_evaluated(write(tmp_path))
    rewrite(tmp_path / "calibration.npz", member, data)
    with pytest.raises(FileError, match=r"calibration.npz: expected the histograms"):
        list(evaluated.histograms("all"))


def test_metrics_describe_themselves() -> None:
    metric = PROTOCOL.case_metrics(CLASSES)[2]
    assert metric.name == "ece_boundary2mm_15bins"
    assert metric.label == "ECE, within 2 mm of a boundary, 15 bins"
    assert (metric.kind, metric.region, metric.bins, metric.per, metric.direction) == (
        "ece",
        "boundary2mm",
        15,
        "case",
        -1,
    )
    assert PROTOCOL.case_metrics(CLASSES)[1].classes == tuple(CLASSES)
    assert [m.name for m in PROTOCOL.summary_metrics(CLASSES)][:2] == ["ece_all_15bins_macro", "ece_all_15bins_micro"]
    assert all(Metric.from_json(m.to_json()) == m for m in PROTOCOL.summary_metrics(CLASSES))
