"""The table consumer × what was run × result, as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["page"]

HEAD = """# What was run in the tools people use

Written by `make test-consumers` (`tests/consumers`): each consumer in its own environment with published packages, a
real server or simulator, our bundles and losses as they are. [integrations.md](integrations.md) has the recipes.

| consumer | versions | what was run | result |
|---|---|---|---|
"""


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown of all results.

    >>> found = {"versions": {"onnxruntime": "1.31"}, "checks": [{"what": "export", "result": "equal", "ok": True}]}
    >>> print(page({"onnx": {**found, "date": "2026-11-25", "seconds": 3}}).splitlines()[-1])
    | onnx | onnxruntime 1.31 (2026-11-25) | export | ✓ equal |
    """
    lines = []
    for name, found in sorted(results.items()):
        versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
        for number, check in enumerate(found["checks"]):
            first = (name, f"{versions} ({found['date']})") if number == 0 else ("", "")
            sign = "✓" if check["ok"] else "✗"
            lines.append(f"| {first[0]} | {first[1]} | {check['what']} | {sign} {check['result']} |")
    return HEAD + "\n".join(lines) + "\n"
