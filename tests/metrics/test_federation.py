"""Histograms of sites, merged, are those of all cases in one place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from monai_calib.metrics import (
    CalibrationHistogram,
    CaseEvaluation,
    Evaluated,
    EvaluatedWriter,
    Protocol,
    ece,
    read_evaluated,
    write_federation,
)

CLASSES = ["background", "anterior", "posterior"]
PROTOCOLS = ["paper", "by_region"]
REGIONS = ["all", "foreground", "predicted", "union", "dilated2mm", "boundary2mm", "bbox"]
SITES = {"north": range(3), "south": range(3, 8)}


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and labels of one case; of the first three none bears the last class."""
    generator = torch.Generator().manual_seed(seed)
    size = (6 + seed, 8, 7)
    prob = (3 * torch.randn(3, *size, generator=generator)).softmax(0)
    return prob, torch.randint(0, 2 if seed < 3 else 3, size, generator=generator)


def evaluate(folder: Path, cases: range) -> Evaluated:
    evaluation = CaseEvaluation(3, PROTOCOLS, CLASSES)
    writer = EvaluatedWriter(folder, CLASSES, evaluation.protocols, list(evaluation.metrics.values()))
    rows: dict[str, list[list[float]]] = {}
    pooled = {region: evaluation.histogram() for region in evaluation.regions}
    for seed in cases:
        values, histograms = evaluation.measure(*drawn(seed), spacing=(1.0, 1.0, 1.0))
        writer.add(f"patient {seed}", values, histograms)
        for name, row in values.items():
            rows.setdefault(name, []).append(row)
        for region, histogram in histograms.items():
            pooled[region].merge(histogram)
    writer.close(evaluation.summarize(rows, pooled), list(evaluation.summary_metrics.values()))
    return read_evaluated(folder)


def test_the_merged_diagram_is_the_pooled_one_exactly(tmp_path: Path) -> None:
    sites = [evaluate(tmp_path / name, cases) for name, cases in SITES.items()]
    whole = CalibrationHistogram(3)
    for seed in range(8):
        prob, label = drawn(seed)
        whole.update(prob[None], label[None], from_logits=False)
    sites[1].pooled("all").to_npz(tmp_path / "south.npz")  # one travels as a file, one as its state
    merged = CalibrationHistogram.from_state(sites[0].pooled("all").state_dict())
    merged.merge(CalibrationHistogram.from_npz(tmp_path / "south.npz"))
    for name in ("count", "hits", "confidence"):
        assert torch.equal(getattr(merged.sums, name), getattr(whole.sums, name)), name
    np.testing.assert_allclose(merged.sums.scores, whole.sums.scores, rtol=1e-12)
    assert merged.voxels == sum(drawn(seed)[1].numel() for seed in range(8))
    assert ece(merged, 15) == ece(whole, 15)


def test_a_federation_measures_what_one_evaluation_of_all_cases_measures(tmp_path: Path) -> None:
    apart = {name: evaluate(tmp_path / name, cases) for name, cases in SITES.items()}
    together = evaluate(tmp_path / "together", range(8))
    given = {name: {region: site.pooled(region) for region in site.regions} for name, site in apart.items()}
    pooled = write_federation(
        tmp_path / "all", given, CLASSES, list(apart["north"].protocols.values()), {"loss_name": "nacl"}
    )
    federation = read_evaluated(tmp_path / "all")
    assert [case.case for case in federation.cases] == ["north", "south"]
    assert b"patient" not in b"".join(path.read_bytes() for path in (tmp_path / "all").iterdir())
    micro = [name for name in together.summary if name.endswith("_micro")]
    assert len(micro) == 24
    for name in micro:
        assert federation.summary[name] == pytest.approx(together.summary[name], rel=1e-12), name
    assert sorted(pooled) == sorted(federation.regions) == sorted(REGIONS)
    for region in REGIONS:
        np.testing.assert_array_equal(federation.bins(region, 15).sum(0), together.bins(region, 15).sum(0))
        assert pooled[region].voxels == together.pooled(region).voxels
    of_sites = federation.values("ece_union_15bins")
    assert of_sites.tolist() == [ece(site.pooled("union"), 15) for site in apart.values()]
    assert federation.summary["ece_union_15bins_macro"] == pytest.approx(of_sites.mean())


def test_what_needs_raters_is_left_out(tmp_path: Path) -> None:
    hist = CalibrationHistogram(2)
    hist.update(torch.zeros(1, 2, 4), torch.zeros(1, 4))
    protocols = [Protocol("mine", ["all"], ["ece"]), Protocol("theirs", ["all"], ["rater_ece"])]
    write_federation(tmp_path, {"a": {"all": hist}}, ["none", "lesion"], protocols)
    assert list(read_evaluated(tmp_path).protocols) == ["mine"]


def test_wrong_sites_are_named(tmp_path: Path) -> None:
    hist, other = CalibrationHistogram(3), CalibrationHistogram(2)
    protocols = [Protocol("mine", ["all", "union"], ["ece"])]
    with pytest.raises(ValueError, match="sites: expected at least one"):
        write_federation(tmp_path, {}, CLASSES, protocols)
    with pytest.raises(ValueError, match="site a: expected histograms of regions union too"):
        write_federation(tmp_path, {"a": {"all": hist}}, CLASSES, protocols)
    given = {"a": {"all": hist, "union": hist}, "b": {"all": hist, "union": other}}
    with pytest.raises(ValueError, match="site b, region union: expected a histogram with"):
        write_federation(tmp_path, given, CLASSES, protocols)
    assert not list(tmp_path.iterdir())
