"""Settings that all methods share stand once; only those that differ are columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_runs import write_run
from test_page import Page

from monai_calib.report import write_report
from monai_calib.report.comparison import compare
from monai_calib.report.runs import read_runs
from monai_calib.report.settings import SettingsTable, settings_table

COMMON = {"bundle": "b", "network_name": "unet", "split": "test", "epochs": 10, "patch_size": [40, 56]}
OWN = (
    {"loss_name": "ce", "learning_rate": 0.01},
    {"loss_name": "mbls", "loss_args": {"margin": 5.0}, "learning_rate": 0.004},
    {"loss_name": "ce", "learning_rate": 0.01, "posthoc": "temperature", "posthoc_region": "all"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("settings")
    for number, own in enumerate(OWN):
        for seed in (1, 2):
            settings = COMMON | own | {"seed": seed, "train_seconds": 10.0 * seed}
            write_run(root / f"{number}_{seed}", settings, [0], protocols=["paper"])
    return root


@pytest.fixture(scope="module")
def table(folder: Path) -> SettingsTable:
    (comparison,) = compare(read_runs([folder]))
    return settings_table(comparison)


def test_what_all_share_stands_once(table: SettingsTable) -> None:
    expected = {"bundle": "b", "network": "unet", "split": "test", "epochs": "10", "patch size": "[40, 56]"}
    assert dict(table.common) == expected
    assert len(table.common) == len(expected)


def test_what_differs_is_a_column_and_what_some_have_stands_together(table: SettingsTable) -> None:
    assert table.columns == ("loss", "learning rate", "after training", "own settings")
    assert {row[:2] for row in table.rows.values()} == {("ce", "0.01"), ("mbls", "0.004")}
    assert sorted(row[2:] for row in table.rows.values()) == [
        ("temperature", "–"),
        ("–", "margin 5"),
        ("–", "–"),
    ]


def test_the_page_repeats_no_common_setting(folder: Path, tmp_path: Path) -> None:
    text = " ".join(Page(write_report([folder], tmp_path / "report.html")).text.split())
    assert text.count("patch size [40, 56]") == 1
    assert "All methods: bundle b, network unet, split test, " in text


def test_all_settings_of_one_method_are_common(tmp_path: Path) -> None:
    write_run(tmp_path / "a", COMMON | OWN[1] | {"seed": 1}, [0], protocols=["paper"])
    (comparison,) = compare(read_runs([tmp_path]))
    table = settings_table(comparison)
    assert table.columns == ()
    assert ("margin", "5") in table.common


@pytest.mark.parametrize(("drawn", "told"), [(("sample", "sample"), False), (("sample", "mean"), True)])
def test_how_raters_are_drawn_is_told_where_it_says_something(
    drawn: tuple[str, str], told: bool, tmp_path: Path
) -> None:
    """The cases have one rater: the default says nothing of them, unless trainings differ in it."""
    for number, rater_labels in enumerate(drawn):
        settings = COMMON | OWN[number] | {"rater_labels": rater_labels, "seed": 1}
        write_run(tmp_path / str(number), settings, [0], protocols=["paper"])
    (comparison,) = compare(read_runs([tmp_path]))
    table = settings_table(comparison)
    assert ("rater labels" in [*table.columns, *dict(table.common)]) == told
