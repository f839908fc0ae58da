"""Training curves: losses and measures by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tlcore.report.drawing import ACCENT, MUTED, SOFT, TEXT, axes_style, new_figure, plain
from tlcore.values import Epoch

__all__ = ["curves", "measure_name"]

WIDTH, PANEL = 400.0, 124.0  # units


def curves(histories: Mapping[str, Sequence[Epoch]], chosen: str) -> Figure:
    """Total loss and one measure (`measure_name`) by epoch, one line per history; the chosen one stands out.

    Epochs count on over phases; dotted lines show where a phase of the chosen history begins.
    """
    shown = {name: history for name, history in histories.items() if history}
    measure = measure_name(shown)
    losses = {name: [line.losses.get("total") for line in history] for name, history in shown.items()}
    panels = (
        [("training loss", losses, False)] if any(v is not None for y in losses.values() for v in y) else []
    )
    if measure is not None:
        values = {name: [line.measures.get(measure) for line in history] for name, history in shown.items()}
        share = "accuracy" in measure
        panels.append((plain(measure.replace("_", " "), 40) + (", %" if share else ""), values, share))
    figure = new_figure(WIDTH, 34 + PANEL * max(1, len(panels)))
    rows = np.atleast_1d(figure.subplots(max(1, len(panels)), 1, sharex=True))
    for axes, (title, lines, share) in zip(rows, panels, strict=False):
        _panel(axes, lines, chosen)
        if share:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
        axes.set_title(title, loc="left", color=MUTED, fontsize=TEXT)
        _phases(axes, shown.get(chosen, ()))
    rows[-1].set_xlabel("epoch")
    rows[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure


def measure_name(histories: Mapping[str, Sequence[Epoch]]) -> str | None:
    """The measure to draw: one that speaks of accuracy where there is one, else the first; None without any."""
    names = dict.fromkeys(n for history in histories.values() for line in history for n in line.measures)
    return next((name for name in names if "accuracy" in name), next(iter(names), None))


def _panel(axes: Axes, lines: Mapping[str, Sequence[float | None]], chosen: str) -> None:
    axes_style(axes, grid="y")
    for name in sorted(lines, key=lambda key: key == chosen):  # the chosen one last, on top
        points = [(x, y) for x, y in enumerate(lines[name], start=1) if y is not None]
        if not points:
            continue
        front = name == chosen
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=ACCENT if front else SOFT,
            linewidth=2 if front else 1,
            alpha=1 if front else 0.75,
            marker="o" if len(points) < 3 else None,
            markersize=5,
        )
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.margins(x=0.02, y=0.12)


def _phases(axes: Axes, history: Sequence[Epoch]) -> None:
    for x, (before, line) in enumerate(zip(history, history[1:], strict=False), start=1):
        if before.phase != line.phase:
            axes.axvline(x + 0.5, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
