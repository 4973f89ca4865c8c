"""One self-contained HTML file: template, style, script and Plotly in it, nothing to load from anywhere."""

from __future__ import annotations

import importlib
from importlib import resources
from typing import Any

from ..version import __version__
from ..words import counted
from .figures import Figure, figure_json, pack
from .tables import figure_text

__all__ = ["render_document", "render_page", "require_extra"]

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
    from plotly.offline import get_plotlyjs

    return render_document(template, **content, script=_text("page.js"), plotly=pack(get_plotlyjs()))


def render_document(template: str, **content: Any) -> str:
    """A template filled as :func:`render_page` does it, for a page without script and Plotly."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("monai_calib.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn: list[str] = []

    def kept(figure: Figure) -> int:
        drawn.append(figure_json(figure))
        return len(drawn) - 1

    # Packed together at the page's end: what figures have in common, case ids above all, is then sent once.
    environment.filters |= {"counted": counted, "figure": figure_text, "kept": kept}
    environment.globals["kept_figures"] = lambda: pack(f"[{','.join(drawn)}]")
    return environment.get_template(template).render(**content, version=__version__, style=_text("page.css"))


def _text(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
