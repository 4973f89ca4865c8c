"""Pages of the built site in a real browser, opened from disk: no errors, no violations, and they fit a phone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_pages import ROOT

PAGES = (
    "index", "why", "start", "own_data", "losses", "report", "api/losses", "studies/results",
    "bundles/acdc_segmentation_2d",
)  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> Path:
    """Build the site, which says everything that is wrong in it, and skip without MkDocs."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="needs pip install monai_calib[docs]")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (420, "light")])
def test_a_page_has_no_errors_and_no_violations(
    chromium: Any, violations: Callable[[Any], list[str]], site: Path, name: str, width: int, scheme: str
) -> None:
    window = {"width": width, "height": 900}
    context = chromium.new_context(viewport=window, is_mobile=width < 500, color_scheme=scheme)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / f"{name}.html").as_uri())
    page.wait_for_timeout(300)  # the theme's own changes of the page
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    context.close()
