"""The pairs of a Python and the versions that its packages are held to."""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAIRS", "REPOSITORY", "Pair", "lowest", "without_monai"]

REPOSITORY = Path(__file__).resolve().parents[2]


def lowest(setup: str) -> str:
    r"""Pin what a ``setup.cfg`` asks for at least: every ``name>=version`` as ``name==version``.

    >>> print(lowest("[options]\ninstall_requires =\n    numpy>=1.26\n    fire\n[options.extras_require]"), end="")
    numpy==1.26
    """
    parser = configparser.ConfigParser()
    parser.read_string(setup)
    asked = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    return "".join(re.sub(">=", "==", line) + "\n" for text in asked for line in text.split() if ">=" in line)


def without_monai(pins: str) -> str:
    r"""Leave MONAI itself out, where its weekly build takes its place.

    >>> without_monai("torch==2.13.0\nmonai==1.6.1\n")
    'torch==2.13.0\n'
    """
    return "".join(line for line in pins.splitlines(keepends=True) if not line.startswith("monai=="))


def _pinned() -> str:
    return (REPOSITORY / "constraints.txt").read_text()


@dataclass(frozen=True)
class Pair:
    """A Python, what its packages are held to, and what is put in MONAI's place."""

    python: str
    pins: Callable[[], str]
    weekly: bool = False


PAIRS = {
    "lowest": Pair("3.10", lambda: lowest((REPOSITORY / "setup.cfg").read_text())),
    "weekly": Pair("3.12", lambda: without_monai(_pinned()), weekly=True),
    "pinned": Pair("3.11", _pinned),
    "highest": Pair("3.13", lambda: ""),
}
