"""The figures of a run, each a pure function from values to a matplotlib figure.

`tlcore.report.drawing.svg` and `.png` (or `.data_uri`) turn one into text or bytes; the run card and the
artifacts of a scheduler share them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tlcore.report.drawing import (
    ACCENT,
    INK,
    PAPER,
    SECOND,
    SOFT,
    TEXT,
    THIRD,
    axes_style,
    new_figure,
    plain,
)
from tlcore.report.verdicts import finished, shown_entries
from tlcore.values import Adaptation, Comparison, Interval, Metrics, Ranking

__all__ = [
    "FEW",
    "MANY",
    "WIDTH",
    "accuracies",
    "adapters",
    "confusion_matrix",
    "percent_ticks",
    "scores",
]

MANY = 30
"""Classes above which a confusion matrix is no longer readable."""
FEW = 12
"""Classes up to which it fits into half the page."""
WIDTH = 400.0
"""Units of a figure that takes half the page."""

percent_ticks = FuncFormatter(lambda value, _: f"{100 * value:g}")
"""0.25 -> "25"."""


def accuracies(
    metrics: Metrics, comparisons: Sequence[Comparison], names: Mapping[str, str], result: str
) -> Figure:
    """Test accuracy of the result and of each baseline.

    The bar around the result is its own interval. The bar around a baseline is the *paired* interval of the gap,
    laid off from the result: where it touches the vertical line, the test images cannot tell the two apart.
    """
    order = sorted(comparisons, key=lambda entry: -entry.accuracy)
    figure = new_figure(WIDTH, 62 + 27 * (len(order) + 1))
    axes = figure.subplots()
    axes_style(axes, grid="x")
    axes.axvline(metrics.accuracy, color=ACCENT, linewidth=1, alpha=0.55)
    _dot(axes, 0, metrics.accuracy, metrics.accuracy_ci, ACCENT, filled=True)
    for row, entry in enumerate(order, start=1):
        gap = entry.difference_ci
        around = Interval(low=metrics.accuracy - gap.high, high=metrics.accuracy - gap.low)
        _dot(axes, row, entry.accuracy, around, INK if entry.better else SECOND, filled=False)
    _rows(axes, [result, *(names.get(entry.baseline, entry.baseline) for entry in order)])
    ends = [metrics.accuracy_ci.low, metrics.accuracy_ci.high, *(e.accuracy for e in order)]
    pad = 0.06 * (max(ends) - min(ends) or 1.0)
    axes.set_xlim(max(-0.01, min(ends) - pad), min(1.01, max(ends) + pad))
    axes.xaxis.set_major_formatter(percent_ticks)
    axes.set_xlabel("accuracy on the test images, %")
    return figure


def scores(ranking: Ranking, scorer: str, chosen: str | None = None) -> Figure:
    """One scorer's value with its bootstrap interval, candidates in the order of the ranking."""
    entries = [entry for entry in ranking.entries if scorer in entry.scores]
    figure = new_figure(WIDTH, 62 + 22 * len(entries))
    axes = figure.subplots()
    axes_style(axes, grid="x")
    for row, entry in enumerate(entries):
        first = entry.rank == 1
        _dot(
            axes,
            row,
            entry.scores[scorer],
            entry.spread.get(scorer),
            ACCENT if first else INK,
            filled=entry.candidate == chosen,
        )
    _rows(axes, [entry.candidate for entry in entries], [str(entry.rank) for entry in entries])
    axes.set_xlabel(f"{plain(scorer)} (higher is better)")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.06)
    return figure


def confusion_matrix(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> Figure:
    """Counts of true class (row) and predicted class (column), shaded by the share of the row."""
    counts = np.asarray(confusion, dtype=np.int64)
    k = len(classes)
    cell = 30.0 if k <= 8 else 26.0 if k <= FEW else 18.0
    labels = [plain(name, 14) for name in classes]
    margin = 26 + 5.2 * max(len(label) for label in labels)
    size = max(240.0, margin + cell * k)
    figure = new_figure(size, size)
    axes = figure.subplots()
    axes_style(axes)
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    text = TEXT if k <= FEW else 8.0
    for i, j in zip(*np.nonzero(counts), strict=True):
        share = float((counts / total)[i, j])
        colour = ACCENT if i == j else SECOND
        axes.add_patch(
            Rectangle(
                (j - 0.48, i - 0.48), 0.96, 0.96, facecolor=colour, alpha=0.18 + 0.82 * share, linewidth=0
            )
        )
        axes.text(
            j,
            i,
            str(counts[i, j]),
            ha="center",
            va="center",
            fontsize=text,
            color=PAPER if share > 0.45 else INK,
        )
    axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), aspect="equal")
    axes.set_xticks(range(k), labels, rotation=90 if max(map(len, labels)) > 2 else 0)
    axes.set_yticks(range(k), labels)
    axes.tick_params(labelsize=text)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return figure


def adapters(adaptation: Adaptation) -> Figure:
    """Accuracy on the target of source-only and of each adapter: expected, and by test labels where there are any.

    The band is what calibrated confidences let expect, from the lowest estimate to the highest; on it the label-free
    choice, the last epoch, and the oracle apart.
    """
    entries = [entry for entry in shown_entries(adaptation) if finished(entry)]
    labelled = any(entry.accuracy is not None for entry in entries)
    figure = new_figure(WIDTH, 74 + 27 * len(entries))
    axes = figure.subplots()
    axes_style(axes, grid="x")
    for row, entry in enumerate(entries):
        kept = entry.strategy == adaptation.kept
        colour = ACCENT if kept else INK
        if entry.estimates is not None:
            low, high = entry.estimates.low, entry.estimates.high
            width = max(high - low, 0.002)  # three that agree are still to be seen
            axes.add_patch(Rectangle((low, row - 0.3), width, 0.6, facecolor=SOFT, alpha=0.5, linewidth=0))
            axes.update_datalim([(low, row), (high, row)])
        if entry.accuracy_last is not None:
            axes.plot([entry.accuracy_last], [row], "D", markersize=5.5, color=SOFT, zorder=3)
        if entry.accuracy_oracle is not None:
            axes.plot(
                [entry.accuracy_oracle], [row], "|", markersize=13, markeredgewidth=2, color=THIRD, zorder=3
            )
        if entry.accuracy is not None:
            _dot(axes, row, entry.accuracy, entry.accuracy_ci, colour, filled=kept)
    axes.autoscale_view()
    _rows(axes, [entry.strategy for entry in entries])
    for label, entry in zip(axes.get_yticklabels(), entries, strict=True):
        label.set_color(ACCENT if entry.strategy == adaptation.kept else INK)
    axes.xaxis.set_major_formatter(percent_ticks)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("accuracy on the target, %" if labelled else "expected accuracy on the target, %")
    axes.margins(x=0.05)
    return figure


def _rows(axes: Axes, names: Sequence[str], ranks: Sequence[str] | None = None) -> None:
    # an en space keeps its width in SVG, where two blanks become one
    before = [f"{rank}\u2002" for rank in ranks] if ranks else [""] * len(names)
    axes.set_yticks(range(len(names)), [b + plain(name, 30) for b, name in zip(before, names, strict=True)])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    for label in axes.get_yticklabels():
        label.set_color(INK)


def _dot(axes: Axes, row: int, value: float, interval: Interval | None, colour: str, *, filled: bool) -> None:
    if interval is not None:
        axes.plot(
            [interval.low, interval.high],
            [row, row],
            color=colour,
            linewidth=1.6,
            solid_capstyle="butt",
            zorder=2,
        )
        for end in (interval.low, interval.high):
            axes.plot([end, end], [row - 0.13, row + 0.13], color=colour, linewidth=1.6, zorder=2)
    inside = colour if filled else PAPER
    axes.plot(
        [value], [row], "o", markersize=7, color=colour, markerfacecolor=inside, markeredgewidth=1.6, zorder=4
    )
