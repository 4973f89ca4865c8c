"""Writes the bundles: template/ filled with each entry of datasets.yaml, once in 2D and once in 3D.

    python bundles/render.py           # write bundles/<data set>_segmentation_2d and _3d
    python bundles/render.py --check   # write nothing; show what would change, and fail if anything would

A template names a value as ``{{name}}``. A JSON string that is nothing but ``"{{name}}"`` becomes the value itself,
whatever its type; ``"{{*name}}"`` in a list puts the items of a list value in its place, and so does
``"{{*name}}": null`` in an object; anywhere else, in JSON strings and in text files, the value is written into the
text. Values may name further values.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent
WIDTH = 100
CONFIGS = (
    "train.json",
    "evaluate.json",
    "calibrate.json",
    "ensemble.json",
    "flips.json",
    "mc_dropout.json",
    "snapshots.json",
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
        return dict(pair for item in template.items() for pair in _fill_pair(*item, values))
    if isinstance(template, list):
        return [filled for item in template for filled in _fill_item(item, values)]
    if not isinstance(template, str):
        return template
    whole = _NAME.fullmatch(template)
    if whole:
        return fill(_value(whole[2], values), values)
    return _NAME.sub(lambda name: str(fill(_value(name[2], values), values)), template)


def _fill_pair(key: str, item: Any, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    whole = _NAME.fullmatch(key)
    if whole and whole[1]:
        return list(fill(_value(whole[2], values), values).items())
    return [(key, fill(item, values))]


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
    """Everything a template of this data set and dimension may name.

    Args:
        key: name of the data set.
        entry: what differs, the parts of both dimensions included.
        dims: 2 or 3.
    """
    values = {name: item for name, item in entry.items() if name not in ("2d", "3d")} | dict(entry[f"{dims}d"])
    labels, channels = values["labels"], values["channel_names"]
    values |= {
        "key": key,
        "dims": dims,
        "bundle_name": f"{key}_segmentation_{dims}d",
        "in_channels": len(channels),
        "num_classes": len(labels),
        "last_label": len(labels) - 1,
        "first_channels": values["channels"][0],
        # One level less: the attention U-Net fails on a patch that its strides do not divide.
        "attention_channels": values["channels"][:4],
        "label_def": {str(number): name for number, name in enumerate(labels)},
        "channel_def": {str(number): name for number, name in enumerate(channels)},
        "label_classes": ", ".join(f"{number}: {name}" for number, name in enumerate(labels)),
        "image_classes": ", ".join(f"{number}: {name}" for number, name in enumerate(channels)),
        "prepare_data": f"python data_scripts/{key}.py {values['download']} OUT",
        "channels_text": f", with {len(channels)} channels on the fourth axis" if len(channels) > 1 else "",
        "references": [values["reference"], *values["papers"]],
        "references_text": "\n".join(f"- {text}" for text in [values["reference"], *values["papers"]]),
        # Every other crop is centred on background; the foreground's share is divided evenly among its classes.
        "crop_ratios": [len(labels) - 1, *[1] * (len(labels) - 1)],
    }
    values |= dynunet_plan(values["patch_size"], values["spacing"][:dims], values["channels"], dims)
    values |= _read_json("parts.json") | _read_json(f"{dims}d.json") | _choices(values)
    values["option_names"] = option_names(values)
    return values


def option_names(values: Mapping[str, Any]) -> list[str]:
    """Names at the top of the configurations that are laid over each other, whose options a command line may name."""
    configs = [name for name in CONFIGS if name.endswith(".json") and name not in ("inference.json", "metadata.json")]
    names = {name.removeprefix("+") for config in configs for name in _read_json(config)}
    words = fill({name: None for name in names if _NAME.fullmatch(name)}, values)
    return sorted(name for name in names | words.keys() if name.isidentifier())


def _choices(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parts that depend on what the entry chose; an empty list leaves a step out."""
    spacing, resample = values["spacing"], values["resample"]
    mm = [f"{length:g}" for length in spacing]
    grid = {
        "none": "the voxel grid stays as it is.",
        "slices": f"slices are brought to pixels of {mm[0]} × {mm[1]} mm, their distance stays as it is.",
        "volumes": f"volumes are brought to voxels of {mm[0]} × {mm[1]} × {mm[2]} mm.",
    }[resample]
    if resample != "none":
        grid += " The evaluation measures on this grid; inference writes on the grid of the image."
    chosen: dict[str, Any] = {
        "data_text": " ".join(
            filter(
                None,
                [
                    f"Axes are {'turned to RAS' if values['orient'] else 'taken as stored'}; {grid}",
                    values["intensity_text"],
                    values["note"],
                ],
            )
        ),
        "crops_text": f"{{{{{values['crops']}_crops_text}}}}",
        "cache_rows": f"{{{{{values['cache']}_rows}}}}",
        "crops": f"{{{{{values['crops']}_crops}}}}",
        "train_dataset": f"{{{{{values['cache']}_dataset}}}}",
        "cache_words": f"{{{{{values['cache']}_words}}}}",
        "pixdim": {"none": None, "slices": [*spacing[:2], -1], "volumes": spacing}[resample],
    }
    if resample == "none":
        chosen |= {"respace_cases": [], "respace_images": []}
    if not values["orient"]:
        chosen |= {"orient_cases": [], "orient_images": []}
    if not values["composites"]:
        chosen["composite_handlers"] = []
    return chosen


def dynunet_plan(
    patch_size: Sequence[int], spacing: Sequence[float], channels: Sequence[int], dims: int
) -> dict[str, Any]:
    """Kernels and strides of a DynUNet in the manner of nnU-Net, from the patch and the voxel size.

    An axis is halved while at least 4 voxels remain and its voxels are at most twice as long as the shortest; until
    then its kernels span one voxel. The number of filters doubles with each level up to nnU-Net's bounds, and all
    outputs but the coarsest are supervised.

    Args:
        patch_size: voxels of a patch along each axis.
        spacing: mm of a voxel along each axis.
        channels: whose first is the number of filters of the first level.
        dims: 2 or 3.

    Source: Isensee et al., Nature Methods 18:203-211 (2021)

    >>> plan = dynunet_plan([64, 64, 16], [1.0, 1.0, 3.0], [32], dims=3)
    >>> plan["dynunet_strides"]
    [[1, 1, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2], [2, 2, 1]]
    >>> plan["dynunet_kernels"][:3], plan["dynunet_filters"], plan["dynunet_heads"]
    ([[3, 3, 1], [3, 3, 3], [3, 3, 3]], [32, 64, 128, 256, 320], 2)
    """
    size, length = list(patch_size), list(spacing)
    kernels, strides = [], [[1] * dims]
    while True:
        near = [mm <= 2 * min(length) for mm in length]
        kernels.append([3 if is_near else 1 for is_near in near])
        stride = [2 if is_near and n % 2 == 0 and n >= 8 else 1 for is_near, n in zip(near, size, strict=True)]
        if max(stride) == 1:
            break
        strides.append(stride)
        size = [n // step for n, step in zip(size, stride, strict=True)]
        length = [mm * step for mm, step in zip(length, stride, strict=True)]
    most = 512 if dims == 2 else 320
    return {
        "dynunet_kernels": kernels,
        "dynunet_strides": strides,
        "dynunet_upsampling": strides[1:],
        "dynunet_filters": [min(channels[0] * 2**level, most) for level in range(len(strides))],
        "dynunet_heads": len(strides) - 3,
    }


def rendered_files(datasets: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Path below bundles/ and content of every file of every bundle."""
    defaults = datasets["defaults"]
    for key, own in datasets.items():
        for dims in (2, 3):
            if key == "defaults" or f"{dims}d" not in own:
                continue
            entry = {**defaults, **own, f"{dims}d": {**defaults[f"{dims}d"], **own[f"{dims}d"]}}
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
