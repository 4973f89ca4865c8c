"""CSV and LaTeX: every figure is there, in the right place, and text from files is only text."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from monai_calib.metrics.regions import Region
from monai_calib.report.comparison import Comparison, compare
from monai_calib.report.runs import read_runs
from monai_calib.report.tables import ResultTable, csv_text, latex_escape, latex_text, result_csv, result_table


@pytest.fixture(scope="module")
def comparison(run_folders: list[Path]) -> Comparison:
    (only,) = compare(read_runs(run_folders))
    return only


@pytest.fixture(scope="module")
def table(comparison: Comparison) -> ResultTable:
    return result_table(comparison, comparison.protocols[0], Region.parse("foreground"), "macro")


def test_heading_names_protocol_region_bins_and_reduction(table: ResultTable) -> None:
    assert table.heading == "Protocol paper: region foreground, 15 bins, macro average"


def test_rows_are_methods_then_their_runs_and_failures(table: ResultTable) -> None:
    kinds = [(row.label, row.kind, row.num_runs) for row in table.rows]
    assert kinds[:4] == [
        ("ce", "method", 2),
        ("ce, seed 1", "run", 1),
        ("ce, seed 2", "run", 1),
        ("ce, seed 3", "failed", 1),
    ]
    assert table.rows[3].note == "did not converge: posterior never found"
    assert [column.label for column in table.columns][:4] == ["DSC", "HD95", "ECE", "cECE"]


def test_best_is_by_the_direction_of_the_measure(table: ResultTable) -> None:
    methods = [row for row in table.rows if row.kind == "method"]
    dsc, hd95 = ([row.cells[index].interval.value for row in methods] for index in (0, 1))
    assert table.best(0) == max(dsc)
    assert table.best(1) == min(hd95)


def test_csv_returns_the_figures_of_the_runs(comparison: Comparison, table: ResultTable) -> None:
    rows = list(csv.DictReader(io.StringIO(result_csv([table]))))
    single = {(row["row"], row["metric"]): row for row in rows}
    run = comparison.methods[0].runs[0]
    assert float(single["ce, seed 1", "DSC"]["value"]) == pytest.approx(run.values["mean_dice"].mean())
    assert float(single["ce, seed 1", "ECE"]["value"]) == pytest.approx(run.summary["ece_foreground_15bins_macro"])
    assert {row["bins"] for row in rows} == {"15"}
    assert {row["unit"] for row in rows if row["metric"] == "HD95"} == {"mm"}
    assert len(rows) == len(table.rows) * len(table.columns)


@pytest.mark.parametrize("name", ['=cmd|" /C calc"!A0', "+1", "-1", "@x", 'a,"b"=1', "plain", " =1", "\uff1d1"])
def test_csv_cells_are_text_not_formulas(name: str) -> None:
    (row,) = list(csv.reader(io.StringIO(csv_text(["name"], [[name]]))))[1:]
    assert row[0].removeprefix("'") == name
    assert not row[0].strip().startswith(("=", "+", "-", "@", "\uff1d"))


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\t", "\x0b", "\x0c", "\x85", "\u2028"])
def test_a_name_makes_no_second_row(end: str) -> None:
    text = csv_text(["name"], [[f"x{end}=1+1"]])
    assert text == f"name\nx{' ' * len(end)}=1+1\n"
    assert csv_text([f"a{end}b"], [[f"{end}=1"]]) == f"a{' ' * len(end)}b\n'{' ' * len(end)}=1\n"


def test_csv_numbers_keep_their_precision_and_sign() -> None:
    (row,) = list(csv.reader(io.StringIO(csv_text(["a", "b", "c"], [[-0.1, 1 / 3, float("nan")]]))))[1:]
    assert [float(row[0]), float(row[1]), row[2]] == [-0.1, 1 / 3, ""]
    assert csv_text(["a"], [[np.float64(0.5)]]).splitlines()[1] == "0.5"


def test_latex_has_a_row_a_method_and_one_bold_figure_a_column(table: ResultTable) -> None:
    text = latex_text(table)
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    values = [line for line in body.splitlines() if line.strip() and not line.strip().startswith("&")]
    assert [line.split("&")[0].strip() for line in values] == ["ce", r"dice\_ce", "nacl"]
    assert all(r"$\pm$" in line for line in values), "spread over seeds"
    for column in range(1, len(table.columns) + 1):
        assert sum("textbf" in line.split("&")[column] for line in values) == 1
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(table: ResultTable, tmp_path: Path) -> None:
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{latex_text(table)}\end{{document}}"
    (tmp_path / "t.tex").write_text(document)
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_latex_escapes_every_special_character() -> None:
    escaped = latex_escape(r"a\b{c}_d%e&f#g$h~i^j")
    assert not re.search(r"(?<!\\)[_%&#$]", escaped)
    assert escaped.startswith(r"a\textbackslash{}b\{c\}\_d")
