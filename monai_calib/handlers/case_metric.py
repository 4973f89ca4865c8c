"""Metrics of single cases, averaged over the cases of all ranks: what calibration and surface handlers share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics import Metric as IgniteMetric
from ignite.metrics.metric import EpochWise, MetricUsage, reinit__is_reduced, sync_all_reduce

from monai_calib.handlers.cases import Case, cases_of_iteration
from monai_calib.handlers.ranks import gather_lists, rank
from monai_calib.metrics.metric import Metric, mean_without_nan

__all__ = ["CaseMetric", "lower_is_better"]


class CaseMetric(IgniteMetric):
    """Measures case by case; a rank's state is one sum and one count a metric, whatever the number of cases.

    :meth:`measure` returns one row a metric: its values for the classes of the case, NaN where there is nothing to
    measure. A case counts with the mean of its row, the data set with the mean over its cases, NaN left out each time.
    Means go into ``engine.state.metrics`` as floats, rows into ``engine.state.metric_details``, in the order in which
    MONAI's ``MetricsSaver`` lists the cases, and descriptions into ``engine.state.metric_descriptions``. Every rank
    takes part in every exchange, also one without data.

    Usable in a list of handlers (``attach(engine)``) and as a key metric (``attach(engine, name)``).

    Args:
        metrics: what is measured.
        output_transform: takes the engine's output to ``(prediction, label)``, lists or batches.
        spacing: voxel size in mm of cases without a header.
        save_details: whether to gather the rows; without them the ranks exchange the fixed-size state alone.
        prefix: put before every name that is reported, for a second handler of a kind on the same engine.
        suffix: put after the names of means.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        output_transform: Callable[[Any], Any],
        spacing: Sequence[float] | None = None,
        save_details: bool = True,
        prefix: str = "",
        suffix: str = "",
    ) -> None:
        self.metrics = {metric.name: metric for metric in metrics}
        self.prefix = prefix
        self.suffix = suffix
        self.spacing = spacing
        self.save_details = save_details
        super().__init__(output_transform=output_transform)

    @abstractmethod
    def measure(self, case: Case) -> dict[str, list[float]]:
        """The rows of one case, one for each name in ``metrics``."""

    @property
    def reported(self) -> list[str]:
        """The names this handler puts into ``engine.state.metrics``."""
        return [f"{self.prefix}{name}{self.suffix}" for name in self.metrics]

    @reinit__is_reduced
    def reset(self) -> None:
        self._sums = torch.zeros(len(self.metrics), dtype=torch.float64)
        self._counts = torch.zeros(len(self.metrics), dtype=torch.int64)
        self._rows: list[tuple[str, dict[str, list[float]]]] = []
        self._num_cases = 0
        self._of_all_ranks: dict[str, Any] = {}

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        predictions, labels = self._output_transform(engine.state.output) if engine.state.output else ([], [])
        cases = cases_of_iteration(engine.state.batch, predictions, labels, self.spacing, self._num_cases + 1)
        for case in cases:
            self.update(case)

    @reinit__is_reduced
    def update(self, case: Case) -> None:
        """Measure one more case."""
        rows = self.measure(case)
        values = torch.tensor([mean_without_nan(rows[name]) for name in self.metrics], dtype=torch.float64)
        self._sums += values.nan_to_num(nan=0.0)
        self._counts += ~values.isnan()
        self._num_cases += 1
        if self.save_details:
            self._rows.append((case.name, rows))
        self._of_all_ranks = {}

    @sync_all_reduce("_sums", "_counts", "_num_cases")
    def compute(self) -> dict[str, float]:
        """Means over the cases of all ranks under their reported names, NaN for a metric that no case has."""
        rows = gather_lists(self._rows) if self.save_details else []
        self._of_all_ranks = {**self._fixed_state(), "rows": rows}
        if self.save_details:  # summed without rounding, so that the last digit is the same on any number of ranks
            means = [mean_without_nan([mean_without_nan(row[name]) for _, row in rows]) for name in self.metrics]
        else:
            means = (self._sums / self._counts).tolist()
        names = [f"{self.prefix}{name}{self.suffix}" for name in self.metrics]
        return dict(zip(names, means, strict=True))

    def completed(self, engine: Engine, name: str = "") -> None:
        """Compute, and hand over to ``engine.state``; ignite calls it when an epoch ends."""
        engine.state.metrics.update(self.compute())
        described: dict[str, Metric] = getattr(engine.state, "metric_descriptions", {})
        described |= {self.prefix + name: metric.prefixed(self.prefix) for name, metric in self.metrics.items()}
        engine.state.metric_descriptions = described  # type: ignore[attr-defined]
        if self.save_details:
            details: dict[str, torch.Tensor] = getattr(engine.state, "metric_details", {})
            for name in self.metrics:
                rows = [row[name] for _, row in self._of_all_ranks["rows"]]
                details[self.prefix + name] = torch.tensor(rows, dtype=torch.float64)
            engine.state.metric_details = details  # type: ignore[attr-defined]

    def _fixed_state(self) -> dict[str, Any]:
        return {"sums": self._sums, "counts": self._counts, "num_cases": int(self._num_cases)}

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """The finished epoch's sums and rows over **all** ranks, or in the middle of one those of this rank.

        Nothing is exchanged, so that MONAI's ``CheckpointSaver``, which runs on the first rank alone, does not wait
        for the others.
        """
        return self._of_all_ranks or {**self._fixed_state(), "rows": self._rows}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`. The first rank takes it over and the others start empty, so that sums over
        ranks are those that were saved."""
        self.reset()
        if rank() == 0:
            self._sums, self._counts = state_dict["sums"].clone(), state_dict["counts"].clone()
            self._num_cases, self._rows = int(state_dict["num_cases"]), list(state_dict["rows"])

    def attach(self, engine: Engine, name: str | None = None, usage: str | MetricUsage | None = None) -> None:
        """Measure every iteration of ``engine`` and report when its epoch ends.

        Args:
            engine: usually an evaluator.
            name: given by MONAI when this is the key metric; must be one of :attr:`reported`.
            usage: as in ignite; once an epoch if not given.

        Raises: ``ValueError`` on a name that is not reported.
        """
        if name is not None and name not in self.reported:
            raise ValueError(f"the key metric must be one of {', '.join(self.reported)}; got {name!r}")
        super().attach(engine, name or type(self).__name__, usage or EpochWise())


def lower_is_better(current: float, best: float) -> bool:
    """For an evaluator's ``metric_cmp_fn`` when its key metric is an error or a distance.

    Example:
        >>> lower_is_better(0.05, 0.07), lower_is_better(0.07, 0.05), lower_is_better(0.07, math.nan)
        (True, False, True)
    """
    return current < best or math.isnan(best)
