"""The page as a file: complete, self-contained, safe with hostile names, and graceful with little or odd input."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import sys
from html import escape
from html.parser import HTMLParser
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import plotly.graph_objects
import pytest
from synthetic_runs import write_run

from monai_calib.metrics.protocols import PROTOCOLS
from monai_calib.report.comparison import compare
from monai_calib.report.distributions import class_distribution, distribution
from monai_calib.report.figures import COLOURS, figure_json, pack
from monai_calib.report.html import write_report
from monai_calib.report.runs import read_runs

HOSTILE = '</script><img src=x onerror=alert(1)>&"\'<a href="https://example.org">'


def unpacked(letters: str) -> str:
    """What the page's script reads."""
    return gzip.decompress(base64.b85decode(letters.translate(str.maketrans(".,:", "&<>")))).decode()


class Page(HTMLParser):
    """What a page holds: its elements, ids, addresses, text outside scripts, and the figures' data."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.figures: list[dict[str, Any]] = []
        self.text = ""
        self._open: str | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            kind, name = (self.elements[-1][1].get(key) for key in ("type", "id"))
            packed = kind == "text/plain"
            self.scripts.append(unpacked(data) if packed else data)
            if packed and name == "figures":
                self.figures = json.loads(self.scripts[-1])
        elif self._open is None:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(run_folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = write_report(run_folders, tmp_path_factory.mktemp("page") / "report.html")
    return Page(path)


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:image/png;base64,", "#")), address
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy


def test_no_patient_data_but_case_names(page: Page, run_folders: list[Path]) -> None:
    assert "/secret/hospital" not in page.text + "".join(page.scripts)
    assert str(run_folders[0].parent) not in page.text + "".join(page.scripts)


def test_structure_for_screen_readers(page: Page) -> None:
    assert dict(page.elements[0][1]) == {"lang": "en"}
    assert len(page.all("main")) == 1
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    assert all(image.get("alt") for image in page.all("img"))
    assert all(canvas.get("aria-label") for canvas in page.all("div") if canvas.get("role") == "img")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {link["href"] for link in page.all("a")}
    assert targets <= {f"#{name}" for name in ids}
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels


def test_says_what_was_run_and_what_did_not_converge(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "7 runs of 3 methods on 6 cases of 6 subjects" in text
    assert "ce: seed 3 never found posterior" in text
    assert "Protocol paper: region foreground, 15 bins, macro average" in text
    assert "Protocol by_region: region boundary2mm, 15 bins, micro average" in text
    assert "The papers' protocol" in text


def test_every_figure_carries_its_data(page: Page) -> None:
    shown = [figure.get("data-figure") for figure in page.all("figure") if "plot" in (figure.get("class") or "")]
    assert shown == [str(place) for place in range(len(page.figures))]
    assert len(shown) > 20
    for figure in page.figures:
        header, *rows = figure["csv"].splitlines()
        assert rows or all(figure["grid"]), header
        plotly.graph_objects.Figure(figure["plot"])  # refuses what Plotly does not know
        assert figure["plot"]["data"]


def test_numbers_that_are_drawn_are_sent_once_and_downloaded_with_their_rows(run_folders: list[Path]) -> None:
    (comparison,) = compare(read_runs(run_folders))
    for figure in (
        distribution(comparison, comparison.columns_of_kind("ece")[0]),
        class_distribution(comparison, comparison.columns_of_kind("dice")[0]),
    ):
        assert figure is not None
        sent = json.loads(figure_json(figure))
        numbers = [number for trace in sent["plot"]["data"] for number in trace["x"]]
        rows = [",".join(names) for names in product(*sent["grid"])]
        whole = [f"{row},{'' if number is None else number}" for row, number in zip(rows, numbers, strict=True)]
        assert [sent["csv"], *whole] == figure.csv.splitlines()


def test_letters_hold_any_text_and_no_markup() -> None:
    for text in ("", "a", "<&>" * 7, "\u00e4\u2013" * 1000, "".join(map(chr, range(1, 300)))):
        assert unpacked(pack(text)) == text
        assert not set(pack(text)) & set("<>&\"'\\")


def test_tests_are_told_against_the_best_and_all_pairs_drawn(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "each method minus the best" in text
    assert "2 of 2" in text, "seeds that show the same sign"
    pairs = [f for f in page.figures if f["plot"]["data"][0]["type"] == "heatmap"]
    assert len(pairs) > 10
    for figure in pairs:
        (trace,) = figure["plot"]["data"]
        for i, row in enumerate(trace["z"]):
            assert row[i] is None
            assert all(row[j] == -trace["z"][j][i] for j in range(len(row)) if j != i)


def test_a_page_of_many_runs_stays_small(page: Page, run_folders: list[Path], tmp_path: Path) -> None:
    path = write_report(run_folders, tmp_path / "report.html")
    plotly_js = max(page.scripts, key=len)
    assert path.stat().st_size < len(plotly_js), "Plotly alone, as it comes, is larger than the page"


def test_text_from_files_stays_text(tmp_path: Path) -> None:
    settings = {"bundle": HOSTILE, "loss_name": HOSTILE, "network_name": HOSTILE, "seed": 1, "split": HOSTILE}
    names = ("background", HOSTILE, "=1+1")
    folders = [
        write_run(tmp_path / f"r{seed}", settings | {"seed": seed}, [0, 1, 2], class_names=names, protocols=["paper"])
        for seed in (1, 2)
    ]
    folders.append(
        write_run(tmp_path / "ce", settings | {"loss_name": "ce"}, [0, 1, 2], class_names=names, protocols=["paper"])
    )
    for folder in folders:
        path = folder / "eval" / "calibration.json"
        content = json.loads(path.read_text())
        content["protocols"]["paper"]["description"] = HOSTILE
        path.write_text(json.dumps(content))
    page = Page(write_report(folders, tmp_path / "report.html"))
    assert HOSTILE in page.text
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert all(link["href"].startswith("#") for link in page.all("a") if link["href"])
    assert all(str(image["src"]).startswith("data:image/png") for image in page.all("img"))
    assert len(page.figures) == sum("plot" in (figure.get("class") or "") for figure in page.all("figure"))
    labels = {str(trace.get("name")) for figure in page.figures for trace in figure["plot"]["data"]}
    assert escape(HOSTILE, quote=False) in labels, "Plotly reads markup in labels"


def test_one_run_on_one_case(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"loss_name": "ce", "seed": 1}, [0])
    page = Page(write_report([folder], tmp_path / "report.html"))
    text = " ".join(page.text.split())
    assert "1 run of 1 method on 1 case of 1 subject." in text
    assert "Paired tests" not in text.split("How the figures were made")[1]
    measured = [PROTOCOLS[name] for name in ("paper", "by_region")]
    tables = sum(len(protocol.regions) * len(protocol.reductions) for protocol in measured)
    assert len(page.all("table")) == tables + 4, "regions and reductions, at a glance, overview, runs, slices"


def test_runs_that_never_converged_give_tables_without_figures(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"loss_name": "ce", "seed": 1}, [0, 1], missed=1)
    page = Page(write_report([folder], tmp_path / "report.html"))
    assert "anterior never found" in page.text
    assert "did not converge" in page.text
    regions = sum(len(protocol.regions) for protocol in (PROTOCOLS["paper"], PROTOCOLS["by_region"]))
    plots = [figure for figure in page.all("figure") if "plot" in (figure.get("class") or "")]
    assert len(plots) == regions, "each run's reliability"


def test_without_previews_tables_or_figures(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"loss_name": "ce", "seed": 1}, [0, 1, 2])
    shutil.rmtree(folder / "eval" / "previews")
    for path in (folder / "eval").glob("*.csv"):
        path.unlink()
    path = folder / "eval" / "calibration.json"
    content = json.loads(path.read_text())
    for case in content["cases"]:
        case["metrics"] = {
            name: [None] * len(value) if isinstance(value, list) else None for name, value in case["metrics"].items()
        }
    content["summary"] = dict.fromkeys(content["summary"])
    path.write_text(json.dumps(content))
    page = Page(write_report([folder], tmp_path / "report.html"))
    assert "Worst and best cases" not in page.text
    assert "nan" not in page.text.lower().split()


def test_runs_that_differ_are_reported_apart(run_folders: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", {"bundle": "other", "loss_name": "ce", "seed": 1}, [0, 1])
    page = Page(write_report([run_folders[0], other], tmp_path / "report.html"))
    assert "Not one comparison." in page.text
    assert {path.name for path in (tmp_path / "report_tables").glob("*.csv")} == {
        f"comparison{number}_{name}.csv" for number in (1, 2) for name in ("results", "tests")
    }


def test_folder_as_output_and_the_same_page_twice(run_folders: list[Path], tmp_path: Path) -> None:
    first = write_report(run_folders[:2], tmp_path / "out")
    assert first == tmp_path / "out" / "report.html"
    content = first.read_bytes()
    assert write_report(run_folders[:2], tmp_path / "out").read_bytes() == content
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(ModuleNotFoundError, match=r"plotly.*pip install monai_calib\[report\]"):
        write_report([], tmp_path / "report.html")


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("ground", ["#ffffff", "#15181d"])
def test_colours_stand_out_on_light_and_dark_ground(colour: str, ground: str) -> None:
    low, high = sorted([_luminance(colour), _luminance(ground)])
    assert (high + 0.05) / (low + 0.05) >= 3.0, "WCAG 2.2, 1.4.11"
