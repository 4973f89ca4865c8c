"""Bring pages from outside docs/ and notebooks onto the site, and write the API pages from the packages' ``__all__``.

MkDocs reads docs/ alone, and a link such as ``../studies/results.md`` leads out of it. GitHub follows it as it is; here
the file is added under the place that PLACES names, and links to it are rewritten to lead there.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
API = ("losses", "metrics", "posthoc", "clinical", "handlers", "transforms", "inferers", "datasets")
LINK = re.compile(r"\]\(([^)\s]+)\)")
EMPTY_HEADER = re.compile(r"<th([^>]*)></th>")
ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):<code>~?([\w.]+)</code>")


def places() -> dict[str, str]:
    """Return where files of the repository lie on the site, both relative to their roots.

    Pages above docs/ would meet its own names there: a bundle's page becomes bundles/NAME.md.
    """
    found = {f"docs/{path.relative_to(ROOT / 'docs').as_posix()}": path for path in sorted((ROOT / "docs").rglob("*"))}
    at = {name: name.removeprefix("docs/") for name, path in found.items() if path.is_file() and path.suffix != ".pyc"}
    at |= {name: f"{place[:-6]}.md" for name, place in at.items() if name.endswith(".ipynb")}
    for pattern in ("studies/*.md", "studies/*.json", "studies/figures/*.png", "studies/figures/*.svg"):
        at |= {name: name for name in (path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob(pattern)))}
    at |= {f"{name}.md": f"{name.lower()}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")}
    for page in sorted(ROOT.glob("bundles/*/docs/README.md")):
        at[page.relative_to(ROOT).as_posix()] = f"bundles/{page.parents[1].name}.md"
    at |= {f"monai_calib/{package}/__init__.py": f"api/{package}.md" for package in API}
    return at


PLACES = places()


def public_names(package: str) -> list[str]:
    """Return ``__all__`` of a package without importing it."""
    tree = ast.parse((ROOT / "monai_calib" / package / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    raise ValueError(f"monai_calib/{package}/__init__.py: expected __all__, got none.")


def api_page(package: str) -> str:
    """Return the page of a package: its docstring's headline and every public name."""
    source = (ROOT / "monai_calib" / package / "__init__.py").read_text(encoding="utf-8")
    headline = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0]
    names = sorted(public_names(package), key=str.lower)
    blocks = [f"::: monai_calib.{package}.{name}" for name in names]
    return "\n\n".join([f"# monai_calib.{package}", headline, *blocks]) + "\n"


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as it was last run as Markdown, and its pictures by the names that the page gives them.

    A picture's text for who cannot see it is the ``alt`` of its cell's metadata.
    """
    parts, pictures = [], {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        language = "bash" if source.startswith("%%bash\n") else "python"
        parts.append(f"```{language}\n{source.removeprefix('%%bash').strip()}\n```")
        for output in cell["outputs"]:
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            elif "image/png" in output.get("data", {}):
                name = f"{path.stem}_{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(output["data"]["image/png"]))
                parts.append(f"![{cell['metadata']['alt']}]({name})")
    parts.append(f'<a href="{path.name}" download>This page as a notebook</a>')
    return "\n\n".join(parts) + "\n", pictures


def named(menu: Any) -> list[str]:
    """Return the pages that a menu, or a part of it, names."""
    if isinstance(menu, str):
        return [menu]
    return [page for part in (menu.values() if isinstance(menu, dict) else menu) for page in named(part)]


def on_config(config: Any) -> Any:
    """Append pages that the menu does not name to "Studies" or "Guide", under their headings."""
    sections = {name: pages for part in config["nav"] for name, pages in part.items()}
    for page in sorted({place for place in PLACES.values() if place.endswith(".md")} - set(named(config["nav"]))):
        sections["Studies" if page.startswith("studies/") else "Guide"].append(page)
    return config


def on_files(files: Any, config: Any) -> Any:
    for name, place in PLACES.items():
        if place.startswith("api/"):
            files.append(File.generated(config, place, content=api_page(Path(place).stem)))
        elif name.endswith(".ipynb"):
            page, pictures = notebook_page(ROOT / name)
            files.append(File.generated(config, place, content=page))
            for picture, content in pictures.items():
                files.append(File.generated(config, f"{Path(place).parent.as_posix()}/{picture}", content=content))
        elif not name.startswith("docs/"):
            files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links that lead to another place on the site than in the repository."""
    here = page.file.src_uri
    name = next((name for name, place in PLACES.items() if place == here), "")
    if not name.endswith((".md", ".ipynb")):
        return markdown

    def rewrite(match: re.Match[str]) -> str:
        link = urlsplit(match[1])
        if link.scheme or not link.path:
            return match[0]
        target = os.path.normpath(os.path.join(os.path.dirname(name), link.path)).replace(os.sep, "/")
        if target not in PLACES:  # strict: MkDocs tells it as a link that leads nowhere
            return match[0]
        leads = os.path.relpath(PLACES[target], os.path.dirname(here) or ".").replace(os.sep, "/")
        return f"]({leads}{'#' + link.fragment if link.fragment else ''})"

    return LINK.sub(rewrite, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Turn Sphinx roles of docstrings into links, where the site has the name; a header that says nothing is a cell."""

    def link(match: re.Match[str]) -> str:
        short = match[1].rpartition(".")[2]
        return f'<autoref identifier="{match[1]}" optional><code>{short}</code></autoref>'

    return ROLE.sub(link, EMPTY_HEADER.sub(r"<td\1></td>", html))
