"""The command line: what it prints, what it returns, and that mistakes are told without a traceback."""

import pytest

from monai_calib.__main__ import main


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "phantom" in said
    assert "report" in said


def test_arguments_that_are_not_understood_end_with_2():
    with pytest.raises(SystemExit) as stop:
        main(["phantom"])
    assert stop.value.code == 2


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "page.html")]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
