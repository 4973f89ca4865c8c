"""Colours: on a terminal that shows them to someone who wants them, and in no pipe, file or log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pty = pytest.importorskip("pty")
RED, YELLOW, BOLD, END = "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"
COMMAND = [sys.executable, "-m", "monai_calib"]
REFUSED = [*COMMAND, "run", "DATA", "OUT", "--epochs", "0"]
_WARNS = """
import logging, sys, warnings
from monai_calib.terminal import bold, colour_warnings, warned
colour_warnings()
print(warned("Beware: of this.\\nNot of Beware: here."), bold("a/b"))
warnings.warn("too few")
if sys.argv[1:]:
    logging.basicConfig(filename=sys.argv[1])
    logging.captureWarnings(True)
    warnings.warn("kept")
"""
WARNS = [sys.executable, "-W", "default", "-c", _WARNS]


def environment(**changed: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**inherited, "TERM": "xterm-256color", "PYTHONWARNINGS": "ignore", **changed}


def on_terminal(call: Sequence[str], stderr: Any = None, **changed: str) -> str:
    """What a command says on a pseudo terminal."""
    ours, theirs = pty.openpty()
    said = b""
    streams = {"stdin": subprocess.DEVNULL, "stdout": theirs, "stderr": theirs if stderr is None else stderr}
    with subprocess.Popen(call, env=environment(**changed), **streams):
        os.close(theirs)
        with suppress(OSError):  # Linux's word for a terminal whose other end is closed
            while part := os.read(ours, 4096):
                said += part
    os.close(ours)
    return said.decode().replace("\r\n", "\n")


def test_an_error_begins_in_red() -> None:
    last = on_terminal(REFUSED).splitlines()[-1]
    assert last.startswith(f"{RED}monai_calib run:{END} error: argument --epochs: expected")
    told = on_terminal([*COMMAND, "bundle", "nowhere", "OUT"]).splitlines()
    assert [line.startswith(f"{RED}monai_calib:{END} ") for line in told] == [True]


def test_what_was_written_is_bold(tmp_path: Path) -> None:
    written = tmp_path / "acdc_segmentation_3d"
    said = on_terminal([*COMMAND, "bundle", written.name, str(written)])
    assert f"Wrote {BOLD}{written}{END}\n" in said
    assert said.count("\x1b") == 2


def test_a_warning_is_yellow() -> None:
    said = on_terminal(WARNS)
    assert f"{YELLOW}Beware:{END} of this.\nNot of Beware: here. {BOLD}a/b{END}\n" in said
    assert f"{YELLOW}UserWarning:{END} too few" in said


@pytest.mark.parametrize("changed", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
def test_who_wants_none_gets_none(changed: dict[str, str]) -> None:
    for call in (REFUSED, WARNS):
        said = on_terminal(call, **changed)
        assert said
        assert "\x1b" not in said


def test_a_pipe_a_file_and_a_log_get_the_plain_text(tmp_path: Path) -> None:
    warns = [*WARNS, str(tmp_path / "log")]
    for call in (REFUSED, warns):
        done = subprocess.run(call, capture_output=True, text=True, env=environment())
        assert done.stderr
        assert "\x1b" not in done.stdout + done.stderr
    with (tmp_path / "stderr").open("w") as file:  # the other stream is a terminal
        assert BOLD in on_terminal(warns, stderr=file)
    assert "UserWarning: too few" in (tmp_path / "stderr").read_text()
    on_terminal(warns)
    logged = (tmp_path / "log").read_text()
    assert logged.count("UserWarning: kept") == 3
    assert "\x1b" not in logged + (tmp_path / "stderr").read_text()
