"""Pack a bundle as the zip that ``monai.bundle.download`` reads, alone or with a run's weights and their figures."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from monai_calib.files import FileError, atomic_path, read_json
from monai_calib.metrics.evaluated import Evaluated, read_evaluated
from monai_calib.posthoc.files import PARAMETERS, calibrated_model
from monai_calib.posthoc.model_files import bundle_configs
from monai_calib.words import counted

from .fill import format_json

__all__ = ["METRICS", "NO_WEIGHTS", "eval_metrics", "pack"]

METRICS = (
    "mean_dice",
    "hd95_mm",
    "ece_all_15bins_macro",
    "ece_foreground_15bins_macro",
    "classwise_ece_all_15bins_macro",
    "nll_all_macro",
    "expected_volume_error_macro",
)
"""Entries of an evaluation's summary that go into ``eval_metrics``, where the evaluation has them."""
NO_WEIGHTS = "No weights come with this bundle, so it has no figures of its own."
"""Sentence of a bundle's README that gives way to the figures of the weights."""

_PACKED = ("LICENSE", "configs", "docs")
_SAME = ("bundle", "loss_name", "network_name", "seed")


def pack(bundle: str | Path, output: str | Path, run_dir: str | Path | None = None) -> Path:
    """Write ``NAME_vVERSION.zip`` into a folder, with everything below ``NAME/``.

    Only what makes a bundle goes in: ``LICENSE``, ``configs`` and ``docs``; of a run ``model.pt`` and
    ``training.json``, and the calibrated model with its record and what was fitted for the clinic where there are any.
    With weights, the metadata's ``eval_metrics`` and the README's section on performance are the run's evaluation on
    its test split, and network, patch and dropout are the run's. The same input gives the same bytes.

    Args:
        bundle: the bundle's folder.
        output: folder for the zip, made if it is not there.
        run_dir: a trained and evaluated run of this bundle.

    Raises:
        FileNotFoundError: the folder is no bundle, or the run has no ``models/model.pt``.
        ValueError: the run is of another bundle, or its evaluation is not of this model's test split;
            :class:`~monai_calib.files.FileError` where a file of either cannot be read.
    """
    folder = Path(bundle).resolve()
    if not (folder / "configs" / "metadata.json").is_file():
        raise FileNotFoundError(f"{bundle}: expected a bundle, got no configs/metadata.json. Name a bundle's folder.")
    files = {path.relative_to(folder).as_posix(): path for part in _PACKED for path in _below(folder / part)}
    texts: dict[str, str] = {}
    metadata = read_json(folder / "configs" / "metadata.json")
    if run_dir is not None:
        models = Path(run_dir) / "models"
        record = _training(folder, models)
        files |= {f"models/{path.name}": path for path in _weights(models)}
        configs = bundle_configs(folder, record["settings"])
        texts |= {f"configs/{name}": text for name, text in configs.items()}
        trained, calibrated = _evaluations(Path(run_dir), record["settings"], (models / PARAMETERS).is_file())
        metadata = json.loads(configs["metadata.json"]) | {"eval_metrics": eval_metrics(trained, calibrated)}
        texts["configs/metadata.json"] = format_json(metadata) + "\n"
        readme = folder / "docs" / "README.md"
        if readme.is_file():
            texts["docs/README.md"] = _with_figures(readme.read_text(encoding="utf-8"), trained, calibrated)
    target = Path(output) / f"{folder.name}_v{metadata['version']}.zip"
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as partial, ZipFile(partial, "w") as archive:
        for place in sorted(files | texts):
            entry = ZipInfo(f"{folder.name}/{place}")  # dated 1980
            entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as written:
                if place in texts:
                    written.write(texts[place].encode("utf-8"))
                    continue
                with files[place].open("rb") as source:
                    shutil.copyfileobj(source, written)
    return target


def eval_metrics(trained: Evaluated, calibrated: Evaluated | None = None) -> dict[str, float]:
    """Choose an evaluation's entries of :data:`METRICS` for a bundle's metadata, six digits each.

    Those of the calibrated model are named ``calibrated_...``. Values that were not measured are left out.
    """
    found = {name: trained.summary.get(name) for name in METRICS}
    if calibrated is not None:
        found |= {f"calibrated_{name}": calibrated.summary.get(name) for name in METRICS}
    return {name: float(f"{value:.6g}") for name, value in found.items() if value is not None and math.isfinite(value)}


def _below(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [one for one in sorted(path.rglob("*")) if one.is_file() and not one.name.startswith(".")]


def _training(bundle: Path, models: Path) -> dict[str, Any]:
    if not (models / "model.pt").is_file():
        raise FileNotFoundError(f"{models}: expected model.pt, got none. Name the folder of a run that was trained.")
    record = dict(read_json(models / "training.json", advice="Name the folder of a run that was trained."))
    made_by = record.get("settings", {}).get("bundle")
    if made_by != bundle.name:
        raise ValueError(f"{models}: expected a run of {bundle.name}, got one of {made_by}. Name the bundle it is of.")
    return record


def _weights(models: Path) -> list[Path]:
    """The files of a run that predict; its checkpoint is three times their size and of no use to others."""
    chosen = [models / "model.pt", models / "training.json"]
    if (models / PARAMETERS).is_file():
        chosen += [Path(calibrated_model(models)), models / PARAMETERS]
    clinical = models / "clinical.json"  # scores and settings, of nobody's name
    return [*chosen, clinical] if clinical.is_file() else chosen


def _evaluations(run: Path, settings: Mapping[str, Any], is_calibrated: bool) -> tuple[Evaluated, Evaluated | None]:
    trained = _evaluation(run / "eval", settings)
    return trained, _evaluation(
        run / "calibrated" / "eval", settings, " with --calibrated True"
    ) if is_calibrated else None


def _evaluation(folder: Path, settings: Mapping[str, Any], how: str = "") -> Evaluated:
    advice = f"Evaluate the run{how}, with configs/evaluate.json laid over configs/train.json."
    found = read_evaluated(folder, advice=advice)
    wanted = {name: settings.get(name) for name in _SAME} | {"split": "test"}
    seen = {name: found.run.get(name) for name in wanted}
    if seen != wanted:
        raise FileError(f"{folder}: expected an evaluation of {wanted}, got one of {seen}. {advice}")
    return found


def _with_figures(readme: str, trained: Evaluated, calibrated: Evaluated | None) -> str:
    columns = {"as trained": eval_metrics(trained)}
    if calibrated is not None:
        columns["calibrated"] = eval_metrics(calibrated)
    lines = [f"| metric | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name in columns["as trained"]:
        lines.append(f"| `{name}` | {' | '.join(f'{values.get(name, math.nan):.4g}' for values in columns.values())} |")
    run = trained.run
    text = (
        f"The weights in `models`: network `{run['network_name']}`, loss `{run['loss_name']}`, seed {run['seed']}; "
        f"means over the {counted(len(trained.cases), 'case')} of the test split. `models/training.json` has all "
        "settings.\n\n"
    ) + "\n".join(lines)
    if NO_WEIGHTS in readme:
        return readme.replace(NO_WEIGHTS, text)
    return f"{readme.rstrip()}\n\n## Performance\n\n{text}\n"
