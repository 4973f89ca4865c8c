"""The floors of the package: what may import what, and how light the first import is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "monai_calib"
# each part may import the parts listed for it, besides itself and the basis (single files that everything may use)
MAY_IMPORT = {
    "losses": set(),
    "metrics": set(),
    "clinical": set(),
    "transforms": {"clinical"},
    "datasets": {"phantom"},
    "phantom": set(),
    "experiments": {"losses", "posthoc", "report"},
    "inferers": set(),
    "dicom": set(),
    "data": set(),
    "handlers": {"losses", "metrics"},
    "posthoc": {"losses", "metrics", "clinical"},
    "report": {"losses", "metrics"},
}
BASIS = {"compiled", "files", "labels", "lock", "version"}


def _imported_parts(path: Path) -> set[str]:
    """The parts of the package that a file imports, absolutely or relatively."""
    parts = set()
    inside = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = inside[: len(inside) - (node.level - 1)]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            parts |= {(*base, *name.split("."))[0] for name in names}
        else:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            parts |= {name.split(".")[1] for name in names if name.startswith("monai_calib.")}
    return parts


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_no_import_runs_up_or_across(part: str) -> None:
    files = [PACKAGE / f"{part}.py"] if (PACKAGE / f"{part}.py").exists() else sorted((PACKAGE / part).glob("**/*.py"))
    allowed = MAY_IMPORT[part] | BASIS | {part}
    wrong = {str(path.relative_to(PACKAGE)): _imported_parts(path) - allowed for path in files}
    assert not {path: parts for path, parts in wrong.items() if parts}


def test_every_part_has_its_floor() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__", "__main__"} <= MAY_IMPORT.keys() | BASIS


def test_the_package_imports_light() -> None:
    heavy = "{'matplotlib', 'plotly', 'ray', 'torch', 'monai'}"
    code = f"import sys, monai_calib; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert loaded == "[]"
