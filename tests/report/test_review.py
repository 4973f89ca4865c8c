"""The report's section on failure detection: what it lists, and that its numbers are those of the cases."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from monai_calib.metrics import read_evaluated
from monai_calib.report.comparison import compare
from monai_calib.report.html import write_report
from monai_calib.report.review import review_of
from monai_calib.report.runs import read_runs


def test_lowest_expected_dice_come_first_and_the_ranking_is_that_of_the_cases(run_folders: list[Path]) -> None:
    (comparison,) = compare(read_runs(run_folders))
    review = review_of(comparison)
    assert review is not None
    assert [item.label for item in review.methods] == [method.label for method in comparison.methods]
    for method, item in zip(comparison.methods, review.methods, strict=True):
        folders = [read_evaluated(run.evaluation) for run in method.runs]
        expected = np.mean([np.nanmean(found.class_values("expected_dice"), axis=1) for found in folders], axis=0)
        true = np.mean([found.values("mean_dice") for found in folders], axis=0)
        order = np.argsort(expected, kind="stable")
        names = [case.case for case in folders[0].cases]
        assert [row[0] for row in item.first] == [names[i] for i in order[:5]]
        assert [row[1] for row in item.first] == pytest.approx(expected[order[:5]])
        assert [row[4] for row in item.first] == pytest.approx(true[order[:5]])
        kept = np.arange(1, 7)
        assert item.detection.aurc.value == pytest.approx((np.cumsum(1 - true[order[::-1]]) / kept).mean())
        assert item.detection.spearman.value == pytest.approx(spearmanr(expected, true).statistic)
    rows = list(csv.DictReader(io.StringIO(review.figure.csv)))
    assert len(rows) == 6 * len(review.methods)


def test_page_has_the_section_and_runs_of_before_do_without(run_folders: list[Path], tmp_path: Path) -> None:
    page = write_report(run_folders[:1], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Which cases to review first" in page
    assert "Review these first" in page
    former = tmp_path / "former"
    shutil.copytree(run_folders[0], former)
    path = former / "eval" / "calibration.json"
    content = json.loads(path.read_text())
    del content["metrics"]["expected_dice"]
    for case in content["cases"]:
        del case["metrics"]["expected_dice"]
    path.write_text(json.dumps(content))
    page = write_report([former], tmp_path / "former.html").read_text(encoding="utf-8")
    assert "Which cases to review first" not in page
