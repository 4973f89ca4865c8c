"""The runs of a comparison: every bundle, network, loss and seed, each in a folder of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_calib.files import read_json

from .specification import Named

__all__ = ["Plan", "Run", "make_plan"]

OWN_SETTINGS = frozenset(
    {"config_file", "bundle_root", "dataset_dir", "run_dir", "models_dir", "output_dir", "logs_dir", "model_path"}
    | {"loss_name", "loss_args", "network_name", "seed", "resume", "split", "trained_with", "evaluated_run"}
    | {"method", "method_args", "region"}
)
"""Settings of a bundle that the plan gives, so that nobody else may."""


@dataclass(frozen=True)
class Run:
    """One training with its evaluations and corrections. Plain values only: it travels to other machines.

    Attributes:
        key: ``<bundle>/<network>/<loss>/seed_<k>``, also the place below ``OUT/runs``.
        family: the losses among which validation chooses; several runs of a seed share it.
        on_validation: whether validation chooses, among these or among losses, so that the run is evaluated there too.
        settings: what the bundle is given beyond the plan, by ``--set``.
        recorded: what the bundle's training.json has to say about this run.
        posthoc: corrections to fit on validation after training.
        exports: forms of the corrected network to write, by the names of ``calibrate.json``; the bundle's own if none.
    """

    key: str
    folder: Path
    bundle: Path
    dataset_dir: Path
    network: str
    loss: Named
    seed: int
    family: str
    on_validation: bool
    settings: Mapping[str, Any]
    recorded: Mapping[str, Any]
    posthoc: tuple[Named, ...] = ()
    exports: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Bundle and network: runs of a group take about the same time."""
        return "/".join(self.key.split("/")[:2])

    @property
    def epochs(self) -> int:
        return int(self.recorded.get("epochs", 1))


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison, seed by seed, so that an early look has every loss."""

    output: Path
    runs: tuple[Run, ...]
    uncorrected: bool
    choose_by: str

    def families(self) -> dict[tuple[str, str], list[Run]]:
        """Runs among which validation chooses, by bundle and network, and family."""
        families: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs:
            families.setdefault((run.group, run.family), []).append(run)
        return families


def make_plan(
    output: Path,
    bundles: Sequence[Path],
    dataset_dir: Path,
    losses: Mapping[str, Sequence[Named]],
    seeds: Sequence[int],
    networks: Sequence[str] = (),
    posthoc: Sequence[Named] = (),
    settings: Mapping[str, Any] | None = None,
    uncorrected: bool = True,
    choose_by: str = "nll_all_macro",
    exports: Sequence[str] = (),
) -> Plan:
    """Lays out the runs.

    Args:
        output: folder of the comparison.
        bundles: folders with ``configs/train.json``, ``evaluate.json`` and ``calibrate.json``.
        dataset_dir: the converted data set.
        losses: the variants of every family; validation chooses one of each.
        seeds: one run each.
        networks: names out of the bundle's ``networks``; its own default if none is given.
        posthoc: corrections, by the names of ``calibrate.json``.
        settings: further settings of the bundle, such as ``{"epochs": 10}``.
        uncorrected: whether the report shows the networks as trained, beside corrected ones.
        choose_by: metric on validation, smaller is better, by which a variant is chosen; a key of the summary in
            calibration.json. The default is a proper score over the whole volume.
        exports: forms of the corrected networks to write; the bundle's own if none.

    Raises:
        ValueError: no bundle where one was named, an unknown network, a setting that the plan itself gives, or two
            runs with one folder.
        FileNotFoundError: no data set there.
    """
    settings = dict(settings or {})
    taken = sorted(OWN_SETTINGS & settings.keys())
    if taken:
        raise ValueError(f"--set {taken[0]}: the comparison itself gives {', '.join(sorted(OWN_SETTINGS))}.")
    if not (dataset_dir / "datalist.json").is_file():
        raise FileNotFoundError(
            f"{dataset_dir / 'datalist.json'} does not exist; make it with python -m monai_calib prepare, or a "
            "script of data_scripts/"
        )
    runs = []
    for seed in seeds:
        for bundle in bundles:
            config = _bundle_config(bundle)
            for network in networks or [str(config.get("network_name", "unet"))]:
                if network not in config.get("networks", {network: None}):
                    raise ValueError(f"{bundle} has no network {network!r}; it has {', '.join(config['networks'])}.")
                for family, variants in losses.items():
                    for loss in variants:
                        key = f"{bundle.resolve().name}/{network}/{loss.key}/seed_{seed}"
                        given = {"loss_name": loss.name, "loss_args": dict(loss.arguments), "network_name": network}
                        run = Run(
                            key=key,
                            folder=output.resolve() / "runs" / key,
                            bundle=bundle.resolve(),
                            dataset_dir=dataset_dir.resolve(),
                            network=network,
                            loss=loss,
                            seed=seed,
                            family=family,
                            on_validation=len(losses) > 1 or len(variants) > 1,
                            settings=settings,
                            recorded=_recorded(config, {**settings, **given, "seed": seed}),
                            posthoc=tuple(posthoc),
                            exports=tuple(exports),
                        )
                        runs.append(run)
    twice = [key for key, times in Counter(run.key for run in runs).items() if times > 1]
    if twice:
        raise ValueError(f"the plan has {twice[0]} twice; name every loss, bundle and network once.")
    return Plan(output.resolve(), tuple(runs), uncorrected, choose_by)


def _bundle_config(bundle: Path) -> dict[str, Any]:
    for name in ("train", "evaluate", "calibrate"):
        path = bundle / "configs" / f"{name}.json"
        if not path.is_file():
            raise ValueError(f"{bundle} is no bundle for a comparison: {path} does not exist.")
    return dict(read_json(bundle / "configs" / "train.json"))


def _recorded(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate ``settings`` of the bundle's train.json, which the training will record; leave out computed ones."""
    recorded = {}
    for name, value in config.get("settings", {}).items():
        if isinstance(value, str) and value.startswith("@"):
            value = given.get(value[1:], config.get(value[1:]))
        if isinstance(value, str) and value.startswith("$"):  # epochs: the larger of the option and the trainer's own
            value = given.get(name, config.get(name, value))
        if not (isinstance(value, str) and value[:1] in ("@", "$", "%")):
            recorded[name] = value
    return recorded
