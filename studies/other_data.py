"""What the losses do on data other than the hippocampus, from comparisons made by ``python -m monai_calib benchmark``.

    python studies/other_data.py "NAME=OUT/runs" ...   # read the comparisons, keep their figures, write page and figure
    python studies/other_data.py                       # write page and figure from other_data.json

A comparison that is named replaces what was kept under its name; the others stay.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import write_json, write_page
from results import change_table, figure, figure_table, figures_of, name_of, rank_table, seed_table

from monai_calib.report.comparison import compare
from monai_calib.report.runs import read_runs

__all__ = ["figure", "tables"]

FIGURES = Path(__file__).with_suffix(".json")
PICTURE = Path(__file__).with_name("figures") / "other_data.svg"
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


def measured(name: str, runs: Path) -> dict[str, Any]:
    """Figures of one comparison, whose runs must be alike but for loss, seed and correction."""
    found = [run for run in read_runs([runs]) if run.split == "test"]
    (comparison,) = compare(found)
    settings = found[0].settings
    shared = {key: settings[key] for key in ("bundle", "network_name", "epochs", "batch_size", "patch_size")}
    return {**figures_of(comparison), "part": name, "settings": shared}


def tables(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    made = {}
    for part in parts:
        of = part["part"]
        made[of] = figure_table(part, COLUMNS)
        made[f"change against ce, {of}"] = change_table(part, "ce", COLUMNS[:5])
        if any(len(method["seeds"]) > 1 for method in part["methods"]):
            made[f"seeds, {of}"] = seed_table(part, COLUMNS)
        if part["ranks"]:
            made[f"ranks, {of}"] = rank_table(part)
    return made


def draw(parts: Sequence[Mapping[str, Any]], path: Path) -> None:
    """DSC against errors: a point a loss as trained, an arrow to where its correction takes it."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams |= {"svg.hashsalt": "other_data", "svg.fonttype": "none", "font.size": 9}
    size = (4.6 * len(DRAWN), 3.9 * len(parts))
    picture, axes = plt.subplots(len(parts), len(DRAWN), figsize=size, squeeze=False)
    for row, part in zip(axes, parts, strict=True):
        for axis, (name, title) in zip(row, DRAWN, strict=True):
            _draw_panel(axis, part, name)
            axis.set(xlabel="DSC", ylabel=title, title=part["part"])
            axis.set_ylim(bottom=0)
            axis.spines[["top", "right"]].set_visible(False)
    picture.tight_layout()
    picture.savefig(path, metadata={"Date": None})
    plt.close(picture)


def _draw_panel(axis: Any, part: Mapping[str, Any], name: str) -> None:
    corrected = {_training(method): method["figures"] for method in part["methods"] if method["posthoc"]}
    for method in part["methods"]:
        if method["posthoc"]:
            continue
        x, y = method["figures"]["dsc"][0], method["figures"][name][0]
        axis.plot(x, y, "o", ms=5, color="#b2182b", zorder=3)
        axis.annotate(_short(method), (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
        after = corrected.get(_training(method))
        if after is not None:
            to = after["dsc"][0], after[name][0]
            arrow = {"arrowstyle": "-|>", "color": "#1b7837", "lw": 0.8, "shrinkA": 3, "shrinkB": 0}
            axis.annotate("", to, (x, y), arrowprops=arrow, zorder=2)


def _training(method: Mapping[str, Any]) -> tuple[str, str]:
    return method["loss_name"], json.dumps(method["loss_args"])


def _short(method: Mapping[str, Any]) -> str:
    return name_of(method).replace("`", "").replace("margin=", "")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the losses do on data other than the hippocampus.")
    parser.add_argument("comparisons", nargs="*", metavar="NAME=OUT/runs")
    given = [text.split("=", 1) for text in parser.parse_args().comparisons]
    kept = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else []
    if given:
        known = {part["part"]: part for part in kept}
        known |= {name: measured(name, Path(runs)) for name, runs in given}
        kept = list(known.values())
        write_json(FIGURES, kept, depth=3)
    draw(kept, PICTURE)
    write_page("other_data")


if __name__ == "__main__":
    main()
