"""Figures of the gap between two domains: the balance of their classes, and pictures of both."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tlcore.report.drawing import ACCENT, INK, SOFT, TEXT, THIRD, axes_style, legend, mark, new_figure, plain
from tlcore.report.gap import balance_classes
from tlcore.report.thumbnails import picture
from tlcore.values import DomainGap

__all__ = ["class_balance", "examples"]

HALF, WHOLE = 400.0, 760.0
"""Units of a figure that takes half the page, and of one that takes all of it."""
_percent = FuncFormatter(lambda value, _: f"{100 * value:g}")


def class_balance(gap: DomainGap) -> Figure | None:
    """Share of each class: in the source, in the target as source-only predicts it, and by the target's test labels.

    Of many classes those whose shares differ most (`balance_classes`). None where nothing was counted.
    """
    names = balance_classes(gap)
    series = [
        ("source", gap.source_shares, SOFT),
        ("target, as predicted", gap.predicted_shares, ACCENT),
        ("target, test labels", gap.label_shares, THIRD),
    ]
    series = [one for one in series if one[1]]
    if not names or not series:
        return None
    thick = 0.8 / len(series)
    figure = new_figure(HALF, 40 + (6 + 8 * len(series)) * len(names))
    axes = figure.subplots()
    axes_style(axes, grid="x")
    rows = np.arange(len(names))
    for place, (_, shares, colour) in enumerate(series):
        values = [shares.get(name, 0.0) for name in names]
        axes.barh(rows + (place + 0.5) * thick - 0.4, values, thick * 0.86, color=colour, linewidth=0)
    axes.set_yticks(rows, [plain(name, 24) for name in names])
    for label in axes.get_yticklabels():
        label.set_color(INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(_percent)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("share of the images, %")
    legend(figure, [(name, mark("s", colour)) for name, _, colour in series])
    return figure


def examples(gap: DomainGap) -> Figure | None:
    """Pictures of the source above pictures of the target; None where no file can be read any more."""
    found = [[picture(uri) for uri in uris] for uris in (gap.source_examples, gap.target_examples)]
    shown = [[one for one in row if one is not None] for row in found]
    columns = max(map(len, shown))
    if not columns:
        return None
    figure = new_figure(WHOLE, 2 * (WHOLE / max(columns, 4)) + 30)
    grid = figure.subplots(2, columns, squeeze=False)
    for name, pictures, row in zip(("source", "target"), shown, grid, strict=True):
        for axes in row:
            axes.set_axis_off()
        for axes, image in zip(row, pictures, strict=False):
            axes.imshow(np.asarray(image))
        row[0].set_title(name, loc="left", color=INK, fontsize=TEXT + 1)
    return figure
