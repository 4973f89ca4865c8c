"""Commands in the pages name commands, flags, scripts, targets and settings of bundles that exist. None is run."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import re
import shlex
from pathlib import Path

import pytest
from written_pages import PAGES, ROOT, commands, name_of

from monai_calib.__main__ import COMMANDS

BUNDLE = ROOT / "bundles" / "msd_hippocampus_segmentation_3d"
LINES = [(page, line) for page in PAGES for line in commands(page)]


def _params(start: str) -> list[object]:
    asked = [(page, line) for page, line in LINES if start in line and not re.match(r"#|[A-Z]+=[\"']", line)]
    found = [(page, line[line.index(start) :]) for page, line in asked]
    return [pytest.param(line, id=f"{name_of(page)} {line[len(start) : len(start) + 40]}") for page, line in found]


def _words(line: str) -> list[str]:
    """Split a line as a shell does, without what comes after the command, and brackets around what may be left out."""
    words = shlex.split(line, comments=True)
    end = next((at for at, word in enumerate(words) if word in ("&&", "|", "&", ";", ">")), len(words))
    return [word[1:] if word.startswith("[-") else word for word in words[:end]]


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    importlib.import_module(f"monai_calib.{COMMANDS[command][0]}.cli").add_commands(commands)
    return parser


def _subparser(parser: argparse.ArgumentParser, words: list[str]) -> argparse.ArgumentParser:
    """Return the parser that reads the flags: of the command, or of its step."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return _subparser(action.choices[words[0]], words[1:])
    return parser


@pytest.mark.parametrize("line", _params("python -m monai_calib "))
def test_our_commands_are_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(line)[3:]
    if words[0].startswith("-") or words[0] == "COMMAND":
        return
    assert words[0] in COMMANDS
    parser = _parser(words[0])
    chosen = _subparser(parser, words)
    known = {flag for action in chosen._actions for flag in action.option_strings}
    assert not [word for word in words if re.match(r"--?[a-z]", word) and word not in known]
    if "..." in words or "$" in words:
        return
    for action in chosen._actions:  # such an action would do its work at once
        if not type(action).__module__.startswith("argparse"):
            monkeypatch.setattr(type(action), "__call__", lambda self, parser, *_: parser.exit(0))
    words = [word.rstrip("]") if word.endswith("]") and "[" not in word else word for word in words]
    assert _status(parser, words) == 0


def _status(parser: argparse.ArgumentParser, words: list[str]) -> int | str | None:
    """Return the exit status of reading the arguments, as of ``--help`` and of those not understood."""
    try:
        parser.parse_args(words)
    except SystemExit as stop:
        return stop.code
    return 0


def _settings(configs: str, root: Path) -> set[str] | None:
    """Return the names in the configurations that a run is given; ``None`` if one of them is the reader's own."""
    files = ast.literal_eval(configs) if configs.startswith("[") else [configs]
    names: set[str] = set()
    for name in files:
        path = root / "configs" / Path(name).name
        if "configs/" not in name:
            return None
        assert path.is_file(), f"no bundle has {name}"
        names |= set(json.loads(path.read_text(encoding="utf-8")))
    return names


@pytest.mark.parametrize("line", _params("-m monai.bundle "))
def test_commands_of_bundles_name_their_settings(line: str) -> None:
    import monai.bundle

    words = _words(line)[2:]
    function = getattr(monai.bundle, words[0])
    known = set(inspect.signature(function).parameters)
    given = {word[2:] for word in words if word.startswith("--")}
    if words[0] in ("run", "ckpt_export", "onnx_export", "trt_export", "verify_net_in_out"):
        root = BUNDLE.with_name(BUNDLE.name.replace("3d", "2d")) if "2d" in line else BUNDLE
        names = _settings(words[words.index("--config_file") + 1], root) if "--config_file" in words else set()
        if names is None:
            return
        known |= names | {"bundle_root"}
    wrong = [name for name in given if name.lstrip("+").partition("#")[0].partition("::")[0] not in known]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_scripts_and_targets_exist(page: Path) -> None:
    lines = commands(page)
    scripts = [match[1] for line in lines for match in re.finditer(r"\bpython3? ((?:\w+/)+\w+\.py)", line)]
    ours = [name for name in scripts if (ROOT / name.split("/")[0]).is_dir()]
    assert not [name for name in ours if not (ROOT / name).is_file()]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line.split()[1] for line in lines if re.match(r"make [a-z]", line)]
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)]


def test_there_are_commands_to_look_at() -> None:
    assert len(_params("python -m monai_calib ")) > 40
    assert len(_params("-m monai.bundle ")) > 40


def test_a_wrong_command_is_seen() -> None:
    assert _status(_parser("phantom"), ["phantom", "OUT"]) == 0
    assert _status(_parser("phantom"), ["phantom", "OUT", "--cases", "many"]) == 2
    assert _status(_parser("dicom"), ["dicom", "to-nothing", "SERIES", "OUT"]) == 2
    assert _settings("configs/train.json", BUNDLE) >= {"loss_name", "epochs", "run_dir"}
    with pytest.raises(AssertionError, match=r"no bundle has configs/trains\.json"):
        _settings("['configs/train.json','configs/trains.json']", BUNDLE)
