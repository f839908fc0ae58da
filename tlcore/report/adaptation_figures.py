"""Figures of an adaptation: validators over time, and the features in the plane before and after."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tlcore.report.drawing import (
    ACCENT,
    HUES,
    INK,
    MUTED,
    SECOND,
    SOFT,
    TEXT,
    axes_style,
    legend,
    mark,
    new_figure,
    plain,
)
from tlcore.values import TARGET, Adaptation, Adapted, Epoch, Point, Scatter

__all__ = ["scatter", "validators_over_time"]

HALF, WHOLE = 400.0, 760.0
"""Units of a figure that takes half the page, and of one that takes all of it."""
TOGETHER = "validators"
"""Measure of an epoch: the score of all validators together."""
PEEK = "target_test_accuracy"
"""Measure of an epoch that nothing is chosen by."""
_DOTTED = (0, (1, 2))
_percent = FuncFormatter(lambda value, _: f"{100 * value:g}")


def validators_over_time(adaptation: Adaptation) -> Figure | None:
    """Every validator by epoch, one line for each adapter; then accuracies and the loss, which choose nothing.

    A round dot marks the checkpoint that was chosen, a cross the end of a training that was stopped, a dotted line
    what source-only has. Epochs count on over phases. None where no epoch was measured.
    """
    tried = [entry for entry in adaptation.tried if entry.history]
    panels = [
        panel
        for panel in _panels(adaptation)
        if any(y is not None for entry in tried for y in panel.values(entry))
    ]
    if not panels:
        return None
    columns = len(panels) if len(panels) <= 2 else 4 if len(panels) == 4 else 3
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(HALF if columns == 1 else WHOLE, 18 + 160 * rows)
    _roomy(figure)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    colours = _adapter_colours(adaptation.kept, [entry.strategy for entry in tried])
    for axes, panel in zip(grid, panels, strict=False):
        axes_style(axes, grid="y")
        axes.set_title(panel.title, loc="left", color=MUTED, fontsize=TEXT)
        if panel.base is not None and math.isfinite(panel.base):
            axes.axhline(panel.base, color=INK, linewidth=1.2, linestyle=_DOTTED, zorder=1)
        for entry in sorted(tried, key=lambda one: one.strategy == adaptation.kept):  # the kept one on top
            _line(axes, panel, entry, colours[entry.strategy], front=entry.strategy == adaptation.kept)
        if panel.share:
            axes.yaxis.set_major_formatter(_percent)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.margins(x=0.05, y=0.1)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[(rows - 1) * columns : len(panels)]:
        axes.set_xlabel("epoch")
    marks = [
        (entry.strategy, Line2D([], [], color=colours[entry.strategy], linewidth=2.4)) for entry in tried
    ]
    marks.append(("source-only", Line2D([], [], color=INK, linewidth=1.2, linestyle=_DOTTED)))
    marks.append(("chosen checkpoint", mark("o", MUTED)))
    if any(entry.stopped for entry in tried):
        marks.append(("stopped early", mark("X", MUTED)))
    legend(figure, marks)
    return figure


def scatter(pictured: Scatter, by: Literal["domain", "class"]) -> Figure | None:
    """The images' features before and after adaptation, each in a plane of its own, coloured by domain or class.

    Where classes are coloured, a triangle is a target image. Of more than ten classes the ten most frequent have
    a colour, the others are grey. None without a point.
    """
    planes = {"before": pictured.before, "after": pictured.after}
    points = [point for plane in planes.values() for point in plane]
    if not points:
        return None
    colours = _domain_colours(points) if by == "domain" else _class_colours(points)

    def colour(point: Point) -> str:
        return colours.get(point.domain if by == "domain" else point.label, SOFT)

    figure = new_figure(HALF, HALF / 2 + 22)
    for axes, (title, plane) in zip(figure.subplots(1, 2), planes.items(), strict=True):
        axes_style(axes)
        axes.set(xticks=[], yticks=[], box_aspect=1)
        for spine in axes.spines.values():
            spine.set_visible(True)
        axes.set_title(title, loc="left", color=MUTED, fontsize=TEXT)
        if by == "class" and title == "after":
            axes.set_title("● source\u2003▲ target", loc="right", color=MUTED, fontsize=TEXT)
        groups: dict[tuple[str, bool], list[Point]] = {}
        for point in plane:
            groups.setdefault((colour(point), point.domain == TARGET), []).append(point)
        # grey below, and the target above the source: it is what one looks for
        for (shade, target), group in sorted(
            groups.items(), key=lambda item: (item[0][0] != SOFT, item[0][1])
        ):
            axes.plot(
                [p.x for p in group], [p.y for p in group], "^" if target and by == "class" else "o", color=shade,
                markersize=4.2 if target and by == "class" else 3.4, markeredgewidth=0, alpha=0.75,
            )  # fmt: skip
    marks = [(name, mark("o", shade)) for name, shade in colours.items()]
    if any(colour(point) == SOFT for point in points):
        marks.append(("others", mark("o", SOFT)))
    legend(figure, marks)
    return figure


@dataclass(frozen=True)
class _Panel:
    """One measure of the epochs; `base` is source-only's value, `key` the name in the history, "" the loss."""

    title: str
    key: str
    base: float | None = None
    share: bool = False

    def values(self, entry: Adapted) -> list[float | None]:
        return [self.value(line) for line in entry.history]

    def value(self, line: Epoch) -> float | None:
        found = line.measures.get(self.key) if self.key else line.losses.get("total")
        return found if found is not None and math.isfinite(found) else None


def _panels(adaptation: Adaptation) -> list[_Panel]:
    base = adaptation.source_only
    # a record from before there were several validators has one score, under its validator's name
    scores = base.validators or {adaptation.validator: base.validator_score}
    panels = [_Panel(plain(name, 30), name, score) for name, score in scores.items()]
    if len(scores) > 1:
        panels.append(_Panel("all validators together", TOGETHER, base.validator_score))
    panels.append(
        _Panel(
            "source validation accuracy, %",
            "source_validation_accuracy",
            base.source_validation_accuracy,
            share=True,
        )
    )
    panels.append(_Panel("target test accuracy, %", PEEK, base.accuracy, share=True))
    return [*panels, _Panel("training loss", "")]


def _line(axes: Axes, panel: _Panel, entry: Adapted, colour: str, *, front: bool) -> None:
    values = panel.values(entry)
    points = [(x, y) for x, y in enumerate(values, start=1) if y is not None]
    if not points:
        return
    axes.plot(
        [x for x, _ in points], [y for _, y in points], color=colour, linewidth=2.2 if front else 1.4, zorder=2 + front
    )  # fmt: skip
    if entry.stopped:
        axes.plot(
            [points[-1][0]],
            [points[-1][1]],
            "X",
            color=colour,
            markersize=7,
            markeredgewidth=0,
            zorder=4 + front,
        )
    chosen = _chosen(entry)
    y = values[chosen] if chosen is not None else None
    if chosen is not None and y is not None:
        axes.plot([chosen + 1], [y], "o", color=colour, markersize=6, markeredgewidth=0, zorder=4 + front)


def _chosen(entry: Adapted) -> int | None:
    """The line of the history whose scores the outcome has; None where no line has them.

    An outcome does not say which epoch it is of. Its scores do: the network was looked at again as it was then.
    """
    for place, line in enumerate(entry.history):
        scores = {name: line.measures[name] for name in entry.validators if name in line.measures}
        if scores and all(
            math.isclose(score, entry.validators[name], rel_tol=1e-4, abs_tol=1e-5)
            for name, score in scores.items()
        ):
            return place
    return None


def _adapter_colours(kept: str, names: Sequence[str]) -> dict[str, str]:
    """The kept adapter has the accent colour, where one is kept; the others have the colours after it."""
    order = sorted(names, key=lambda name: name != kept)
    shades = HUES if kept in names else HUES[1:]
    return {name: shades[place] if place < len(shades) else SOFT for place, name in enumerate(order)}


def _domain_colours(points: Sequence[Point]) -> dict[str, str]:
    names = sorted({point.domain for point in points})
    shades = (ACCENT, *HUES[2:])
    colours = dict(zip((name for name in names if name != TARGET), shades, strict=False))
    return colours | ({TARGET: SECOND} if TARGET in names else {})


def _class_colours(points: Sequence[Point]) -> dict[str, str]:
    frequent = [name for name, _ in Counter(point.label for point in points).most_common(len(HUES))]
    return dict(zip(sorted(frequent), HUES, strict=False))


def _roomy(figure: Figure) -> None:
    """Room between rows of axes, so that a title does not touch the numbers above it."""
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(hspace=0.1, wspace=0.05)
