"""Values that a template may name, from the entry of a data set."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from monai_calib.files import read_json
from monai_calib.metrics.protocols import by_region_for
from monai_calib.version import __version__

from .dynunet import dynunet_plan
from .fill import fill, is_name

__all__ = ["CONFIGS", "TEMPLATE", "bundle_values", "option_names"]

TEMPLATE = Path(__file__).parent / "template"
CONFIGS = (
    "train.json",
    "evaluate.json",
    "calibrate.json",
    "ensemble.json",
    "flips.json",
    "mc_dropout.json",
    "snapshots.json",
    "inference.json",
    "clinical.json",
    "clinical_fit.json",
    "multi_gpu_train.json",
    "multi_gpu_evaluate.json",
    "metadata.json",
    "logging.conf",
)

_FOR_IMAGES = ("inference.json", "clinical.json", "clinical_fit.json")


def bundle_values(key: str, entry: Mapping[str, Any], dims: int) -> dict[str, Any]:
    """Collect what a template of this data set and dimension may name.

    Args:
        key: name of the data set.
        entry: what differs, the parts of both dimensions included.
        dims: 2 or 3.
    """
    values = {name: item for name, item in entry.items() if name not in ("2d", "3d")} | dict(entry[f"{dims}d"])
    labels, channels = values["labels"], values["channel_names"]
    values |= {
        "version": __version__,
        "changelog": {__version__: f"as monai_calib {__version__} writes it"},
        "key": key,
        "dims": dims,
        "bundle_name": values.get("bundle_name", f"{key}_segmentation_{dims}d"),
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
        "prepare_data": values.get("prepare_data") or f"python data_scripts/{key}.py {values['download']} OUT",
        "channels_text": f", with {len(channels)} channels on the fourth axis" if len(channels) > 1 else "",
        "references": _references(values),
        "references_text": "\n".join(f"- {text}" for text in _references(values)),
        # Every other crop is centred on background; the foreground's share is divided evenly among its classes.
        "crop_ratios": [len(labels) - 1, *[1] * (len(labels) - 1)],
    }
    values |= dynunet_plan(values["patch_size"], values["spacing"][:dims], values["channels"], dims)
    values |= _part("parts.json") | _part(f"{dims}d.json") | _choices(values) | _labels(values) | _images(values)
    values["option_names"] = option_names(values)
    return values


def option_names(values: Mapping[str, Any]) -> list[str]:
    """Names at the top of the configurations that are laid over each other, whose options a command line may name."""
    configs = [name for name in CONFIGS if name.endswith(".json") and name not in (*_FOR_IMAGES, "metadata.json")]
    names = {name.removeprefix("+") for config in configs for name in _part(config)}
    words = fill({name: None for name in names if is_name(name)}, values)
    return sorted(name for name in names | words.keys() if name.isidentifier())


def _references(values: Mapping[str, Any]) -> list[str]:
    return [*filter(None, [values["reference"]]), *values["papers"]]


def _choices(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parts that depend on what the entry chose; an empty list leaves a step out."""
    spacing, resample, unit = values["spacing"], values["resample"], values["unit"]
    sizes = [f"{length:g}" for length in spacing]
    of = "mm" if unit == "mm" else "pixels of the original"
    grid = {
        "none": "the voxel grid stays as it is.",
        "slices": f"slices are brought to pixels of {sizes[0]} × {sizes[1]} {of}, their distance stays as it is.",
        "volumes": f"volumes are brought to voxels of {sizes[0]} × {sizes[1]} × {sizes[2]} {of}.",
    }[resample]
    if resample != "none":
        grid += " The evaluation measures on this grid; inference writes on the grid of the image."
    turned = "turned to RAS" if values["orient"] else "taken as stored"
    texts = [f"Axes are {turned}; {grid}", values["intensity_text"], values["note"]]
    chosen: dict[str, Any] = {
        "data_text": " ".join(filter(None, texts)),
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
    return chosen | _posterior(values["posterior"])


def _posterior(known: bool) -> dict[str, Any]:
    """Parts that judge test cases by the known probability of each class, where the data has it."""
    parts = {
        "truth_of_training": "{{truth_words}}",
        "truth_of_test": "{{truth_of_split}}",
        "said_truth": "{{truth_in_words}}",
        "posterior_item": "{{posterior_key}}",
    }
    lists = {"posterior_steps": "{{load_posterior}}" if known else [], "posterior_files": ""}
    if known:
        return parts | lists | {"posterior_files": "{{posterior_argument}}"}
    return lists | {name: {} for name in parts}


def _images(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of inference that depend on what images are: volumes, or pictures, which NIfTI may hold too."""
    labels, channels = values["labels"], values["channel_names"]
    names = [re.sub(r"[^\w-]+", "_", name).strip("_") or "class" for name in labels]
    chosen: dict[str, Any] = {"class_files": [f"{number}_{name}" for number, name in enumerate(names)]}
    if not values["pictures"]:
        volume = {"label_form": "{{volume_form}}", "confidence_form": "{{volume_form}}"}
        none: dict[str, Any] = {
            "picture_words": {},
            "picture_imports": [],
            "picture_reader": {},
            "picture_steps": [],
            "picture_checks": [],
        }
        return chosen | volume | none | _named("volume") | {"picture_packages": {}}
    if len(channels) not in (1, 3):
        raise ValueError(f"pictures: expected one channel or red, green and blue, got {', '.join(channels)}.")
    ranges = [step for step in values["intensity"] if step["_target_"] == "ScaleIntensityRanged"]
    return (
        chosen
        | {f"{kind}_form": f"{{{{picture_{kind}_form}}}}" for kind in ("label", "confidence")}
        | {
            f"picture_{part}": f"{{{{{part}_of_pictures}}}}"
            for part in ("words", "imports", "reader", "steps", "checks")
        }
        | _named("picture")
        | {
            "picture_packages": {"pillow": "13.0.0"},
            "channels_of_picture": "{{grey_of_picture}}" if len(channels) == 1 else "{{colours_of_picture}}",
            "brightest": ranges[0]["a_max"] if ranges else None,
            "palette": palette(len(labels)),
        }
    )


def _named(kind: str) -> dict[str, Any]:
    parts = {"images": "files", "image_names": "names", "probability_form": "probabilities", "files_text": "text"}
    parts["outputs_text"] = "outputs"
    return {name: f"{{{{{kind}_{part}}}}}" for name, part in parts.items()}


def palette(classes: int) -> list[int]:
    """Red, green and blue of each class in a label map, one after the other; the background is black.

    Example:
        >>> palette(2)
        [0, 0, 0, 87, 132, 242]
    """
    hues = [colorsys.hsv_to_rgb(0.618034 * number % 1, 0.64, 0.95) for number in range(1, classes)]
    return [0, 0, 0, *(round(255 * part) for colour in hues for part in colour)]


def _labels(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parts that depend on a label value that counts nowhere, and on the unit of lengths."""
    ignore, unit = values["ignore_index"], values["unit"]
    ignored: dict[str, Any] = {} if ignore is None else {"ignore_index": ignore}
    return {
        "ignored": ignored,
        "surface_settings": ignored | ({} if unit == "mm" else {"unit": unit}),
        "protocols": ["paper", by_region_for(unit, values["spacing"])],
        "loss_settings": "**@loss_args" if ignore is None else f"**{{'ignore_index': {ignore}, **@loss_args}}",
        "label_type": "$torch.uint8" if ignore is None or 0 <= ignore < 256 else "$torch.int32",
        "pred_and_label": _items(["pred", "label"], ignored),
        "preview_items": _items(["image", "label", "pred", "prob"], ignored),
    }


def _items(names: list[str], ignored: Mapping[str, Any]) -> Any:
    """The ``output_transform`` of a handler that knows of no ignored voxels."""
    if ignored:
        return {"_target_": "monai_calib.handlers.without_ignored", "keys": names, **ignored}
    return f"$monai.handlers.from_engine({names})"


@cache
def _part(name: str) -> dict[str, Any]:
    return dict(read_json(TEMPLATE / name))
