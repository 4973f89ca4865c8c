"""What the pages on losses share: comparisons made by ``python -m monai_calib benchmark``, kept run by run.

A page has parts; a part is one data set, network and schedule. Runs of a comparison that is named, ``NAME=OUT/runs``,
are added to those kept under its name in cases/, where every case's figures lie, so that a seed or a loss can be added
on another machine. Of the first parts the means alone were kept; named again, they are replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import write_json
from results import (
    AGAINST,
    RATERS,
    change_table,
    figure_table,
    figures_of,
    kept_runs,
    merged,
    name_of,
    seed_table,
)

CASES = Path(__file__).with_name("cases")
COLUMNS = (
    "dsc",
    "ece_foreground_15bins",
    "ece_boundary2mm_15bins",
    "ece_all_15bins",
    "nll_all",
    "gap_boundary2mm",
    "expected_volume_error",
)
DRAWN = (("ece_foreground_15bins", "ECE of the foreground"), ("nll_all", "NLL of the whole image"))

MARKS = (
    [1, 2, 5],
    [1, 1.5, 2, 3, 5, 7],
    [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7, 8, 9],
    [number / 10 for number in range(10, 100)],
)
"""What may be marked on a logarithmic axis, per decade; coarse to fine."""


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two: the coarsest of :data:`MARKS` that gives three, five at most."""
    found: list[float] = []
    for marks in MARKS:
        found = [mark * 10**power for power in range(-6, 2) for mark in marks if low <= mark * 10**power <= high]
        if len(found) >= 3:
            break
    return found[:: -(-len(found) // 5) or 1]


def cases_of(page: str, name: str) -> Path:
    """Where the figures of every case of a part of a page are kept."""
    return CASES / page / f"{re.sub(r'[^0-9A-Za-z]+', '_', name)}.json"


def measured(page: str, name: str, folder: Path, against: Sequence[str], loss: str = "") -> dict[str, Any]:
    """Figures of one comparison, whose runs must be alike but for loss, seed and correction, with those kept before.

    Runs whose loss was given as an expression, ``--set loss=...``, are kept under the name ``loss``.
    """
    added, one = kept_runs(folder)
    for run in added["runs"]:
        run["loss_name"] = loss or run["loss_name"]
    path = cases_of(page, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = merged(json.loads(path.read_text(encoding="utf-8")) if path.exists() else None, added)
    write_json(path, kept, depth=2)
    shared = {key: one.settings[key] for key in ("bundle", "network_name", "epochs", "batch_size", "patch_size")}
    unit = "mm" if "ece_boundary2mm_15bins" in one.values else "px" if "hd95_px" in one.values else "voxel"
    return {"part": name, **figures_of(kept, corrected=True, against=against), "settings": shared, "unit": unit}


def read_parts(path: Path, given: Sequence[str], against: Sequence[str] = AGAINST) -> list[dict[str, Any]]:
    """The parts of a page, with the runs of those named in ``given`` (``NAME=OUT/runs`` or ``NAME=OUT/runs=LOSS``); all
    figures anew from the kept cases, where there are any."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    if given:
        known = {part["part"]: part for part in kept}
        for text in given:
            name, folder, *loss = text.split("=", 2)
            known[name] = measured(path.stem, name, Path(folder), against, *loss)
        kept = list(known.values())
    for part in kept:
        if (cases := cases_of(path.stem, part["part"])).exists():
            part |= figures_of(json.loads(cases.read_text(encoding="utf-8")), corrected=True, against=against)
    write_json(path, kept, depth=3)
    return kept


def tables(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """All tables of the page by name; a part has no table that would have no row."""
    made: dict[str, str] = {}
    for part in parts:
        of, unit = part["part"], part["unit"]
        made[of] = figure_table(part, COLUMNS)
        corrected = [each for each in part["changes"] if each["method"].endswith("→ auto")]
        if any(each["against"] == "`dice_ce` → auto" for each in corrected):
            made[f"corrected, {of}"] = change_table({"changes": corrected}, "`dice_ce` → auto", COLUMNS[:5])
        if all("dice_raters" in method["figures"] for method in part["methods"]):
            made[f"raters, {of}"] = figure_table(part, tuple(RATERS))
        if any(len(method["seeds"]) > 1 for method in part["methods"]):
            made[f"seeds, {of}"] = seed_table(part, COLUMNS)
        made |= {name: text.replace("2 mm", f"2 {unit}") for name, text in made.items() if name.endswith(of)}
    return made


def draw(parts: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A row a loss, best corrected NLL on top: a point as trained, an arrow to where its correction takes it."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams |= {"svg.hashsalt": path.stem, "svg.fonttype": "none", "font.size": 9}
    rows = [sum(not method["posthoc"] for method in part["methods"]) for part in parts]
    picture, axes = plt.subplots(
        len(parts),
        len(DRAWN),
        figsize=(9.5, 0.26 * sum(rows) + 1.0 * len(parts)),
        squeeze=False,
        sharey="row",
        gridspec_kw={"height_ratios": rows},
    )
    for row, part in zip(axes, parts, strict=True):
        for axis, (name, title) in zip(row, DRAWN, strict=True):
            _draw_panel(axis, part, name)
            axis.set(xlabel=title)
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_title(part["part"], loc="left")
    picture.tight_layout()
    picture.savefig(path, metadata={"Date": None})
    plt.close(picture)


def _draw_panel(axis: Any, part: Mapping[str, Any], name: str) -> None:
    trained = {_training(method): method for method in part["methods"] if not method["posthoc"]}
    corrected = {_training(method): method["figures"] for method in part["methods"] if method["posthoc"]}
    order = sorted(trained, key=lambda key: -corrected.get(key, trained[key]["figures"])["nll_all"][0])
    for place, key in enumerate(order):
        before, after = trained[key]["figures"][name][0], corrected.get(key, trained[key]["figures"])[name][0]
        if before != after:
            arrow = {"arrowstyle": "-|>", "color": "#1b7837", "lw": 1.0, "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", (after, place), (before, place), arrowprops=arrow)
        axis.plot(before, place, "o", ms=4.5, color="#b2182b", zorder=3)
    axis.set_yticks(range(len(order)), [_short(trained[key]) for key in order])
    axis.set_xscale("log")
    values = [figures[name][0] for key in order for figures in (trained[key]["figures"], corrected.get(key)) if figures]
    low, high = min(values) / 1.05, max(values) * 1.05
    axis.set(xlim=(low, high), ylim=(-0.6, len(order) - 0.4))
    axis.set_xticks(ticks(low, high), [f"{tick:.3g}" for tick in ticks(low, high)])
    axis.minorticks_off()
    axis.grid(axis="x", color="#dddddd", lw=0.6)


def _training(method: Mapping[str, Any]) -> tuple[str, str]:
    return method["loss_name"], json.dumps(method["loss_args"])


def _short(method: Mapping[str, Any]) -> str:
    return f"{name_of(method).replace('`', '').replace('margin=', '')}, DSC {method['figures']['dsc'][0]:.3f}"
