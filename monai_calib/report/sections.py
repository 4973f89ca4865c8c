"""Sections of the page on one comparison: tables, sentences, figures, tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monai_calib.metrics.protocols import Protocol
from monai_calib.metrics.regions import Region

from .columns import Column
from .comparison import Comparison
from .corrections import Correction, corrections_of
from .differences import differences
from .distributions import class_distribution, distribution
from .figures import Figure, swatch
from .findings import Findings, findings, reading
from .ranks import ranking_diagram
from .reliability import overlaid_reliability, reliability_of_runs
from .review import Review, review_of
from .scatter import overlap_scatter
from .settings import SettingsTable, settings_table
from .slices import CaseView, case_views, class_colour
from .tables import ResultTable, overview_table, result_table

__all__ = ["Part", "Section", "part_of"]


@dataclass(frozen=True)
class Section:
    """A protocol in one of its regions, or what has none: a table for each reduction, figures, and more to unfold.

    ``tables`` are those of the files; the page leaves out of ``shown`` what stands in the first section. ``empty``: no
    figure in any table, and no voxel in any case.
    """

    heading: str
    region: Region | None
    tables: tuple[ResultTable, ...]
    readings: tuple[list[str], ...]
    figures: tuple[Figure, ...]
    more: tuple[Figure, ...]
    tests: tuple[Findings, ...]
    pairs: tuple[Figure, ...]
    empty: bool = False

    @property
    def shown(self) -> tuple[ResultTable, ...]:
        return tuple(table.without_overlap() for table in self.tables)


@dataclass(frozen=True)
class Part:
    """All the page says of one comparison."""

    comparison: Comparison
    title: str
    sections: tuple[Section, ...]
    views: tuple[CaseView, ...]
    swatches: Mapping[str, str]
    settings: SettingsTable
    corrections: tuple[Correction, ...]
    review: Review | None = None

    @property
    def num_subjects(self) -> int:
        return len(set(self.comparison.subjects))

    @property
    def classes(self) -> list[tuple[str, str]]:
        """Name and colour of each foreground class in the slices."""
        return [(name, class_colour(i)) for i, name in enumerate(self.comparison.class_names) if i > 0]

    @property
    def overview(self) -> Section:
        return self.sections[0]

    @property
    def regions(self) -> tuple[Section, ...]:
        """The sections of protocols and regions that have a figure; the page shows one at a time."""
        return tuple(section for section in self.sections[1:] if not section.empty)

    @property
    def empty(self) -> tuple[str, ...]:
        """Regions without any figure, by their headings."""
        return tuple(section.heading for section in self.sections[1:] if section.empty)

    @property
    def first_region(self) -> Section | None:
        """Section of the whole volume, where no truth selects the voxels, else the first: what a page shows."""
        whole = (section for section in self.regions if section.region is not None and section.region.kind == "all")
        return next(whole, self.regions[0] if self.regions else None)

    @property
    def tests(self) -> list[Findings]:
        return [item for section in self.sections for item in section.tests]

    @property
    def tables(self) -> list[ResultTable]:
        return [table for section in self.sections for table in section.tables]


def part_of(comparison: Comparison) -> Part:
    overview = _overview(comparison)
    regions = [
        (protocol, region) for protocol in comparison.protocols for region in map(Region.parse, protocol.regions)
    ]
    bundles = dict.fromkeys(str(run.settings.get("bundle", "runs")) for run in comparison.runs)
    site = comparison.runs[0].settings.get("site")
    return Part(
        comparison,
        ", ".join(bundles) + (f" at {site}" if site else ""),
        (overview, *(_section(comparison, protocol, region) for protocol, region in regions)),
        tuple(case_views(comparison)) if comparison.methods else (),
        {method.label: swatch(method.place) for method in comparison.methods},
        settings_table(comparison),
        tuple(corrections_of(comparison)),
        review_of(comparison),
    )


def _overview(comparison: Comparison) -> Section:
    """Overlap, distance, volume and cost."""
    table = overview_table(comparison)
    tests = [findings(comparison, column) for column in table.columns]
    figures: list[Figure | None] = []
    more: list[Figure | None] = []
    if comparison.methods:
        overlap = comparison.overlap_columns()
        figures += [distribution(comparison, column) for column in overlap]
        figures += [class_distribution(comparison, column) for column in overlap[:1]]
        for bias in comparison.columns_of_kind("expected_volume_bias"):
            note = " Summed foreground probability minus true volume, relative to it: right of 0 too much is expected."
            figures.append(distribution(comparison, bias, note))
        figures += _rankings(comparison, tests)
        more += [class_distribution(comparison, column) for column in overlap[1:]]
        more += [distribution(comparison, column) for column in comparison.volume_columns()]
    return Section(
        table.heading,
        None,
        (table,),
        (reading(table, tests),),
        _drawn(figures),
        _drawn(more),
        tuple(item for item in tests if item.pairs),
        _drawn([differences(item) for item in tests]),
    )


def _section(comparison: Comparison, protocol: Protocol, region: Region) -> Section:
    tables = tuple(result_table(comparison, protocol, region, reduction) for reduction in protocol.reductions)
    columns = comparison.calibration_columns(protocol, region, protocol.reductions[0])
    tests = [findings(comparison, column) for column in columns]
    figures: list[Figure | None] = []
    more: list[Figure | None] = []
    if comparison.methods:
        figures.append(overlaid_reliability(comparison, protocol, region))
        if columns:
            figures += _scatters(comparison, columns[0])
            figures.append(distribution(comparison, columns[0]))
            rankings = _rankings(comparison, tests)
            figures += rankings[:1]
            more += rankings[1:]
        more += [distribution(comparison, column) for column in columns[1:]]
        more += [class_distribution(comparison, column) for column in columns]
        more += [
            overlaid_reliability(comparison, protocol, region, index) for index in range(len(comparison.class_names))
        ]
    more += reliability_of_runs(comparison, protocol, region)
    known = {item.column: item for item in tests}
    read = [table.without_overlap() for table in tables]
    return Section(
        f"Protocol {protocol.name}: {region.words}",
        region,
        tables,
        # Pooled figures have no tests, since they are not a mean over cases.
        tuple(reading(table, [known.get(m) or findings(comparison, m) for m in table.columns]) for table in read),
        _drawn(figures),
        _drawn(more),
        tuple(item for item in tests if item.pairs),
        _drawn([differences(item) for item in tests]),
        empty=all(table.empty for table in read) and not _has_voxels(comparison, protocol, region),
    )


def _has_voxels(comparison: Comparison, protocol: Protocol, region: Region) -> bool:
    tables = [run.bins.get((region.name, protocol.num_bins)) for run in comparison.runs]
    return any(table is not None and bool(table[:, :, 0].any()) for table in tables)


def _scatters(comparison: Comparison, column: Column) -> list[Figure]:
    """Against DSC, if that was measured."""
    return [
        overlap_scatter(
            comparison,
            [(comparison.estimate(m.runs, overlap), comparison.estimate(m.runs, column)) for m in comparison.methods],
            column,
        )
        for overlap in comparison.overlap_columns()
        if overlap.kind == "dice"
    ]


def _rankings(comparison: Comparison, tests: Sequence[Findings]) -> list[Figure]:
    return [ranking_diagram(comparison, item.ranking, item.column) for item in tests if item.ranking is not None]


def _drawn(figures: Sequence[Figure | None]) -> tuple[Figure, ...]:
    return tuple(figure for figure in figures if figure is not None)
