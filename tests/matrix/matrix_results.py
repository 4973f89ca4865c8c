"""What the suite said in the environments, as numbers and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

__all__ = ["counts", "table", "well"]

SHOWN = ("monai", "torch", "numpy", "scipy", "pandas", "numba", "pydicom")
"""Versions that the table names; the JSON has all."""


def counts(junit: str) -> dict[str, Any]:
    """What pytest's JUnit file says: how many passed, failed, skipped, and which failed.

    >>> found = counts("<testsuites><testsuite><testcase classname='tests.a' name='b'><failure/></testcase>"
    ...                "<testcase classname='tests.a' name='c'/></testsuite></testsuites>")
    >>> found["passed"], found["failed"], found["failures"]
    (1, 1, ['tests.a::b'])
    """
    tally: Counter[str] = Counter({"passed": 0, "failed": 0, "skipped": 0})
    failures = set()
    for case in ElementTree.fromstring(junit).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        tally[outcome] += 1
        if outcome == "failed":
            failures.add(f"{case.get('classname')}::{case.get('name')}")
    return {**tally, "failures": sorted(failures)}


def well(found: Mapping[str, Any]) -> bool:
    return "not_run" not in found and found["tests"]["exit"] == 0 and found["tests"]["passed"] > 0


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown of all results.

    >>> tests = {"of": "all", "passed": 7, "failed": 0, "skipped": 1, "exit": 0, "seconds": 60}
    >>> found = {"python": "3.10", "date": "2026-11-25", "versions": {"monai": "1.6.0"}, "tests": tests}
    >>> print(table({"lowest": found}).splitlines()[-1])
    | lowest | 3.10 | monai 1.6.0 | all | 7 | 0 | 1 | 1 | 2026-11-25 |
    """
    lines = [
        "| pair | Python | versions | tests | passed | failed | skipped | minutes | date |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        shown = ", ".join(f"{one} {found['versions'][one]}" for one in SHOWN if one in found.get("versions", {}))
        if "not_run" in found:
            why = f"not run: {found['not_run']}"
            lines.append(f"| {name} | {found['python']} | {shown} | {why} | | | | | {found['date']} |")
            continue
        tests = found["tests"]
        numbers = " | ".join(str(tests[key]) for key in ("passed", "failed", "skipped"))
        minutes = round(tests["seconds"] / 60)
        lines.append(
            f"| {name} | {found['python']} | {shown} | {tests['of']} | {numbers} | {minutes} | {found['date']} |"
        )
    return "\n".join(lines)
