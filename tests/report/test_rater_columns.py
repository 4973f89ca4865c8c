"""What was measured against several raters is shown in the report, both figures named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_calib.__main__ import main
from monai_calib.labels import mean_label
from monai_calib.posthoc import TemperatureScaling, fit
from monai_calib.posthoc.before_after import evaluate_corrections
from monai_calib.posthoc.stream import EachRater, LogitCase
from monai_calib.report import load


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rated")
    generator = torch.Generator().manual_seed(0)
    cases = []
    for number in range(5):
        logits = 3 * torch.randn(3, 8, 8, 4, generator=generator)
        p = (logits / 2).softmax(0).flatten(1).T
        raters = torch.multinomial(p, 4, replacement=True, generator=generator).T.reshape(4, 8, 8, 4)
        majority = mean_label(raters, 3).argmax(0)
        cases.append(LogitCase(f"case_{number}", logits, majority, spacing=(1.0, 1.0, 1.0), raters=raters))
    scaling = TemperatureScaling(3, region="all")
    fit([scaling], EachRater(cases))
    shared = {"bundle": "rated", "loss_name": "ce", "seed": 0, "split": "test", "rater_labels": "sample"}
    evaluate_corrections(
        {"temperature": scaling},
        cases,
        folder / "posthoc",
        num_classes=3,
        protocols=["by_region", "raters"],
        runs={"as_trained": shared, "temperature": {**shared, "posthoc": "temperature"}},
    )
    return folder


def test_the_page_shows_the_figures_of_the_mean_label_and_of_each_rater(run: Path) -> None:
    main(["report", str(run), "-o", str(run / "report.html")])
    page = (run / "report.html").read_text(encoding="utf-8")
    figures = ("ECE, each rater", "least NLL", "DSC between raters", "CRPS of the volume", "dissensus", "consensus")
    for words in (*figures, "rater labels sample"):
        assert words in page, words


def test_the_table_has_them_by_kind_and_region(run: Path) -> None:
    table = load(run)
    means = table.groupby(["correction", "metric", "region"], dropna=False).value.mean()
    for region in ("all", "consensus", "dissensus"):
        for correction in ("", "temperature"):
            assert means[correction, "least_nll", region] <= means[correction, "nll", region]
    assert means["temperature", "rater_ece", "all"] < means["", "rater_ece", "all"]
