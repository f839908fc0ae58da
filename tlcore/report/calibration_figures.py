"""Figures of calibration."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlcore.report.drawing import ACCENT, MUTED, SECOND, SOFT, axes_style, legend, mark, new_figure
from tlcore.report.figures import percent_ticks
from tlcore.values import Reliability, ReliabilityBin

__all__ = ["merged", "reliability_diagram"]

SIDE = 270.0
"""Units of the figure's width."""
_LEAST, _LEAST_SHARE = 10, 0.04  # images of a dot: one of two or three images says nothing


def reliability_diagram(answers: Reliability, before: Reliability | None = None) -> Figure:
    """Accuracy against mean confidence, by bin of confidence: on the diagonal, probabilities mean what they say.

    before: the same images without a temperature. The area of a dot is the share of the images; bins of too few
    images for a dot of their own are merged with their neighbours.
    """
    figure = new_figure(SIDE, SIDE)
    axes = figure.subplots()
    axes_style(axes, grid="y")
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
    series = [(answers, ACCENT, 0.75)] if before is None else [(before, SECOND, 0.5), (answers, ACCENT, 0.75)]
    for one, colour, alpha in series:
        x, y, n = (
            np.array([getattr(b, field) for b in merged(one)])
            for field in ("confidence", "accuracy", "images")
        )
        axes.plot(x, y, color=colour, linewidth=1.2, alpha=0.8, zorder=2)
        sizes = 12 + 280 * n / max(one.images, 1)
        axes.scatter(x, y, s=sizes, color=colour, alpha=alpha, linewidth=0, zorder=3, clip_on=False)
    lowest = min([b.confidence for one, *_ in series for b in merged(one)], default=0.0)
    left = max(0.0, np.floor(10 * lowest) / 10 - 0.02)
    axes.set_xticks([tick for tick in MaxNLocator(6).tick_values(left, 1.0) if left <= tick <= 1 + 1e-9])
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xlim(left, 1.02)  # room for a dot at 100 %, which no tick names
    axes.set_ylim(-0.02, 1.04)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(percent_ticks)
    axes.set_xlabel("confidence, %")
    axes.set_ylabel("accuracy, %", color=MUTED)
    if before is not None:
        legend(figure, [("without temperature", mark("o", SECOND)), ("as in the file", mark("o", ACCENT))])
    return figure


def merged(answers: Reliability) -> list[ReliabilityBin]:
    """The bins, each joined with the next ones until it has 10 images and 4 % of them all."""
    least = max(_LEAST, _LEAST_SHARE * answers.images)
    found: list[ReliabilityBin] = []
    for one in answers.bins:
        if found and found[-1].images < least:
            found[-1] = _joined(found[-1], one)
        else:
            found.append(one)
    if len(found) > 1 and found[-1].images < least:
        found[-2:] = [_joined(found[-2], found[-1])]
    return found


def _joined(one: ReliabilityBin, other: ReliabilityBin) -> ReliabilityBin:
    images = one.images + other.images
    share = one.images / images
    return ReliabilityBin(
        confidence=share * one.confidence + (1 - share) * other.confidence,
        accuracy=share * one.accuracy + (1 - share) * other.accuracy,
        images=images,
    )
