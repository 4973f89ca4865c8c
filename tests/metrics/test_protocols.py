"""Protocols: names that say what a figure is, the papers' definitions, and wrong configurations."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
import torch

from monai_calib.metrics import CalibrationHistogram, classwise_ece
from monai_calib.metrics.protocols import METRICS, PROTOCOLS, RENAMED, Protocol, resolve_protocols

CLASSES = ["background", "lesion"]


def histogram(num_classes: int = 4, absent: int = 2) -> CalibrationHistogram:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, num_classes, 500, generator=generator)
    label = torch.randint(0, absent, (1, 500), generator=generator)
    hist = CalibrationHistogram(num_classes)
    hist.update(logits, label)
    return hist


def reported_names(protocol):
    return [metric.name for metric in protocol.summary_metrics(CLASSES)]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_names_carry_region_bins_and_reduction_and_are_safe(name):
    protocol = PROTOCOLS[name]
    names = reported_names(protocol)
    metrics = protocol.case_metrics(CLASSES)
    assert len(set(names)) == len(names) == len(metrics) * len(protocol.reductions)
    for reported in names:
        assert re.fullmatch(r"[a-zA-Z0-9_.-]+", reported)
        assert reported.rsplit("_", 1)[1] in protocol.reductions
    for metric in metrics:
        assert f"_{metric.region}" in metric.name
        assert (f"_{protocol.num_bins}bins" in metric.name) == METRICS[metric.kind].binned
    assert Protocol.from_config(json.loads(json.dumps(protocol.to_config()))) == protocol


def test_two_metrics_never_share_a_name():
    regions = ["all", "bbox", "bbox:2mm", "boundary:2mm", "boundary:2vx", "dilated:2mm", "mask:lung"]
    metrics = [m for bins in (10, 15) for m in Protocol("x", regions, list(METRICS), bins).case_metrics(CLASSES)]
    unbinned = sum(not metric.binned for metric in METRICS.values()) * len(regions)
    assert len({metric.name for metric in metrics}) == len(metrics) - unbinned  # bins mean nothing to these


def test_contract_names():
    assert "ece_foreground_15bins_macro" in reported_names(PROTOCOLS["paper"])
    names = reported_names(PROTOCOLS["by_region"])
    assert {"ece_boundary2mm_15bins_micro", "nll_union_macro"} <= set(names)


def test_classwise_rows_average_to_the_metric():
    hist = histogram()
    for name, arguments in {
        "classwise_ece": {"absent": "skip"},
        "classwise_ece_paper": {"absent": "paper"},
        "classwise_ece_above1e-3": {"threshold": 1e-3},
    }.items():
        row = torch.tensor(METRICS[name].values(hist, 15), dtype=torch.float64)
        assert float(row.nanmean()) == pytest.approx(classwise_ece(hist, **arguments), abs=1e-12)


def test_the_papers_class_mean_stops_at_the_highest_label_present():
    hist = CalibrationHistogram(4)
    hist.update(torch.zeros(1, 4, 3), torch.tensor([[2, 2, 2]]))
    assert [math.isnan(v) for v in METRICS["classwise_ece_paper"].values(hist, 15)] == [False, False, False, True]
    assert [math.isnan(v) for v in METRICS["classwise_ece"].values(hist, 15)] == [True, True, False, True]


@pytest.mark.parametrize("metric", METRICS)
def test_an_empty_region_has_no_figure(metric):
    assert all(math.isnan(value) for value in METRICS[metric].values(CalibrationHistogram(3), 15))


@pytest.mark.parametrize("metric", METRICS)
def test_rows_of_a_filled_region_hold_numbers(metric):
    row = METRICS[metric].values(histogram(), 15)
    assert len(row) in (1, 4)
    assert any(math.isfinite(value) for value in row)


@pytest.mark.parametrize("metric", [name for name, row in METRICS.items() if not row.needs_top_label])
def test_metrics_without_a_top_label_serve_multi_label_predictions(metric):
    hist = CalibrationHistogram(2, activation="sigmoid")
    hist.update(torch.randn(1, 2, 50), torch.randint(0, 2, (1, 2, 50)))
    assert math.isfinite(METRICS[metric].values(hist, 15)[0])


def test_from_config():
    own = {"name": "mine", "regions": ["union", "mask:lung"], "metrics": ["ece", "nll"], "num_bins": 20}
    paper, mine = resolve_protocols(["paper", own])
    assert paper is PROTOCOLS["paper"]
    assert reported_names(mine) == [
        "ece_union_20bins_macro",
        "nll_union_macro",
        "ece_lung_20bins_macro",
        "nll_lung_macro",
    ]
    assert resolve_protocols("paper") == [paper]
    assert resolve_protocols(own) == [mine]


@pytest.mark.parametrize(("old", "name"), RENAMED.items())
def test_a_protocol_is_read_under_its_old_name_unless_it_is_another_one(old, name):
    assert Protocol.from_config(old) is PROTOCOLS[name]
    written = PROTOCOLS[name].to_config() | {"name": old, "description": "The wording of that time."}
    assert Protocol.from_config(written) is PROTOCOLS[name]
    another = Protocol.from_config(written | {"regions": ["all"]})
    assert (another.name, another.description) == (old, "The wording of that time.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["dice"]}, r"unknown metrics \['dice'\]; expected ece, "),
        ({"reductions": ["mean"]}, r"unknown reductions \['mean'\]"),
        ({"regions": []}, "regions must be a list with at least one entry"),
        ({"metrics": "ece"}, "metrics must be a list"),
        ({"num_bins": 7}, "expected a divisor"),
        ({"regions": ["boundary"]}, "needs a positive size"),
    ],
)
def test_wrong_protocols_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PROTOCOLS["paper"], **change)


def test_wrong_lists_of_protocols_are_refused():
    with pytest.raises(ValueError, match="unknown protocol 'papers'; expected paper, by_region"):
        resolve_protocols(["papers"])
    with pytest.raises(ValueError, match="a name of its own"):
        resolve_protocols(["paper", Protocol("paper", ["all"], ["ece"])])
