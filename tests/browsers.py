"""A real browser for the tests of what we write as HTML: any Chromium or Chrome, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start the browser that is installed; skip without one. It is headless, and no page may load from elsewhere.

    For a module, not a session: while Playwright waits, other tests of the process could run no event loop.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install monai_calib[dev]")
    binary = next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        pytest.skip("needs chromium or google-chrome")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=binary, args=["--disable-gpu", "--disable-quic"])
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="session")
def violations() -> Callable[[Any], list[str]]:
    """Return what axe-core finds on a page: rule, impact, and the first of the elements."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def find(page: Any) -> list[str]:
        # Style sheets are not fetched anew: from disk, no browser would.
        options = {"resultTypes": ["violations"], "preload": False}
        found = axe.run(page, options=options).response["violations"]
        return [f"{one['id']} ({one['impact']}), {len(one['nodes'])}: {one['nodes'][0]['html'][:160]}" for one in found]

    return find
