"""An evaluated folder of a federation: each site is one case of it, told by its histograms alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from monai_calib.metrics.evaluated_writer import EvaluatedWriter
from monai_calib.metrics.evaluation import CaseEvaluation
from monai_calib.metrics.histogram import CalibrationHistogram
from monai_calib.metrics.protocols import METRICS, Protocol, resolve_protocols

__all__ = ["write_federation"]


def write_federation(
    folder: str | os.PathLike[str],
    sites: Mapping[str, Mapping[str, CalibrationHistogram]],
    classes: Sequence[str],
    protocols: Sequence[str | Mapping[str, Any] | Protocol],
    run: Mapping[str, Any] | None = None,
) -> dict[str, CalibrationHistogram]:
    """Write an evaluated folder from the pooled histograms of each site, and return their sums per region.

    A site's histogram is that of all its cases together, :meth:`~.evaluated.Evaluated.pooled`; names and metrics of
    cases stay at the site. ``micro`` metrics and diagrams are those of all voxels of all sites, as if evaluated in one
    place; ``macro`` ones are means over sites.

    Args:
        folder: where to write.
        sites: by their names, histograms by region, the same regions for each.
        classes: names of the channels.
        protocols: as the sites measured, see :attr:`~.evaluated.Evaluated.protocols`; one that needs several raters is
            left out.
        run: what the folder should say of what was evaluated.

    Raises: ``ValueError`` naming the site for a region that is missing, or histograms that are not alike.

    Example:
        >>> import tempfile, torch
        >>> from monai_calib.metrics.evaluated import read_evaluated
        >>> hist = CalibrationHistogram(2)
        >>> hist.update(torch.zeros(1, 2, 4), torch.zeros(1, 4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     protocol = Protocol("mine", ["all"], ["ece"], reductions=["micro"])
        ...     sites = {"a": {"all": hist}, "b": {"all": hist}}
        ...     whole = write_federation(folder, sites, ["none", "lesion"], [protocol])
        ...     whole["all"].voxels, dict(read_evaluated(folder).summary)["ece_all_15bins_micro"]
        (8, 0.5)
    """
    if not sites:
        raise ValueError("sites: expected at least one, got none. Evaluate at the sites first.")
    measured = [protocol for protocol in resolve_protocols(protocols) if not _of_raters(protocol)]
    first = next(iter(next(iter(sites.values())).values()))
    evaluation = CaseEvaluation(
        len(classes),
        measured,
        classes,
        activation=first.activation,
        ignore_index=first.ignore_index,
        histograms_alone=True,
    )
    pooled = {region: evaluation.histogram() for region in evaluation.regions}
    writer = EvaluatedWriter(folder, classes, measured, list(evaluation.metrics.values()), run)
    rows: dict[str, list[list[float]]] = {}
    try:
        for site, given in sites.items():
            missing = sorted(set(pooled) - set(given))
            if missing:
                raise ValueError(f"site {site}: expected histograms of regions {', '.join(missing)} too, got none")
            histograms = {region: given[region] for region in pooled}
            for region, histogram in histograms.items():
                try:
                    pooled[region].merge(histogram)
                except ValueError as error:
                    raise ValueError(f"site {site}, region {region}: {error}") from error
            values = evaluation.of_histograms(histograms)
            for name, row in values.items():
                rows.setdefault(name, []).append(row)
            writer.add(site, values, histograms)
    except ValueError:
        writer.abort()
        raise
    writer.close(evaluation.summarize(rows, pooled), list(evaluation.summary_metrics.values()))
    return pooled


def _of_raters(protocol: Protocol) -> bool:
    return any(METRICS[metric].against != "label" for metric in protocol.metrics)
