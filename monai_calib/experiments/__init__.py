"""Runs of losses, seeds, networks and bundles, on this machine or on a Ray cluster."""

from monai_calib.lock import FolderInUseError

from .benchmark import run_benchmark
from .cluster import RayWorkers
from .folders import MismatchError, missing_steps
from .manifest import Manifest
from .plan import Plan, Run, make_plan
from .results import chosen_runs, report_folders, write_results
from .specification import Named, variants
from .workers import LocalWorkers, Workers

__all__ = [
    "FolderInUseError",
    "LocalWorkers",
    "Manifest",
    "MismatchError",
    "Named",
    "Plan",
    "RayWorkers",
    "Run",
    "Workers",
    "chosen_runs",
    "make_plan",
    "missing_steps",
    "report_folders",
    "run_benchmark",
    "variants",
    "write_results",
]
