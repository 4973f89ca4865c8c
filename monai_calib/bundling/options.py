"""The options of a bundle's command line, checked before any work: names, booleans, numbers, paths."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from monai.bundle import ConfigParser

from monai_calib.datasets.datalist import RATER_LABELS

from .patch import check_patch

__all__ = ["OptionError", "check_options"]

_TRUTH = {"true": True, "false": False, "yes": True, "no": False}
_FLAGS = ("amp", "augmentation", "best_is_highest", "bfloat16", "calibrated", "force", "resume", "writes_log")
_WHOLE = {
    "epochs": 1,
    "batch_size": 1,
    "visits_per_epoch": 1,
    "samples_per_volume": 1,
    "val_interval": 1,
    "num_workers": 0,
    "early_stop_patience": 0,
    "seed": 0,
}
"""Options that are whole numbers, and the least each may be."""
_SHARES = {"cache_rate": 1.0, "dropout": 1.0, "learning_rate": float("inf")}
"""Options that are numbers from 0, and the most each may be."""
_FOLDERS = ("bundle_root", "dataset_dir", "run_dir", "models_dir", "output_dir", "logs_dir", "cache_dir", "model_path")
_OF_MONAI = {"_meta_", "is_not_rank0", "experiment_name", "run_name", "save_execute_config", "tracking", "tracking_uri"}
"""Put in by MONAI's runner and its experiment tracking."""


class OptionError(ValueError):
    """An option that does not exist, or a value it cannot have."""


def check_options(options: Sequence[str], classes: int | None = None) -> None:
    """Check the configuration in which this is called, as the first step of ``initialize``.

    - A name that is none of ``options`` and that nothing in the configuration reads is refused where an option's is
      near; the log warns of others, which a tool may have added. What a file laid over the bundle's adds is read by
      something, and passes.
    - ``true`` and ``false`` in small letters, which MONAI takes for words, become booleans.
    - The network's forward pass is tried on the patch.
    - Numbers are of their kind and in their range, paths are paths, the network is one of ``networks``, and there are
      as many class names as classes.

    Args:
        options: names of the bundle's own options.
        classes: number of classes, background included.

    Raises:
        OptionError: the first fault; MONAI names it as the cause of an error of its own.
        RuntimeError: called from elsewhere than a configuration.
    """
    parser = _configuration()
    config: dict[str, Any] = parser.get()
    changed = dict(_understood(config))
    for name in config:
        if name in options or name in _OF_MONAI or _is_read(config, name):
            continue
        near = difflib.get_close_matches(name, options, n=1, cutoff=0.7)
        if near:
            raise OptionError(
                f"{name}: expected an option of this bundle, got a name that nothing reads. Did you mean {near[0]}?"
            )
        logging.getLogger("monai_calib").warning(f"option {name}: nothing in the configuration reads it")
    if changed:
        config.update(changed)
        parser.parse(reset=True)
    _check_values(config, classes)
    _check_patch(parser, config)


def _check_patch(parser: ConfigParser, config: dict[str, Any]) -> None:
    """Try the patch on the network, where both are given as such, before data are read for it."""
    name, patch, networks = (config.get(key) for key in ("network_name", "patch_size", "networks"))
    if not isinstance(networks, dict) or not isinstance(patch, (list, tuple)) or name not in networks:
        return
    channels = networks[name].get("in_channels")
    if isinstance(channels, int) and networks[name].get("spatial_dims") == len(patch):
        try:
            check_patch(parser.get_parsed_content(f"networks::{name}"), patch, channels, str(name))
        except ValueError as error:
            raise OptionError(str(error)) from error


def _understood(config: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    for name in _FLAGS:
        value = config.get(name)
        if isinstance(value, str) and value[:1] not in ("$", "@"):
            if value.lower() not in _TRUTH:
                raise OptionError(f"{name}: expected True or False, got {value!r}.")
            yield name, _TRUTH[value.lower()]
        elif not isinstance(value, (bool, str, type(None))) and value not in (0, 1):
            raise OptionError(f"{name}: expected True or False, got {value!r}.")


def _check_values(config: dict[str, Any], classes: int | None) -> None:
    for name, value in config.items():
        if isinstance(value, str) and value[:1] in ("$", "@"):
            continue  # an expression, evaluated where it is used
        if name in _WHOLE and not (isinstance(value, int) and not isinstance(value, bool) and value >= _WHOLE[name]):
            raise OptionError(f"{name}: expected a whole number from {_WHOLE[name]}, got {value!r}.")
        if name in _SHARES:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 0 <= value <= _SHARES[name]):
                most = "" if _SHARES[name] == float("inf") else f" to {_SHARES[name]:g}"
                raise OptionError(f"{name}: expected a number from 0{most}, got {value!r}.")
        if name in _FOLDERS and name in config:
            _check_path(name, value)
        if name == "patch_size" and not _sizes(value):
            raise OptionError(f"patch_size: expected a list of whole numbers, one an axis, got {value!r}.")
        if name == "rater_labels" and value not in RATER_LABELS:
            raise OptionError(f"rater_labels: expected one of {', '.join(RATER_LABELS)}, got {value!r}.")
        if name == "loss_args" and not isinstance(value, dict):
            raise OptionError(f"loss_args: expected arguments by name, such as {{'margin': 5}}, got {value!r}.")
        if name == "class_names" and classes is not None and (not isinstance(value, list) or len(value) != classes):
            raise OptionError(f"class_names: expected {classes} names, the background's first, got {value!r}.")
    networks, chosen = config.get("networks"), config.get("network_name")
    if isinstance(networks, dict) and chosen not in networks and str(chosen)[:1] not in ("$", "@"):
        raise OptionError(f"network_name: expected one of {', '.join(networks)}, got {chosen!r}.")


def _check_path(name: str, value: Any) -> None:
    if not isinstance(value, (str, os.PathLike)):
        raise OptionError(f"{name}: expected a path, got the {type(value).__name__} {value!r}. Write ./{value}.")
    if "::" in str(value):
        raise OptionError(
            f"{name}: expected a path without # or ::, got {str(value)!r}: MONAI reads # as a separator of its own. "
            "Rename the folder, or make a link to it."
        )


def _sizes(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(type(length) is int and length > 0 for length in value)


def _is_read(config: Any, name: str) -> bool:
    """Whether a text of the configuration refers to ``name``."""
    if isinstance(config, dict):
        return any(_is_read(item, name) for item in config.values())
    if isinstance(config, list):
        return any(_is_read(item, name) for item in config)
    return isinstance(config, str) and re.search(rf"[@%]{re.escape(name)}\b", config) is not None


def _configuration() -> ConfigParser:
    """The parser that evaluates the calling expression: MONAI gives an expression no other way to it."""
    frame = inspect.currentframe()
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, ConfigParser):
            return found
        frame = frame.f_back
    raise RuntimeError("check_options: expected to be called in an expression of a MONAI configuration")
