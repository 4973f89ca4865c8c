"""The floors of the package, file by file: what may import what, and how light the first import is.

Imports inside functions and under ``TYPE_CHECKING`` count like any other.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "monai_calib"
FLOORS = (
    {"losses", "metrics", "datasets"},
    {"transforms", "handlers", "posthoc", "clinical", "inferers"},
    {"report", "experiments", "bundling", "dicom", "predictions", "nnunet"},
    {"__main__"},
)
"""From the ground up: a part imports from its own floor or from one below; on the ground, from itself alone."""
BASIS = {
    "__init__", "arguments", "compiled", "files", "labels", "lock", "progress", "spreadsheet", "terminal", "variants",
    "version", "words"
}  # fmt: skip
"""Single files that everything may import, and that import nothing but each other."""
FORMER = {"data", "phantom"}
"""Names of 0.1.0 that only pass on what lies in ``datasets`` now; nothing here imports them."""


def _modules(package: Path) -> dict[str, Path]:
    """Every file of the package by the name one imports it by."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def _imports(name: str, path: Path, known: Iterable[str]) -> set[str]:
    """Files of the package that a file imports, absolutely or relatively, wherever in it."""
    inside = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = inside.split(".")[: inside.count(".") + 2 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # a module out of a package is that module, a name out of a module is the module
            found |= {full if (full := f"{base}.{alias.name}") in known else base for alias in node.names}
    return (found & set(known)) - {name}


def _graph(package: Path = PACKAGE) -> dict[str, set[str]]:
    modules = _modules(package)
    return {name: _imports(name, path, modules) for name, path in modules.items()}


def _circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Groups of files each of which imports all others of its group, directly or not."""
    reached = {name: _reached(graph, name) for name in graph}
    groups = []
    for name in graph:
        group = {other for other in reached[name] if name in reached[other]}
        if group and group not in groups:
            groups.append(group)
    return groups


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    left = list(graph[start])
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += graph[name]
    return seen


def _part(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def _floor(part: str) -> int:
    return next((k for k, parts in enumerate(FLOORS) if part in parts), len(FLOORS))


def _up_or_across(graph: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    wrong = set()
    for name, others in graph.items():
        for other in others:
            here, there = _part(name), _part(other)
            if here == there or there in BASIS or (here in FORMER and there not in FORMER):
                continue
            ground = _floor(here) == 0 and _floor(there) == 0
            if here in BASIS or there in FORMER or ground or _floor(there) > _floor(here):
                wrong.add((name, other))
    return wrong


def test_no_file_imports_in_a_circle() -> None:
    assert _circles(_graph()) == []


def test_no_import_runs_up_or_across_the_ground() -> None:
    assert _up_or_across(_graph()) == set()


def test_no_circle_among_the_parts() -> None:
    graph: dict[str, set[str]] = {}
    for name, others in _graph().items():
        graph.setdefault(_part(name), set())
        graph[_part(name)] |= {_part(other) for other in others} - {_part(name)} - FORMER
    assert _circles({part: others & graph.keys() for part, others in graph.items()}) == []


def test_every_part_has_its_floor() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts <= set().union(BASIS, FORMER, *FLOORS)


@pytest.mark.parametrize(
    ("files", "circles", "wrong"),
    [
        ({"losses/a.py": "from ..files import x", "files.py": ""}, [], []),
        (
            {"losses/a.py": "from .b import x", "losses/b.py": "def f():\n    from .a import y"},
            ["losses.a losses.b"],
            [],
        ),
        (
            {"losses/a.py": "if TYPE_CHECKING:\n    from ..report import x", "report/__init__.py": ""},
            [],
            ["losses.a report"],
        ),
        ({"metrics/a.py": "import pkg.losses.b", "losses/b.py": ""}, [], ["metrics.a losses.b"]),
        ({"files.py": "from .losses import b", "losses/b.py": ""}, [], ["files losses.b"]),
        ({"report/a.py": "from pkg.losses import b", "losses/b.py": "", "losses/__init__.py": ""}, [], []),
    ],
)
def test_the_check_sees_circles_and_imports_that_run_up(files, circles, wrong, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / "pkg" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pkg" / name).write_text(text)
    graph = _graph(tmp_path / "pkg")
    assert _circles(graph) == [{f"pkg.{name}" for name in circle.split()} for circle in circles]
    assert _up_or_across(graph) == {tuple(f"pkg.{name}" for name in pair.split()) for pair in wrong}


def test_the_package_imports_light() -> None:
    heavy = "{'matplotlib', 'plotly', 'ray', 'torch', 'monai'}"
    code = f"import sys, monai_calib; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert loaded == "[]"


def test_the_public_packages_import_little_beside_monai() -> None:
    """What they need for a table, a figure, a file or a test comes in when it is used."""
    heavy = "{'pandas', 'plotly', 'matplotlib', 'scipy', 'SimpleITK', 'nibabel', 'PIL', 'jinja2', 'ray', 'highdicom'}"
    packages = ", ".join(f"monai_calib.{name}" for name in ("losses", "metrics", "handlers", "posthoc", "transforms"))
    code = f"import sys, monai; there = set(sys.modules); import {packages}\n"
    code += f"print(sorted({heavy} & (set(sys.modules) - there)))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert loaded == "[]"


def test_second_versions_are_gone() -> None:
    """Each idea has one home: evaluations, bootstraps, histograms on disk, back ends of losses, readers of tables."""
    former = (
        *("losses/slabs.py", "posthoc/evaluation.py", "report/before_after.py", "report/changes.py"),
        *("report/volumes.py", "report/packing.py", "report/protocols.py", "report/measures.py", "metrics/serial.py"),
    )
    assert not [name for name in former if (PACKAGE / name).exists()]
    texts = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    for pattern, most in ((r"\.multinomial\(|\.choice\(.*replace", 1), (r"os\.replace\(", 3), (r"fcntl|msvcrt", 0)):
        found = [str(path.relative_to(PACKAGE)) for path, text in texts.items() if re.search(pattern, text)]
        assert len(found) <= most, f"{pattern}: one of each, got {found}"
