"""What the run card shows where labels are numbers or tags."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from tlcore.evaluation.comparison import SHARES
from tlcore.report import formatting
from tlcore.report.drawing import ACCENT, SOFT, axes_style, new_figure, plain, svg
from tlcore.report.measure import measure_of
from tlcore.report.thumbnails import thumbnail
from tlcore.values import (
    Comparison,
    Interval,
    Metrics,
    NumberMetrics,
    NumberMistake,
    RunRecord,
    TagMetrics,
)

__all__ = ["Fact", "OutputsView", "outputs_document", "outputs_view", "score_text"]

_WIDTH = 400.0
_TAGS = 40  # tags that are listed, the weakest first


@dataclass(frozen=True)
class Fact:
    name: str
    value: str
    interval: str


@dataclass(frozen=True)
class BaselineRow:
    """gap: by how much the result is better, with its interval."""

    name: str
    value: str
    gap: str
    interval: str
    better: bool
    worse: bool


@dataclass(frozen=True)
class ShownNumber:
    entry: NumberMistake
    picture: str | None

    @property
    def file(self) -> str:
        return PurePath(self.entry.uri).name or self.entry.sample_id


@dataclass(frozen=True)
class OutputsView:
    """tags: (name, average precision, images), the weakest first; those without an image are left out."""

    numbers: bool
    name: str
    sentence: str
    facts: list[Fact]
    measure: str
    rows: list[BaselineRow]
    figure: Markup
    tags: list[tuple[str, float, int]]
    mistakes: list[ShownNumber]


def outputs_view(record: RunRecord) -> OutputsView | None:
    """None where labels are classes."""
    metrics = record.metrics
    if isinstance(metrics, Metrics):
        return None
    numbers = isinstance(metrics, NumberMetrics)
    name = record.data.classes[0] if numbers and record.data.classes else ""
    rows = [_row(entry) for entry in sorted(record.baselines, key=lambda entry: -entry.difference)]
    common: dict[str, Any] = {"numbers": numbers, "name": name, "rows": rows}
    if isinstance(metrics, NumberMetrics):
        return OutputsView(
            **common,
            sentence=f"foretells {name or 'the number'} with a mean absolute error of "
            f"{formatting.score(metrics.mean_absolute_error)} and explains {formatting.percent(metrics.r2)} of the variance "
            f"(R²; 95 % interval {_range(metrics.r2_ci)})",
            facts=[
                Fact("R²", formatting.score(metrics.r2), _range(metrics.r2_ci)),
                Fact(
                    "Mean absolute error",
                    formatting.score(metrics.mean_absolute_error),
                    _range(metrics.mean_absolute_error_ci),
                ),
                Fact(
                    "Root mean squared error",
                    formatting.score(metrics.root_mean_squared_error),
                    _range(metrics.root_mean_squared_error_ci),
                ),
                Fact(
                    "Test labels",
                    f"{formatting.score(metrics.mean)} ± {formatting.score(metrics.deviation)}",
                    "mean and deviation",
                ),
            ],
            measure="Mean absolute error",
            figure=Markup(svg(_scatter(metrics, name), "Predicted number by true number")),
            tags=[],
            mistakes=[
                ShownNumber(entry, thumbnail(record.thumbnails.get(entry.sample_id, entry.uri)))
                for entry in metrics.mistakes
            ],
        )
    tags = sorted(
        ((tag, value, metrics.positives.get(tag, 0)) for tag, value in metrics.per_tag.items()),
        key=lambda row: row[1],
    )
    return OutputsView(
        **common,
        sentence=f"finds tags with a mean average precision of {formatting.percent(metrics.mean_average_precision)} "
        f"(95 % interval {formatting.interval(metrics.mean_average_precision_ci)})",
        facts=[
            Fact(title, formatting.percent(value), formatting.interval(around))
            for title, value, around in (
                ("Mean average precision", metrics.mean_average_precision, metrics.mean_average_precision_ci),
                ("Micro F1 at 0.5", metrics.micro_f1, metrics.micro_f1_ci),
                ("Macro F1 at 0.5", metrics.macro_f1, metrics.macro_f1_ci),
            )
        ],
        measure="F1 per image",
        figure=Markup(svg(_precisions(tags[:_TAGS]), "Average precision of each tag")),
        tags=tags[:_TAGS],
        mistakes=[],
    )


def score_text(metrics: Metrics | NumberMetrics | TagMetrics) -> str:
    """The headline with its interval, in one line: "R² 0.91 (0.88 to 0.94)"."""
    value, around = metrics.score, metrics.score_ci
    if isinstance(metrics, NumberMetrics):
        return f"R² {value:.3f} ({around.low:.3f} to {around.high:.3f})"
    return f"{measure_of(metrics).name} {value:.1%} ({around.low:.1%} to {around.high:.1%})"


def outputs_document(metrics: NumberMetrics | TagMetrics) -> dict[str, Any]:
    """The measures as plain JSON values, for `tlcore run --json`."""
    numbers = isinstance(metrics, NumberMetrics)
    names = (
        ("r2", "mean_absolute_error", "root_mean_squared_error")
        if numbers
        else ("mean_average_precision", "micro_f1", "macro_f1")
    )
    document: dict[str, Any] = {"images": metrics.images}
    for name in names:
        around: Interval = getattr(metrics, f"{name}_ci")
        document[name] = _finite(getattr(metrics, name))
        document[f"{name}_ci"] = [_finite(around.low), _finite(around.high)]
    if isinstance(metrics, TagMetrics):
        document["per_tag"] = dict(metrics.per_tag)
        document["positives"] = dict(metrics.positives)
    else:
        document["mistakes"] = [
            {"image": entry.uri, "label": entry.label, "predicted": entry.predicted}
            for entry in metrics.mistakes
        ]
    return document


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _row(entry: Comparison) -> BaselineRow:
    interval = entry.difference_ci
    if entry.measure not in SHARES:
        value, gap, around = (
            formatting.score(entry.accuracy),
            formatting.score(entry.difference),
            _range(interval),
        )
    else:
        value, gap = formatting.percent(entry.accuracy), formatting.signed_points(entry.difference)
        around = f"{formatting.signed_points(interval.low)} to {formatting.signed_points(interval.high)}"
    return BaselineRow(entry.baseline, value, gap, around, entry.better, interval.high < 0)


def _range(interval: Interval) -> str:
    return f"{formatting.score(interval.low)} to {formatting.score(interval.high)}"


def _scatter(metrics: NumberMetrics, name: str) -> Figure:
    """Predicted by true number of some test images; on the line they are equal."""
    figure = new_figure(_WIDTH, 300)
    axes = figure.subplots()
    axes_style(axes, grid="both")
    truth, predicted = [x for x, _ in metrics.points], [y for _, y in metrics.points]
    ends = [min(truth), max(truth)]
    axes.plot(ends, ends, color=SOFT, linewidth=1)
    axes.plot(truth, predicted, "o", color=ACCENT, markersize=3.5, alpha=0.6, markeredgewidth=0)
    axes.set_xlabel(f"true {plain(name)}" if name else "true number")
    axes.set_ylabel("predicted")
    return figure


def _precisions(tags: list[tuple[str, float, int]]) -> Figure:
    figure = new_figure(_WIDTH, 62 + 20 * max(1, len(tags)))
    axes = figure.subplots()
    axes_style(axes, grid="x")
    axes.barh(range(len(tags)), [100 * value for _, value, _ in tags], color=ACCENT, height=0.6)
    axes.set_yticks(range(len(tags)), [plain(tag) for tag, _, _ in tags])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("average precision, %")
    return figure
