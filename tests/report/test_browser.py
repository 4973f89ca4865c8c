"""The page in a real browser: it draws, sorts, toggles, downloads and prints, and asks the network nothing."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from monai_calib.report import write_report

PUBLISHED = {"title": "T", "source": "S", "columns": ["method", "DSC"], "rows": [["b", 0.8], ["a", 0.9]]}
pytestmark = pytest.mark.slow

DRAWN = """() => {
    const open = [...document.querySelectorAll('figure.plot')].filter(f => !f.closest('details:not([open])'));
    const missing = open.filter(f => !f.querySelector('.main-svg'));
    missing[0]?.scrollIntoView({behavior: 'instant'});
    return missing.length ? 0 : open.length;
}"""
CURVES = """() => [...document.querySelectorAll('.canvas.js-plotly-plot')].flatMap(plot => plot.data)
    .filter(trace => trace.legendgroup === 'nacl' && trace.visible !== false).length"""
PHONE = {"viewport": {"width": 420, "height": 900}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


def _until(part: Any, expression: str, seconds: float = 60.0) -> Any:
    """Return what a page, or an element of it, gives for an expression, as soon as it gives something.

    Playwright's own waiting asks from inside, by ``eval``, which our pages do not allow.
    """
    end = time.monotonic() + seconds
    while not (result := part.evaluate(expression)):
        assert time.monotonic() < end, f"the page did not get there: {expression}"
        time.sleep(0.1)
    return result


def _open(context: Any, address: Path) -> Any:
    """Open a page that notes its requests, and what the console says, in ``page.asked`` and ``page.said``."""
    page = context.new_page()
    page.asked, page.said = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(address.absolute().as_uri())
    _until(page, "document.documentElement.dataset.ready === 'true'", 120)
    return page


def _draw_all(page: Any) -> int:
    """Scroll to every figure of all regions that is not folded up, as a reader would; return their number."""
    page.evaluate("document.querySelectorAll('.regions input[value=\"\"]').forEach(box => box.click())")
    return int(_until(page, DRAWN, 300))


def _fits(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.fixture(scope="module")
def report(run_folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    published = root / "published.json"
    published.write_text(json.dumps({"format": "monai_calib/published/1", "tables": [PUBLISHED]}))
    return write_report(run_folders, root / "report.html", published)


@pytest.fixture(scope="module")
def page(chromium: Any, report: Path) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    yield _open(context, report)
    context.close()


def test_first_of_all_it_draws_without_errors_and_without_the_network(page: Any) -> None:
    at_first = page.locator("figure.plot .main-svg").count()
    assert _draw_all(page) > 20
    assert at_first < page.locator("figure.plot .main-svg").count()
    assert page.said == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert sum(url.startswith("file:") for url in page.asked) == 1


def _column(page: Any, column: int) -> list[float]:
    rows = page.locator("table.results").first.locator("tbody tr.method")
    return rows.evaluate_all("(rows, column) => rows.map(row => Number(row.cells[column].dataset.value))", column)


def test_sorting_by_keyboard_moves_methods_with_their_runs(page: Any) -> None:
    header = page.locator("table.results").first.locator("thead th").nth(2)
    button = header.locator("button")
    button.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert _column(page, 2) == sorted(_column(page, 2))
    assert "Sorted by DSC" in page.text_content("#status")
    button.press("Space")
    assert header.get_attribute("aria-sort") == "descending"
    assert _column(page, 2) == sorted(_column(page, 2), reverse=True)
    rows = page.locator("table.results").first.locator("tbody tr")
    methods = rows.evaluate_all("rows => rows.map(row => row.dataset.method)")
    assert [m for i, m in enumerate(methods) if i == 0 or m != methods[i - 1]] == list(dict.fromkeys(methods))


def test_one_region_at_a_time_by_keyboard_and_by_link(page: Any) -> None:
    def shown() -> list[str]:
        visible = "sections => sections.filter(one => one.checkVisibility()).map(one => one.id)"
        return page.locator("section.region").evaluate_all(visible)

    boxes = page.locator(".regions input")
    values = boxes.evaluate_all("boxes => boxes.map(box => box.value)")
    boxes.first.click()
    assert shown() == [values[0]]
    boxes.first.press("ArrowDown")
    assert shown() == [values[1]]
    page.click(f"nav a[href='#{values[3]}']")
    assert shown() == [values[3]]
    boxes.last.click()
    assert shown() == values[:-1]


def test_every_run_can_be_shown(page: Any) -> None:
    runs = page.locator("table.results").first.locator("tr.run").all()
    assert runs
    assert not any(run.is_visible() for run in runs)
    page.locator("[data-show-runs]").first.press("Space")
    assert all(run.is_visible() for run in runs)
    page.locator("[data-show-runs]").first.press("Space")


def test_methods_can_be_hidden_from_all_figures(page: Any) -> None:
    assert page.evaluate(CURVES) > 10
    page.locator("[data-methods=none]").press("Enter")
    assert page.evaluate(CURVES) == 0
    page.locator("[data-methods=all]").press("Enter")
    box = page.locator(".methods input[value=nacl]")
    box.press("Space")
    assert page.evaluate(CURVES) == 0
    box.press("Space")
    assert page.evaluate(CURVES) > 10


def test_folded_figures_are_drawn_when_unfolded(page: Any) -> None:
    details = page.locator(".region details", has_text="More plots").first
    summary, box = details.locator("summary").first, page.locator(".methods input[value=nacl]")
    assert details.locator(".main-svg").count() == 0
    summary.press("Enter")
    details.locator(".canvas.js-plotly-plot").nth(3).wait_for(timeout=60_000)
    summary.press("Enter")
    box.press("Space")
    summary.press("Enter")
    first = details.locator(".canvas.js-plotly-plot").first
    first.scroll_into_view_if_needed()
    hidden = "plot => plot.data.filter(t => t.legendgroup === 'nacl').every(t => t.visible === false)"
    _until(first, hidden)
    box.press("Space")
    summary.press("Enter")


def _downloaded(page: Any, part: Any, kind: str) -> Path:
    with page.expect_download() as waiting:
        part.locator(f"[data-download={kind}]").click()
    assert waiting.value.suggested_filename == f"{part.get_attribute('data-name')}.{kind}"
    return Path(waiting.value.path())


def test_downloads_are_an_svg_and_a_table(page: Any) -> None:
    figure = page.locator("figure.plot").first
    assert _downloaded(page, figure, "svg").read_text().startswith("<svg")
    rows = list(csv.DictReader(_downloaded(page, figure, "csv").open()))
    assert {row["series"] for row in rows} == {"ce", "dice_ce", "nacl"}
    assert len(rows) == 3 * 15


def test_slices_are_downloaded_as_one_drawing_and_its_figures(page: Any) -> None:
    section = page.locator("section.case").first
    drawing = ElementTree.parse(_downloaded(page, section, "svg")).getroot()
    images = drawing.findall("{http://www.w3.org/2000/svg}image")
    assert len(images) == 2 + 3 * 3, "image and truth, then prediction, confidence and gap of three methods"
    assert all(image.attrib["href"].startswith("data:image/png") for image in images)
    rows = list(csv.DictReader(_downloaded(page, section, "csv").open()))
    assert [row["method"] for row in rows] == ["ce", "dice_ce", "nacl"]
    assert all(0 <= int(row["wrong and sure"]) <= int(row["wrong pixels"]) <= int(row["pixels"]) for row in rows)


def test_published_figures_stand_apart_and_sort(page: Any) -> None:
    section = page.locator("#published")
    assert "Not measured here." in section.inner_text()
    section.locator("thead button").first.press("Enter")
    assert section.locator("tbody th").all_inner_texts() == ["a", "b"]


def test_a_window_made_narrow_draws_figures_that_fit(page: Any) -> None:
    widest = "Math.max(...[...document.querySelectorAll('.canvas')].map(one => one.clientWidth))"
    page.set_viewport_size({"width": 360, "height": 740})
    _until(page, f"{widest} <= 360")
    assert _fits(page)
    page.set_viewport_size({"width": 1280, "height": 1000})
    _until(page, f"{widest} > 360")


def test_dark_and_light_text_contrasts_with_its_ground(page: Any) -> None:
    ground, text = ("getComputedStyle(document.body)." + name for name in ("backgroundColor", "color"))
    seen = {}
    for scheme, colour in (("dark", "rgb(21, 24, 29)"), ("light", "rgb(255, 255, 255)")):
        page.emulate_media(color_scheme=scheme)
        drawn = f"document.querySelector('.xtitle').style.fill === {text}"
        _until(page, f"{ground} === '{colour}' && {drawn}")
        seen[scheme] = page.evaluate(text)
    assert seen["dark"] != seen["light"]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing_on_the_wide_page(page: Any, violations: Callable[[Any], list[str]], scheme: str) -> None:
    """With every figure drawn, and everything unfolded."""
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    _draw_all(page)
    assert violations(page) == []
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = false; })")


def test_prints_without_cutting_off(page: Any) -> None:
    page.evaluate(
        "window.widths = []; addEventListener('beforeprint', () => { window.widths ="
        "[...document.querySelectorAll('.canvas .main-svg')].filter(s => !s.closest('details:not([open])'))"
        ".map(s => Number(s.getAttribute('width'))); })"
    )
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    widths = set(page.evaluate("window.widths"))
    assert widths
    assert widths <= {322, 664}, "two figures fit side by side on A4, or one"
    _until(page, "document.querySelector('.canvas .main-svg').clientWidth > 330")
    assert page.said == []


@pytest.mark.parametrize("which", ["comparison", "calibration"])
def test_a_phone_shows_all_without_errors_or_violations(
    chromium: Any, violations: Callable[[Any], list[str]], which: str, report: Path, calibrated: Path, tmp_path: Path
) -> None:
    address = report if which == "comparison" else write_report([calibrated], tmp_path / "report.html")
    context = chromium.new_context(**PHONE)
    page = _open(context, address)
    assert _draw_all(page) > 7
    assert page.evaluate("innerWidth") == 420
    assert _fits(page)
    assert violations(page) == []
    assert page.said == []
    context.close()


def test_page_on_a_calibration_sorts(chromium: Any, calibrated: Path, tmp_path: Path) -> None:
    context = chromium.new_context()
    page = _open(context, write_report([calibrated], tmp_path / "report.html"))
    table = page.locator("#section-1-2 table.results").first
    page.click("nav a[href='#section-1-2']")
    table.locator("thead button").nth(2).press("Enter")
    values = table.locator("tbody tr").evaluate_all("rows => rows.map(row => Number(row.cells[2].dataset.value))")
    assert values == sorted(values)
    assert page.said == []
    context.close()


def test_axe_is_awake(chromium: Any, violations: Callable[[Any], list[str]]) -> None:
    page = chromium.new_page()
    page.set_content(
        "<html lang=en><title>t</title><main><h1>t</h1><p style='color:#ccc'>pale</p><img src=a.png></main>"
    )
    assert [one.split()[0] for one in violations(page)] == ["color-contrast", "image-alt"]
    page.close()
