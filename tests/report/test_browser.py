"""The page in a real browser: it draws, sorts, toggles, downloads and prints, and asks the network nothing."""

from __future__ import annotations

import base64
import csv
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from monai_calib.report import write_report

selenium = pytest.importorskip("selenium")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,1000",
)
PUBLISHED = {"title": "T", "source": "S", "columns": ["method", "DSC"], "rows": [["b", 0.8], ["a", 0.9]]}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver"),
]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(
    run_folders: list[Path], downloads: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[webdriver.Chrome]:
    root = tmp_path_factory.mktemp("page")
    published = root / "published.json"
    published.write_text(json.dumps({"format": "monai_calib/published/1", "tables": [PUBLISHED]}))
    page = write_report(run_folders, root / "report.html", published)
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    try:
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        driver.get(page.as_uri())
        _wait(lambda: driver.execute_script("return document.documentElement.dataset.ready") == "true")
        yield driver
    finally:
        driver.quit()


def _wait(done: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = done()
        if result:
            return result
        time.sleep(0.1)
    raise AssertionError("the page did not get there")


UNDRAWN = """
    const open = [...document.querySelectorAll('figure.plot')].filter(f => !f.closest('details:not([open])'));
    const missing = open.filter(f => !f.querySelector('.main-svg'));
    missing[0]?.scrollIntoView({behavior: 'instant'});
    return [missing.length, open.length];
"""


def _draw_all(browser: webdriver.Chrome) -> int:
    """Scrolls to every figure that is not folded up, as a reader would, until all are drawn; gives their number.

    Of all regions, which then stay on the page.
    """
    browser.execute_script("document.querySelectorAll('.regions input[value=\"\"]').forEach(box => box.click())")
    _wait(lambda: browser.execute_script(UNDRAWN)[0] == 0, 300)
    return int(browser.execute_script(UNDRAWN)[1])


def test_first_of_all_it_draws_without_errors_and_without_the_network(browser: webdriver.Chrome) -> None:
    at_first = browser.execute_script("return document.querySelectorAll('figure.plot .main-svg').length")
    assert _draw_all(browser) > 20
    assert at_first < browser.execute_script("return document.querySelectorAll('figure.plot .main-svg').length")
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    # The browser's own start page asks for its own parts.
    requests = [request["request"]["url"] for request in sent if request["documentURL"].startswith("file:")]
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert sum(url.startswith("file:") for url in requests) == 1


def _column(browser: webdriver.Chrome, column: int) -> list[float]:
    return browser.execute_script(
        "return [...document.querySelector('table.results').tBodies[0].querySelectorAll('tr.method')]"
        ".map(row => Number(row.cells[arguments[0]].dataset.value))",
        column,
    )


def test_sorting_by_keyboard_moves_methods_with_their_runs(browser: webdriver.Chrome) -> None:
    header = browser.find_elements(By.CSS_SELECTOR, "table.results thead th")[2]
    button = header.find_element(By.TAG_NAME, "button")
    button.send_keys(Keys.ENTER)
    assert header.get_attribute("aria-sort") == "ascending"
    assert _column(browser, 2) == sorted(_column(browser, 2))
    assert "Sorted by DSC" in browser.find_element(By.ID, "status").get_attribute("textContent")
    button.send_keys(Keys.SPACE)
    assert header.get_attribute("aria-sort") == "descending"
    assert _column(browser, 2) == sorted(_column(browser, 2), reverse=True)
    rows = browser.find_elements(By.CSS_SELECTOR, "table.results:first-of-type tbody")[0].find_elements(
        By.TAG_NAME, "tr"
    )
    methods = [row.get_attribute("data-method") for row in rows]
    assert [m for i, m in enumerate(methods) if i == 0 or m != methods[i - 1]] == list(dict.fromkeys(methods))


def test_one_region_at_a_time_by_keyboard_and_by_link(browser: webdriver.Chrome) -> None:
    def shown() -> list[str | None]:
        sections = browser.find_elements(By.CSS_SELECTOR, "section.region")
        return [section.get_attribute("id") for section in sections if section.is_displayed()]

    boxes = browser.find_elements(By.CSS_SELECTOR, ".regions input")
    boxes[0].click()
    assert shown() == [boxes[0].get_attribute("value")]
    boxes[0].send_keys(Keys.ARROW_DOWN)
    assert shown() == [boxes[1].get_attribute("value")]
    browser.find_element(By.CSS_SELECTOR, f"nav a[href='#{boxes[3].get_attribute('value')}']").click()
    assert shown() == [boxes[3].get_attribute("value")]
    boxes[-1].click()
    assert len(shown()) == len(boxes) - 1


def test_every_run_can_be_shown(browser: webdriver.Chrome) -> None:
    runs = browser.find_elements(By.CSS_SELECTOR, "table.results")[0].find_elements(By.CSS_SELECTOR, "tr.run")
    assert not any(run.is_displayed() for run in runs)
    toggle = browser.find_element(By.CSS_SELECTOR, "[data-show-runs]")
    toggle.send_keys(Keys.SPACE)
    assert all(run.is_displayed() for run in runs)
    toggle.send_keys(Keys.SPACE)


def test_methods_can_be_hidden_from_all_figures(browser: webdriver.Chrome) -> None:
    visible = (
        "return [...document.querySelectorAll('.canvas.js-plotly-plot')].flatMap(plot => plot.data)"
        ".filter(trace => trace.legendgroup === 'nacl' && trace.visible !== false).length"
    )
    assert browser.execute_script(visible) > 10
    none, all_ = (browser.find_element(By.CSS_SELECTOR, f"[data-methods={which}]") for which in ("none", "all"))
    none.send_keys(Keys.ENTER)
    assert browser.execute_script(visible) == 0
    all_.send_keys(Keys.ENTER)
    box = browser.find_element(By.CSS_SELECTOR, ".methods input[value='nacl']")
    box.send_keys(Keys.SPACE)
    assert browser.execute_script(visible) == 0
    box.send_keys(Keys.SPACE)
    assert browser.execute_script(visible) > 10


def test_folded_figures_are_drawn_when_unfolded(browser: webdriver.Chrome) -> None:
    folded = browser.find_elements(By.CSS_SELECTOR, ".region details")
    details = next(one for one in folded if "More plots" in one.text)
    assert not details.find_elements(By.CSS_SELECTOR, ".main-svg")
    details.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    _wait(lambda: len(details.find_elements(By.CSS_SELECTOR, ".canvas.js-plotly-plot")) > 3)
    details.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    box = browser.find_element(By.CSS_SELECTOR, ".methods input[value='nacl']")
    box.send_keys(Keys.SPACE)
    details.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    first = details.find_element(By.CSS_SELECTOR, ".canvas.js-plotly-plot")
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", first)
    hidden = "return arguments[0].data.filter(t => t.legendgroup === 'nacl').every(t => t.visible === false)"
    _wait(lambda: browser.execute_script(hidden, first))
    box.send_keys(Keys.SPACE)
    details.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)


def test_downloads_are_an_svg_and_a_table(browser: webdriver.Chrome, downloads: Path) -> None:
    figure = browser.find_element(By.CSS_SELECTOR, "figure.plot")
    name = figure.get_attribute("data-name")
    for kind in ("svg", "csv"):
        browser.execute_script("arguments[0].click()", figure.find_element(By.CSS_SELECTOR, f"[data-download={kind}]"))
        _wait(lambda kind=kind: (downloads / f"{name}.{kind}").exists())
    assert (downloads / f"{name}.svg").read_text().startswith("<svg")
    rows = list(csv.DictReader((downloads / f"{name}.csv").open()))
    assert {row["series"] for row in rows} == {"ce", "dice_ce", "nacl"}
    assert len(rows) == 3 * 15


def test_slices_are_downloaded_as_one_drawing_and_its_figures(browser: webdriver.Chrome, downloads: Path) -> None:
    section = browser.find_element(By.CSS_SELECTOR, "section.case")
    name = section.get_attribute("data-name")
    for kind in ("svg", "csv"):
        browser.execute_script("arguments[0].click()", section.find_element(By.CSS_SELECTOR, f"[data-download={kind}]"))
        _wait(lambda kind=kind: (downloads / f"{name}.{kind}").exists())
    drawing = ElementTree.parse(downloads / f"{name}.svg").getroot()
    images = drawing.findall("{http://www.w3.org/2000/svg}image")
    assert len(images) == 2 + 3 * 3, "image and truth, then prediction, confidence and gap of three methods"
    assert all(image.attrib["href"].startswith("data:image/png") for image in images)
    rows = list(csv.DictReader((downloads / f"{name}.csv").open()))
    assert [row["method"] for row in rows] == ["ce", "dice_ce", "nacl"]
    assert all(0 <= int(row["wrong and sure"]) <= int(row["wrong pixels"]) <= int(row["pixels"]) for row in rows)


def test_published_figures_stand_apart_and_sort(browser: webdriver.Chrome) -> None:
    section = browser.find_element(By.ID, "published")
    assert "Not measured here." in section.text
    section.find_element(By.CSS_SELECTOR, "thead button").send_keys(Keys.ENTER)
    assert [cell.text for cell in section.find_elements(By.CSS_SELECTOR, "tbody th")] == ["a", "b"]


def test_fits_a_phone(browser: webdriver.Chrome) -> None:
    device = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    try:
        widest = "return Math.max(...[...document.querySelectorAll('.canvas')].map(s => s.clientWidth))"
        _wait(lambda: browser.execute_script(widest) <= 360)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        _wait(lambda: browser.execute_script(widest) > 360)


def test_dark_and_light_text_contrasts_with_its_ground(browser: webdriver.Chrome) -> None:
    colours = (
        "const css = getComputedStyle(document.body);"
        "return [css.color, css.backgroundColor, document.querySelector('.xtitle').style.fill]"
    )
    seen = {}
    for scheme in ("dark", "light"):
        feature = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
        ground = "rgb(21, 24, 29)" if scheme == "dark" else "rgb(255, 255, 255)"
        _wait(lambda ground=ground: browser.execute_script(colours)[1] == ground)
        _wait(lambda: (c := browser.execute_script(colours))[0] == c[2])
        seen[scheme] = browser.execute_script(colours)
    assert seen["dark"] != seen["light"]


def test_prints_without_cutting_off(browser: webdriver.Chrome) -> None:
    browser.execute_script(
        "window.widths = []; addEventListener('beforeprint', () => window.widths ="
        "[...document.querySelectorAll('.canvas .main-svg')].filter(s => !s.closest('details:not([open])'))"
        ".map(s => Number(s.getAttribute('width'))))"
    )
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    widths = set(browser.execute_script("return window.widths"))
    assert widths <= {322, 664}, "two figures fit side by side on A4, or one"
    _wait(lambda: browser.execute_script("return document.querySelector('.canvas .main-svg').clientWidth") > 330)
    assert browser.get_log("browser") == []


def test_page_on_a_calibration_draws_sorts_and_fits_a_phone(
    browser: webdriver.Chrome, calibrated: Path, tmp_path: Path
) -> None:
    page = write_report([calibrated], tmp_path / "report.html")
    browser.get(page.absolute().as_uri())
    _wait(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "true")
    assert _draw_all(browser) > 7
    table = browser.find_element(By.CSS_SELECTOR, "#section-1-2 table.results")
    table.find_elements(By.CSS_SELECTOR, "thead button")[2].send_keys(Keys.ENTER)
    values = [float(row.find_elements(By.TAG_NAME, "td")[1].get_attribute("data-value"))
              for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")]  # fmt: skip
    assert values == sorted(values)
    device = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    _wait(lambda: browser.execute_script("return document.documentElement.clientWidth") == 360)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert browser.get_log("browser") == []
