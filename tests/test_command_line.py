"""The command line: what it prints, what it returns, and that mistakes are told without a traceback."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from monai_calib.__main__ import COMMANDS, build_parser, main

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for path in (ROOT / "data_scripts").glob("*.py") if path.stem != "__init__")


def _below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    steps = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(steps[0]) if steps else {}


def _verbs() -> dict[str, argparse.ArgumentParser]:
    """Return every verb that the parser knows, ``dicom segment`` and its like included, with what parses it."""
    found = {}
    for command in COMMANDS:
        left = {command: _below(build_parser(command))[command]}
        while left:
            verb, parser = left.popitem()
            found[verb] = parser
            left |= {f"{verb} {step}": below for step, below in _below(parser).items()}
    return found


VERBS = _verbs()


def _help(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_the_parser_names_all_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert {verb.split()[0] for verb in VERBS} == set(COMMANDS)
    assert "dicom segment" in VERBS
    said = _help("", capsys)
    assert set(COMMANDS) <= set(said.split())
    assert "exit status: 0 done, 1 " in said


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_help_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = _help(verb, capsys)
    assert "example:" in said
    assert f"python -m monai_calib {verb}" in " ".join(said.split())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_data_script_has_an_example(script: Path) -> None:
    said = subprocess.run([sys.executable, str(script), "--help"], check=True, capture_output=True, text=True).stdout
    assert f"example:\n  python data_scripts/{script.name} " in said


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_is_explained_and_every_flag_has_underscores(verb: str) -> None:
    for action in VERBS[verb]._actions:
        names = action.option_strings
        for name in names:
            assert not name.startswith("--") or "--" + name[2:].replace("-", "_") in names
        hidden = action.help == argparse.SUPPRESS
        verbs = isinstance(action, argparse._SubParsersAction)
        assert action.help or hidden or verbs, f"{verb}: {action.dest} has no words"


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_a_call_that_is_not_understood_ends_with_2(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), "--no_such_flag"])
    assert stop.value.code == 2
    assert f"usage: monai_calib {verb}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "call",
    [
        "run DATA OUT --epochs 0",
        "run DATA OUT --seeds many",
        "benchmark --bundle B --dataset_dir D --output OUT --losses ce --set epochs",
        "benchmark --bundle B --dataset_dir D --output OUT --losses ce --margins 5",
        "benchmark --bundle B --dataset_dir D --output OUT --losses ce --retries -1",
        "bundle acdc_segmentation_3d OUT --epochs 3",
        "pack A B --run_dir RUN",
        "prepare SOURCE OUT --folds 1",
        "phantom OUT --cases 2",
        "measure P L OUT --logits perhaps",
    ],
)
def test_a_value_that_no_call_can_have_ends_with_2_before_anything_is_read(
    call: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(call.split())
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "expected" in said or "Leave it out" in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "page.html")]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_interrupted_ends_with_130(capsys, monkeypatch, tmp_path):
    def interrupted(*_, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("monai_calib.datasets.phantom.write_phantom", interrupted)
    assert main(["phantom", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "monai_calib: interrupted\n"
    monkeypatch.setattr("monai_calib.datasets.prepare.prepare", interrupted)
    assert main(["prepare", str(tmp_path), str(tmp_path / "out")]) == 130
    assert "the same command goes on where it stopped" in capsys.readouterr().err


def test_no_help_waits_for_pytorch_or_an_extra():
    """Measured on one machine: 0.1 s each, 5 s with PyTorch and MONAI."""
    code = (
        "import sys\nfrom monai_calib.__main__ import main\n"
        f"for verb in {['', *VERBS]!r}:\n"
        "    try: main([*verb.split(), '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = {'torch', 'monai', 'numba', 'scipy', 'pandas', 'plotly', 'matplotlib', 'ray'}\n"
        "heavy |= {'SimpleITK', 'highdicom', 'ignite'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_what_is_written_and_what_comes_next_is_told_without_colours(tmp_path: Path) -> None:
    """Not on a terminal: no escape sequence, though colours are asked for."""
    command = [sys.executable, "-m", "monai_calib", "phantom", str(tmp_path / "out"), "--cases", "3"]
    command += ["--shape", "12", "16", "12", "--spacing", "3", "3", "3"]
    environment = {**os.environ, "FORCE_COLOR": "", "TERM": "xterm-256color"}
    ended = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "\x1b" not in ended.stdout + ended.stderr
    *_, written, following = ended.stdout.splitlines()
    assert written.startswith("Wrote ")
    assert str(tmp_path / "out" / "datalist.json") in written
    assert following.startswith("Next: python -m monai_calib run ")


def test_the_file_that_collects_the_commands_is_short():
    assert len(Path(main.__code__.co_filename).read_text().splitlines()) <= 90
