"""One self-contained HTML file: template, style, script and Plotly in it, nothing to load from anywhere."""

from __future__ import annotations

import importlib
import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from ..version import __version__
from .figures import p_text, pack, packed
from .tables import figure_text

__all__ = ["render_page", "require_extra", "write_page"]

_EXTRA = ("jinja2", "plotly", "PIL", "pandas")


def require_extra() -> None:
    """Raises ``ModuleNotFoundError``, saying what to install, if the extra ``report`` is missing."""
    for module in _EXTRA:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"A report needs the package {error.name!r}, which is not installed: pip install monai_calib[report]",
                name=error.name,
            ) from error


def render_page(template: str, **content: Any) -> str:
    """A template of this folder filled with its content; text in it is text and no markup."""
    import jinja2
    from plotly.offline import get_plotlyjs

    here = resources.files(__package__)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("monai_calib.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure_text, "p": p_text, "packed": packed}
    return environment.get_template(template).render(
        **content,
        version=__version__,
        style=(here / "page.css").read_text(encoding="utf-8"),
        script=(here / "page.js").read_text(encoding="utf-8"),
        plotly=pack(get_plotlyjs()),
    )


def write_page(path: Path, text: str) -> None:
    """Writes a file in one step: it is there in full or as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
        try:
            file.write(text)
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
