"""The command line: what it prints, what it returns, and that mistakes are told without a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from monai_calib.__main__ import COMMANDS, main


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


@pytest.mark.parametrize("command", ["", *COMMANDS, "dicom to-nifti", "dicom to-seg", "dicom to-pm", "dicom segment"])
def test_every_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "example:" in said
    assert f"python -m monai_calib {command}" in " ".join(said.split())


def test_every_flag_is_written_with_underscores_and_a_hyphen_still_works(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        said = capsys.readouterr().out.split()
        flags = {word.strip("[],") for word in said if word.strip("[],").startswith("--")}
        for flag in flags:
            assert "--" + flag[2:].replace("-", "_") in flags


def test_the_help_is_light():
    code = "import sys; from monai_calib.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numpy', 'monai', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_file_that_collects_the_commands_is_short():
    assert len(Path(main.__code__.co_filename).read_text().splitlines()) <= 90
