"""Write a bundle: for a data folder of one's own, planned from its fingerprint, or one that comes with the package."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser

from monai_calib.files import atomic_folder
from monai_calib.words import counted

from .choices import Plan
from .fill import format_json
from .fingerprint import Fingerprint
from .measure import take_fingerprint
from .patch import check_patch
from .plan import make_plan
from .render import render, render_entry, shipped

__all__ = ["Bundled", "bundle_data", "bundle_shipped", "plan_data", "try_patch", "write_planned"]


class Bundled(NamedTuple):
    """Result of :func:`bundle_data`: the folder, the fingerprint, and the plan."""

    folder: Path
    fingerprint: Fingerprint
    plan: Plan


def plan_data(data: str | Path, given: Mapping[str, Any] | None = None) -> tuple[Fingerprint, Plan]:
    """Take the fingerprint of a data folder and plan a bundle for it; see :func:`bundle_data`."""
    seen = take_fingerprint(data)
    return seen, make_plan(seen, given)


def bundle_data(
    data: str | Path, output: str | Path, given: Mapping[str, Any] | None = None, overwrite: bool = False
) -> Bundled:
    """Plan a bundle for a data folder and write it, whole or not at all.

    Besides what every bundle has, ``docs/fingerprint.json`` and ``docs/plan.json`` are written, and the plan stands in
    its README.

    Args:
        data: folder made by ``python -m monai_calib prepare``, a data script or ``phantom``.
        output: the bundle's folder, which gives the bundle its name.
        given: numbers that the user asks for, see :func:`~.plan.make_plan`.
        overwrite: replace a bundle that is there.

    Raises: ``ValueError``, ``FileNotFoundError`` as :func:`~.measure.take_fingerprint` and :func:`~.plan.make_plan`;
        ``ValueError`` for an output that holds something, or a patch on which the network's forward pass fails.
    """
    folder = _free(Path(output), overwrite)
    seen, plan = plan_data(data, given)
    write_planned(seen, plan, folder)
    return Bundled(folder, seen, plan)


def write_planned(seen: Fingerprint, plan: Plan, folder: Path) -> None:
    """Write the bundle of a plan; what is in the folder is replaced.

    Raises: ``ValueError`` for a patch on which the network's forward pass fails, nothing being written.
    """
    texts = render_entry(folder.name, _entry(folder.name, seen, plan), plan.dims)
    try_patch(json.loads(texts["configs/train.json"]))
    texts["docs/fingerprint.json"] = format_json(seen.to_json()) + "\n"
    texts["docs/plan.json"] = format_json(plan.to_json()) + "\n"
    _write(folder, texts)


def bundle_shipped(name: str, output: str | Path, overwrite: bool = False) -> Path:
    """Write a bundle that comes with the package.

    Raises: ``ValueError`` for a name that is none of them, or an output that holds something.
    """
    names = [known for known, _, _ in shipped()]
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise ValueError(
            f"{name}: expected a data folder with datalist.json, or one of {', '.join(names)}."
            + (f" Did you mean {near[0]}?" if near else " Make one with python -m monai_calib prepare.")
        )
    folder = _free(Path(output), overwrite)
    _write(folder, render(name))
    return folder


def _entry(name: str, seen: Fingerprint, plan: Plan) -> dict[str, Any]:
    """The data set's entry, as those in ``datasets.yaml``."""
    foreground = ", ".join(seen.labels[1:])
    subjects = f"{counted(sum(seen.cases.values()), 'case')} of {counted(sum(seen.subjects.values()), 'subject')}"
    note = ""
    if seen.unit == "px":
        note = "The size of a pixel is not known: distances are in pixels of the network's grid."
    if seen.ignore_index is not None:
        note = f"{note} Label {seen.ignore_index} counts nowhere.".strip()
    if seen.posterior:
        judged = (
            "Test cases are judged by the known probability of each class, not by the one label that was drawn from"
        )
        note = f"{note} {judged} it; `--truth label` judges by the label.".strip()
    asked = plan.choices["dimensions"].reason == "asked for"
    return {
        **plan.entry,
        "bundle_name": name,
        "title": f"{seen.name} segmentation",
        "task": f"Segmentation of {foreground}",
        "description": f"Segments {foreground} in {', '.join(seen.channels)}.",
        "data_name": f"{seen.name} ({subjects})",
        "data_source": seen.description or "data of one's own",
        "data_licence": seen.licence,
        "reference": "",
        "prepare_data": "python -m monai_calib prepare SOURCE OUT",
        "get_data": f"`OUT` below is the data folder this bundle was planned for: {subjects}, prepared by "
        "`python -m monai_calib prepare`, or another one with the same channels and classes.",
        "images_like": "the data (`OUT/datalist.json`)",
        "plan_text": "## Plan\n\nWhat was chosen for this data, and why; `docs/fingerprint.json` has what was seen.\n\n"
        f"{plan.as_table()}\n\n",
        "expected_figures": "None are known: this bundle was planned for data of one's own"
        + (", and its dimension was asked for." if asked else "."),
        "note": note,
        "channel_names": list(seen.channels),
        "labels": list(seen.labels),
        "modality": seen.modality,
        "composites": seen.regions or None,
        "ignore_index": seen.ignore_index,
        "unit": seen.unit,
        "posterior": seen.posterior,
        "pictures": seen.reads_pictures,
        "schedule_text": "falls to 0 along a cosine",
        "lr_scheduler": {
            "_target_": "torch.optim.lr_scheduler.CosineAnnealingLR",
            "optimizer": "@optimizer",
            "T_max": "@planned_epochs",
        },
        f"{plan.dims}d": {name: value for name, value in plan.entry.items() if name != "orient"},
    }


def try_patch(config: Mapping[str, Any]) -> None:
    """Try the patch of a ``train.json`` on its network, without data; see :func:`~.patch.check_patch`."""
    name, patch = config["network_name"], config["patch_size"]
    dims = config["networks"][name]["spatial_dims"]
    if not isinstance(patch, (list, tuple)) or len(patch) != dims or not all(type(n) is int and n > 0 for n in patch):
        raise ValueError(f"patch_size: expected {dims} whole numbers from 1, one an axis, got {patch!r}. Correct it.")
    parser = ConfigParser({"networks": config["networks"], "dropout": config["dropout"]})
    build = parser.get_parsed_content(f"networks::{name}")
    check_patch(build, patch, config["networks"][name]["in_channels"], name)


def _free(output: Path, overwrite: bool) -> Path:
    folder = output.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not overwrite:
            raise ValueError(f"{output}: expected a new folder, got one that holds something. Add --overwrite True.")
        if not (folder / "configs" / "metadata.json").is_file():
            raise ValueError(f"{output}: holds no bundle, so it is not replaced. Name a new folder.")
        kept = [name for name in ("models", "eval") if (folder / name).exists()]
        if kept:
            raise ValueError(f"{output}: holds the results of a run ({', '.join(kept)}). Name a new folder.")
    return folder


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    with atomic_folder(folder) as partial:
        for place, text in texts.items():
            path = Path(partial, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
