"""Writes the bundles: template/ filled with each entry of datasets.yaml, once in 2D and once in 3D.

    python bundles/render.py           # write bundles/<data set>_segmentation_2d and _3d
    python bundles/render.py --check   # write nothing; show what would change, and fail if anything would

A template names a value as ``{{name}}``. A JSON string that is nothing but ``"{{name}}"`` becomes the value itself,
whatever its type; ``"{{*name}}"`` in a list puts the items of a list value in its place; anywhere else, in JSON strings
and in text files, the value is written into the text. Values may name further values.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent
WIDTH = 100
CONFIGS = (
    "train.json",
    "evaluate.json",
    "calibrate.json",
    "inference.json",
    "multi_gpu_train.json",
    "multi_gpu_evaluate.json",
    "metadata.json",
    "logging.conf",
)
PLACES = {
    **{name: f"configs/{name}" for name in CONFIGS},
    "README.md": "docs/README.md",
    "data_license.txt": "docs/data_license.txt",
    "LICENSE": "LICENSE",
}
"""Template file: its place in a bundle."""

_NAME = re.compile(r"\{\{(\*?)(\w+)\}\}")


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Put the values in their places.

    >>> fill({"roi": "{{size}}", "pad": ["{{*size}}", -1], "text": "{{dims}}D"}, {"size": [4, 6], "dims": 2})
    {'roi': [4, 6], 'pad': [4, 6, -1], 'text': '2D'}
    """
    if isinstance(template, dict):
        return {key: fill(item, values) for key, item in template.items()}
    if isinstance(template, list):
        return [filled for item in template for filled in _fill_item(item, values)]
    if not isinstance(template, str):
        return template
    whole = _NAME.fullmatch(template)
    if whole:
        return fill(_value(whole[2], values), values)
    return _NAME.sub(lambda name: str(fill(_value(name[2], values), values)), template)


def _fill_item(item: Any, values: Mapping[str, Any]) -> list[Any]:
    whole = _NAME.fullmatch(item) if isinstance(item, str) else None
    if whole and whole[1]:
        return list(fill(_value(whole[2], values), values))
    return [fill(item, values)]


def _value(name: str, values: Mapping[str, Any]) -> Any:
    if name not in values:
        raise KeyError(f"a template names {name!r}, which neither datasets.yaml nor render.py defines")
    return values[name]


def bundle_values(key: str, entry: Mapping[str, Any], dims: int) -> dict[str, Any]:
    """Everything a template of this data set and dimension may name."""
    values: dict[str, Any] = {name: item for name, item in entry.items() if name not in ("2d", "3d")}
    values.update(entry[f"{dims}d"])
    labels, channels, spacing = values["labels"], values["channel_names"], values["spacing"]
    respace = {"_target_": "Spacingd", "pixdim": spacing}
    values.update(
        key=key,
        dims=dims,
        bundle_name=f"{key}_segmentation_{dims}d",
        in_channels=len(channels),
        num_classes=len(labels),
        last_label=len(labels) - 1,
        first_channels=values["channels"][0],
        # One level less: the attention U-Net fails on a patch that its strides do not divide.
        attention_channels=values["channels"][:4],
        label_def={str(number): name for number, name in enumerate(labels)},
        channel_def={str(number): name for number, name in enumerate(channels)},
        label_classes=", ".join(f"{number}: {name}" for number, name in enumerate(labels)),
        image_classes=", ".join(f"{number}: {name}" for number, name in enumerate(channels)),
        references_text="\n".join(f"- {reference}" for reference in values["references"]),
        # The grid on which the network sees the data; None keeps each volume's own.
        respace_cases=[{**respace, "keys": ["image", "label"], "mode": ["bilinear", "nearest"]}] if spacing else [],
        respace_images=[{**respace, "keys": "image", "mode": "bilinear"}] if spacing else [],
        **_read_json("parts.json"),
        **_read_json(f"{dims}d.json"),
    )
    return values


def rendered_files(datasets: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Path below bundles/ and content of every file of every bundle."""
    for key, entry in datasets.items():
        for dims in (2, 3):
            if f"{dims}d" not in entry:
                continue
            values = bundle_values(key, entry, dims)
            for name, place in PLACES.items():
                text = (FOLDER / "template" / name).read_text(encoding="utf-8")
                if name.endswith(".json"):
                    text = format_json(fill(json.loads(text), values)) + "\n"
                else:
                    text = fill(text, values)
                yield Path(values["bundle_name"], place), text


def format_json(item: Any, indent: int = 0, used: int = 0) -> str:
    """JSON whose short lists and objects stay on one line.

    Args:
        item: what to write.
        indent: depth in columns.
        used: columns already taken on the line by the key.
    """
    line = json.dumps(item, ensure_ascii=False)
    if not isinstance(item, (dict, list)) or not item or (indent > 0 and indent + used + len(line) <= WIDTH):
        return line
    inner = " " * (indent + 4)
    if isinstance(item, dict):
        keys = {key: json.dumps(key, ensure_ascii=False) + ": " for key in item}
        rows = [keys[key] + format_json(value, indent + 4, len(keys[key])) for key, value in item.items()]
        return "{\n" + ",\n".join(inner + row for row in rows) + "\n" + " " * indent + "}"
    rows = [format_json(value, indent + 4) for value in item]
    return "[\n" + ",\n".join(inner + row for row in rows) + "\n" + " " * indent + "]"


def _read_json(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / "template" / name).read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the bundles from template/ and datasets.yaml.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail with a diff if anything would change")
    arguments = parser.parse_args()
    datasets = yaml.safe_load((FOLDER / "datasets.yaml").read_text(encoding="utf-8"))
    changed = 0
    for place, text in rendered_files(datasets):
        path = FOLDER / place
        present = path.read_text(encoding="utf-8") if path.is_file() else ""
        if present == text:
            continue
        changed += 1
        if arguments.check:
            lines = difflib.unified_diff(
                present.splitlines(True), text.splitlines(True), f"{place} (committed)", f"{place} (rendered)"
            )
            sys.stdout.writelines(lines)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    if arguments.check and changed:
        print(f"{changed} files differ from the template: run python bundles/render.py and commit the result")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
