"""What the run card shows of classes, mistakes, data and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from markupsafe import Markup

from tlcore.report import figures, formatting
from tlcore.report.drawing import svg
from tlcore.report.thumbnails import thumbnail
from tlcore.values import DataReport, Metrics, Mistake, RunRecord

__all__ = ["confusion_view", "data_view", "mistakes", "recalls", "timings_view"]

_PAIRS = 15  # most confused pairs that are listed
_WEAKEST = 24  # classes whose recall is shown where there are many


@dataclass(frozen=True)
class ConfusionView:
    figure: Markup | None
    large: bool
    pairs: list[tuple[str, str, int, float]]


def confusion_view(record: RunRecord) -> ConfusionView | None:
    """The matrix where it is readable, else (and beside it) the most confused pairs: true, predicted, images, share."""
    if not isinstance(record.metrics, Metrics):
        return None
    classes, counts = record.data.classes, record.metrics.confusion
    if not counts or len(counts) != len(classes):
        return None
    pairs = [
        (classes[i], classes[j], cell, cell / sum(row))
        for i, row in enumerate(counts)
        for j, cell in enumerate(row)
        if cell and i != j
    ]
    pairs.sort(key=lambda pair: (-pair[2], -pair[3]))
    drawn = None
    if len(classes) <= figures.MANY:
        drawn = Markup(
            svg(figures.confusion_matrix(classes, counts), "Confusion matrix: true class by predicted class")
        )
    return ConfusionView(figure=drawn, large=len(classes) > figures.FEW, pairs=pairs[:_PAIRS])


def recalls(metrics: Metrics) -> list[tuple[str, float, int | None]]:
    """(class, recall, test images), the weakest first; of very many classes only the weakest."""
    supports = dict.fromkeys(metrics.per_class, None) | {
        name: sum(row) for name, row in zip(metrics.per_class, _present(metrics), strict=False)
    }
    rows = sorted(
        ((name, recall, supports[name]) for name, recall in metrics.per_class.items()), key=lambda row: row[1]
    )
    return rows if len(rows) <= figures.MANY else rows[:_WEAKEST]


def _present(metrics: Metrics) -> list[tuple[int, ...]]:
    """Rows of the confusion matrix that have an image: the classes of `per_class`, in its order."""
    return [row for row in metrics.confusion if sum(row)]


@dataclass(frozen=True)
class ShownMistake:
    entry: Mistake
    picture: str | None

    @property
    def file(self) -> str:
        return PurePath(self.entry.uri).name or self.entry.sample_id


def mistakes(record: RunRecord) -> list[ShownMistake]:
    """The worst mistakes with their pictures, read from the record's thumbnails or the mistake's own path."""
    if not isinstance(record.metrics, Metrics):
        return []
    return [
        ShownMistake(entry, thumbnail(record.thumbnails.get(entry.sample_id, entry.uri)))
        for entry in record.metrics.mistakes
    ]


@dataclass(frozen=True)
class DataView:
    groups: list[str]
    rows: list[tuple[str, list[int]]]
    totals: list[int]
    summaries: list[tuple[str, int, int, int, float, int]]
    sizes: list[tuple[str, str]]


def data_view(report: DataReport) -> DataView:
    """Images per class and split; for many classes per split: images, classes, smallest, mean, largest."""
    groups = list(report.counts)
    names = list(
        dict.fromkeys([*report.classes, *(name for group in groups for name in report.counts[group])])
    )
    table = [(name, [report.counts[group].get(name, 0) for group in groups]) for name in names]
    totals = [report.images.get(group, sum(report.counts[group].values())) for group in groups]
    summaries = []
    if len(names) > figures.MANY:
        for group in groups:
            counts = [n for n in report.counts[group].values() if n]
            if counts:
                summaries.append(
                    (group, sum(counts), len(counts), min(counts), sum(counts) / len(counts), max(counts))
                )
        table = []
    return DataView(groups=groups, rows=table, totals=totals, summaries=summaries, sizes=_sizes(report.sizes))


def _sizes(sizes: Mapping[str, float]) -> list[tuple[str, str]]:
    """ "width_min", "width_median", "width_max" as one line; other entries as they are."""
    lines: list[tuple[str, str]] = []
    for side in ("width", "height"):
        found = [sizes.get(f"{side}_{part}") for part in ("min", "median", "max")]
        if None not in found:
            low, middle, high = (formatting.count(value) for value in found)
            lines.append((side, f"{low} px" if low == high else f"{low} to {high} px, median {middle}"))
    known = {f"{side}_{part}" for side, _ in lines for part in ("min", "median", "max")}
    rest = [(name.replace("_", " "), f"{value:g}") for name, value in sizes.items() if name not in known]
    return lines + rest


@dataclass(frozen=True)
class Timing:
    stage: str
    seconds: float
    share: float
    cached: bool


def timings_view(record: RunRecord) -> list[Timing]:
    """Seconds by stage, with the share of the longest one."""
    longest = max(record.seconds.values(), default=0.0) or 1.0
    return [
        Timing(stage, spent, spent / longest, stage in record.cached)
        for stage, spent in record.seconds.items()
    ]
