"""Render bundles: the template filled with an entry, as texts by their place in the bundle's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .fill import fill, format_json
from .values import CONFIGS, TEMPLATE, bundle_values

__all__ = ["DATASETS", "PLACES", "datasets", "render", "render_entry", "shipped"]

DATASETS = Path(__file__).parent / "datasets.yaml"
PLACES = {
    **{name: f"configs/{name}" for name in CONFIGS},
    "README.md": "docs/README.md",
    "data_license.txt": "docs/data_license.txt",
    "LICENSE": "LICENSE",
}
"""Template file: its place in a bundle."""
LAID_OVER = {"clinical.json": "inference.json"}
"""Template file: the one that it is laid over, which together are one file of a bundle."""


@cache
def datasets() -> dict[str, Any]:
    """The entries of ``datasets.yaml`` by key, ``defaults`` among them."""
    return dict(yaml.safe_load(DATASETS.read_text(encoding="utf-8")))


def shipped() -> Iterator[tuple[str, str, int]]:
    """Name, key of the data set and dimension of every bundle that comes with the package.

    Example:
        >>> [name for name, key, dims in shipped() if key == "busi"]
        ['busi_segmentation_2d']
    """
    for key, own in datasets().items():
        for dims in (2, 3):
            if key != "defaults" and f"{dims}d" in own:
                yield f"{key}_segmentation_{dims}d", key, dims


def render(name: str) -> dict[str, str]:
    """Texts of a shipped bundle by their place in its folder.

    Raises: ``KeyError`` for a name that is none of :func:`shipped`.
    """
    key, dims = {name: (key, dims) for name, key, dims in shipped()}[name]
    return render_entry(key, datasets()[key], dims)


def render_entry(key: str, own: Mapping[str, Any], dims: int) -> dict[str, str]:
    """Texts of the bundle of an entry, over the defaults, by their place in its folder."""
    defaults = datasets()["defaults"]
    entry = {**defaults, **own, f"{dims}d": {**defaults[f"{dims}d"], **own[f"{dims}d"]}}
    values = bundle_values(key, entry, dims)
    return {place: _filled(name, values) for name, place in PLACES.items()}


def _filled(name: str, values: Mapping[str, Any]) -> str:
    text = (TEMPLATE / name).read_text(encoding="utf-8")
    if name.endswith(".json"):
        content = fill(json.loads(text), values)
        if name in LAID_OVER:
            below = json.loads((TEMPLATE / LAID_OVER[name]).read_text(encoding="utf-8"))
            content = _laid_over(fill(below, values), content)
        return format_json(content) + "\n"
    return str(fill(text, values))


def _laid_over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One file as MONAI reads two, so that a single file is complete in itself."""
    from monai.bundle import ConfigParser

    parser = ConfigParser(below)
    for key, value in above.items():
        if key.startswith("+"):
            key, value = key[1:], [*parser[key[1:]], *value]
        parser[key] = value
    return dict(parser.get())
