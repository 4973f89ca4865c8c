"""What a check tells of a consumer, line by line; standard library only, for it runs in every environment."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import version

__all__ = ["tell", "tell_versions"]


def tell(what: str, ok: bool, result: str) -> None:
    """One line of the table: what was run, whether it went as it should, and what came out, in numbers."""
    print("TOLD " + json.dumps({"what": what, "result": result, "ok": bool(ok)}), flush=True)


def tell_versions(packages: Iterable[str]) -> None:
    """The versions that the check ran with."""
    print("VERSIONS " + json.dumps({package: version(package) for package in packages}), flush=True)
