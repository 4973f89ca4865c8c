"""Reliability diagrams of an evaluation, for TensorBoard and as PNG files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ignite.engine import Engine, Events
from monai.utils import optional_import

from monai_calib.files import atomic_path
from monai_calib.handlers.calibration import CalibrationHandler
from monai_calib.handlers.ranks import rank
from monai_calib.metrics.errors import ece
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.reliability import reliability_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ReliabilityDiagramHandler", "draw_reliability"]


class ReliabilityDiagramHandler:
    """Draws what a :class:`CalibrationHandler` has counted: no second pass over the data.

    Confidence against accuracy with 95 % Wilson intervals, and below it the share of voxels in each bin, for which a
    bin with few voxels is not to be taken seriously. Voxels of one volume are not independent: the intervals are the
    least that there is of uncertainty.

    List it **after** the calibration handler: both act when an epoch ends, in the order of the list. Needs matplotlib
    (``pip install monai_calib[report]``). Only the first rank draws.

    Args:
        calibration: the handler, attached to the same engine.
        regions: regions to draw, of those the handler measures in; all by default.
        num_bins: bins of the diagram, a divisor of 960.
        output_dir: folder for ``reliability_<region>.png``.
        summary_writer: a TensorBoard writer, which gets ``reliability/<region>`` for each epoch.

    Raises: ``ValueError`` if there is nowhere to draw to, or a region that the handler does not measure in.
    """

    def __init__(
        self,
        calibration: CalibrationHandler,
        regions: Sequence[str] | None = None,
        num_bins: int = 15,
        output_dir: str | os.PathLike[str] | None = None,
        summary_writer: Any = None,
    ) -> None:
        if output_dir is None and summary_writer is None:
            raise ValueError("give output_dir for PNG files, summary_writer for TensorBoard, or both")
        self.calibration = calibration
        self.regions = (
            list(regions) if regions is not None else [str(region) for region in calibration.regions.values()]
        )
        self.num_bins = num_bins
        self.output_dir = Path(output_dir) if output_dir is not None else None
        self.summary_writer = summary_writer
        for region in self.regions:
            calibration.region_name(region)

    def attach(self, engine: Engine) -> None:
        """Draw whenever an epoch of ``engine`` ends."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if rank() != 0:
            return
        for region in self.regions:
            name = self.calibration.prefix + self.calibration.region_name(region)
            figure = draw_reliability(self.calibration.pooled(region), self.num_bins, title=name)
            if self.summary_writer is not None:
                self.summary_writer.add_figure(f"reliability/{name}", figure, global_step=engine.state.epoch)
            if self.output_dir is not None:
                with atomic_path(self.output_dir / f"reliability_{name}.png") as partial:
                    figure.savefig(partial, format="png", dpi=120)


def draw_reliability(hist: CalibrationHistogram, num_bins: int = 15, title: str = "") -> Figure:
    """The top label's reliability diagram: confidence against accuracy, and the share of voxels a bin.

    Args:
        hist: any histogram of softmax predictions; an empty one gives empty axes.
        num_bins: a divisor of the histogram's bins.
        title: put above, before the ECE.

    Raises: ``OptionalImportError`` without matplotlib.
    """
    # A figure of its own, not pyplot's: nothing is shown, registered or left open.
    figure_class, _ = optional_import("matplotlib.figure", name="Figure")
    curve = reliability_curve(hist, num_bins)
    figure = figure_class(figsize=(4.0, 4.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    above.vlines(curve.confidence, curve.accuracy_low, curve.accuracy_high, color="C0", alpha=0.4)
    above.plot(curve.confidence, curve.accuracy, color="C0", marker="o", markersize=3.5, linewidth=1)
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=f"{title}  ECE {ece(hist, num_bins):.4f}")
    share = curve.count / max(1, hist.voxels)
    below.bar(curve.lower, share, width=curve.upper - curve.lower, align="edge", color="C0", edgecolor="white")
    below.set(xlabel="confidence", ylabel="share of voxels")
    return figure
