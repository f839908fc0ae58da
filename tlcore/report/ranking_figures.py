"""Figures of a ranking: score against cost, places with their intervals, foretold against achieved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from tlcore.report.drawing import (
    ACCENT,
    FAINT,
    INK,
    MUTED,
    PAPER,
    SECOND,
    SOFT,
    TEXT,
    axes_style,
    new_figure,
    plain,
    png,
)
from tlcore.report.labels import Label, place_labels
from tlcore.report.measure import measure_in
from tlcore.selection.agreement import regret as top_regret
from tlcore.selection.halving import from_trial, rank_regret
from tlcore.selection.pareto import pareto_front
from tlcore.values import Ranked, Ranking, RunRecord

__all__ = [
    "FEW", "PANEL", "Cost", "achieved_figure", "against_achieved", "cost_front", "cost_of", "intervals", "prediction",
    "prediction_name", "write_figures",
]  # fmt: skip

PANEL = "panel"
"""What stands for a scorer's name where the prediction is the mean rank over all scorers."""
FEW = 12
"""Candidates up to which the cost figure fits into half the page."""
HALF, WHOLE = 400.0, 760.0
"""Units of a figure that takes half the page, and of one that takes all of it."""


@dataclass(frozen=True)
class Cost:
    """What the horizontal axis of `cost_front` is. `values` by candidate; those without a value are not drawn."""

    name: str
    values: dict[str, float]


def prediction_name(ranking: Ranking) -> str:
    """What foretells: the one scorer there is, else the panel of all."""
    return ranking.scorers[0] if len(ranking.scorers) == 1 else PANEL


def prediction(ranking: Ranking) -> dict[str, float]:
    """By candidate, higher is better: the score of the one scorer, else 1 - panel."""
    if len(ranking.scorers) == 1:
        name = ranking.scorers[0]
        return {e.candidate: e.scores[name] for e in _ranked(ranking) if name in e.scores}
    return {e.candidate: 1 - e.panel for e in _ranked(ranking) if e.panel is not None}


def cost_of(ranking: Ranking) -> Cost:
    """GMACs where all ranked candidates have them, else whichever of GMACs and parameters more of them have."""
    entries = _ranked(ranking)
    gmacs = {e.candidate: e.gmacs for e in entries if e.gmacs}
    params = {e.candidate: e.params / 1e6 for e in entries if e.params}
    if gmacs and len(gmacs) >= len(params):
        return Cost("GMACs per image", gmacs)
    return Cost("parameters, millions", params)


def cost_front(ranking: Ranking, chosen: str | None = None) -> Figure | None:
    """What quality costs: the prediction against GMACs (or parameters), log scale, with the Pareto front.

    The front joins the candidates that no other one beats in both. Names are written where there is room, those
    of the front, the shortlist and the chosen one first, led by a line if need be. None where no candidate has a
    cost and a prediction.
    """
    cost, quality = cost_of(ranking), prediction(ranking)
    entries = [e for e in _ranked(ranking) if e.candidate in cost.values and e.candidate in quality]
    if not entries:
        return None
    xs = [cost.values[e.candidate] for e in entries]
    ys = [quality[e.candidate] for e in entries]
    many = len(entries) > FEW
    figure = new_figure(WHOLE if many else HALF, 380 if many else 280)
    axes = figure.subplots()
    axes_style(axes, grid="y")
    _cost_axis(axes, xs, cost.name)
    low, high = min(ys), max(ys)
    pad = (high - low) * 0.13 or 0.1 * max(abs(high), 0.5)
    axes.set_ylim(low - pad, high + pad)
    axes.set_ylabel(_label(ranking))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    front = pareto_front(xs, ys)
    stairs = _stairs([(xs[i], ys[i]) for i in front], axes.get_xlim()[1])
    axes.plot([x for x, _ in stairs], [y for _, y in stairs], color=SOFT, linewidth=1.2, zorder=1)
    labels = []
    for index, entry in enumerate(entries):
        short = entry.candidate in ranking.shortlist or (not ranking.shortlist and entry.rank == 1)
        colour = ACCENT if short else INK if index in front else SOFT
        inside = colour if entry.candidate == chosen else PAPER
        axes.plot(
            [xs[index]], [ys[index]], "o", markersize=7, color=colour, markerfacecolor=inside, markeredgewidth=1.6,
            zorder=3,
        )  # fmt: skip
        must = short or index in front or entry.candidate == chosen
        colour = colour if must else MUTED
        labels.append(Label(xs[index], ys[index], entry.candidate, "", colour, must or not many))
    lines = [Bbox([a, b]) for a, b in zip(stairs, stairs[1:], strict=False)]
    place_labels(axes, labels, lines=lines)
    return figure


def intervals(ranking: Ranking, chosen: str | None = None) -> Figure | None:
    """The place of each candidate with its 95 % interval over images, the best at the top, the shortlist on a band.

    None where no place has an interval.
    """
    entries = _ranked(ranking)
    if not any(entry.rank_interval for entry in entries):
        return None
    pitch = 22 if len(entries) <= 20 else 16
    figure = new_figure(HALF, 62 + pitch * len(entries))
    axes = figure.subplots()
    axes_style(axes, grid="x")
    for row, entry in enumerate(entries):
        short = entry.candidate in ranking.shortlist
        if short:
            axes.axhspan(row - 0.5, row + 0.5, color=FAINT, alpha=0.6, linewidth=0, zorder=0)
        colour = ACCENT if short else INK
        place, span = float(entry.rank or 0), entry.rank_interval
        if span is not None:
            axes.plot(
                [span.low, span.high],
                [row, row],
                color=colour,
                linewidth=1.6,
                solid_capstyle="butt",
                zorder=2,
            )
            for end in (span.low, span.high):
                axes.plot([end, end], [row - 0.16, row + 0.16], color=colour, linewidth=1.6, zorder=2)
        inside = colour if entry.candidate == chosen else PAPER
        axes.plot(
            [place], [row], "o", markersize=7 if pitch > 20 else 5.5, color=colour, markerfacecolor=inside,
            markeredgewidth=1.6, zorder=4,
        )  # fmt: skip
    axes.set_yticks(range(len(entries)), [plain(entry.candidate, 30) for entry in entries])
    for label, entry in zip(axes.get_yticklabels(), entries, strict=True):
        label.set_color(ACCENT if entry.candidate in ranking.shortlist else INK)
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.set_xlim(0.5, len(entries) + 0.5)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlabel(f"rank by {plain(prediction_name(ranking))} (1 is best)")
    return figure


def against_achieved(
    ranking: Ranking, scorer: str | None = None, chosen: str | None = None, *, regret: float | None = None
) -> Figure | None:
    """Was the ranking right: what foretold (default: `prediction`) against what was achieved; numbers are ranks.

    The bar above the first candidate is the `regret`: what taking it cost against the best. None where nothing was
    achieved.
    """
    foretold = prediction(ranking) if scorer is None else _scores(ranking, scorer)
    entries = [e for e in _ranked(ranking) if e.candidate in foretold and e.achieved is not None]
    if not entries:
        return None
    measure = measure_in(ranking.achieved_measure)
    figure = new_figure(HALF, 260)
    axes = figure.subplots()
    axes_style(axes, grid="y")
    xs = [foretold[e.candidate] for e in entries]
    ys = [e.achieved or 0.0 for e in entries]
    axes.set_xlim(*_padded(xs, 0.12))
    axes.set_ylim(*_padded([*ys, ys[0] + (regret or 0.0)], 0.14))
    lines = []
    if regret:
        top = ys[0] + regret
        axes.plot([xs[0], xs[0]], [ys[0], top], color=SECOND, linewidth=1.6, zorder=2)
        axes.axhline(top, color=SECOND, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        lines.append(Bbox([(xs[0], ys[0]), (xs[0], top)]))
    labels = []
    for x, y, entry in zip(xs, ys, entries, strict=True):
        colour = ACCENT if entry.rank == 1 else INK
        inside = colour if entry.candidate == chosen else PAPER
        axes.plot(
            [x], [y], "o", markersize=7, color=colour, markerfacecolor=inside, markeredgewidth=1.4, zorder=3
        )
        few = len(entries) <= FEW
        # an en space keeps its width in SVG, where two blanks become one
        text, before = (entry.candidate, f"{entry.rank}\u2002") if few else (str(entry.rank), "")
        labels.append(Label(x, y, text, before, colour if entry.rank == 1 else MUTED, few))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: measure.tick(value)))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"{_label(ranking, scorer)}, before any training")
    axes.set_ylabel(measure.axis(plain(ranking.achieved_measure, 40) or "accuracy after fine-tuning"))
    if regret is not None:
        text = f"regret {measure.gap(regret)}" if regret > 0.0005 else "no regret"
        axes.set_title(text, loc="right", color=SECOND if regret > 0.0005 else MUTED, fontsize=TEXT)
    place_labels(axes, labels, lines=lines)
    return figure


def achieved_figure(record: RunRecord) -> Figure | None:
    """`against_achieved` for a run, with its regret: at equal epochs after a trial, else over all that were verified.

    None where fewer than two candidates were trained.
    """
    ranking = record.ranking
    if from_trial(ranking.achieved_measure) and record.halving is not None:
        short = rank_regret(record.halving)
        regret = short.regret if short else None
    else:
        foretold = prediction(ranking)
        both = [
            (foretold[e.candidate], e.achieved)
            for e in _ranked(ranking)
            if e.candidate in foretold and e.achieved is not None
        ]
        if len(both) < 2:
            return None
        regret = top_regret([score for score, _ in both], [accuracy for _, accuracy in both], 1)
    return against_achieved(ranking, chosen=record.chosen.candidate, regret=regret)


def write_figures(ranking: Ranking, folder: Path) -> tuple[Path, ...]:
    """Write cost.png, intervals.png and achieved.png, as far as there is something to draw; the paths written.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {
        "cost": cost_front(ranking),
        "intervals": intervals(ranking),
        "achieved": against_achieved(ranking),
    }
    written = []
    for name, figure in drawn.items():
        if figure is not None:
            path = folder / f"{name}.png"
            path.write_bytes(png(figure))
            written.append(path)
    return tuple(written)


def _ranked(ranking: Ranking) -> list[Ranked]:
    return [entry for entry in ranking.entries if entry.rank is not None]


def _scores(ranking: Ranking, scorer: str) -> dict[str, float]:
    return {e.candidate: e.scores[scorer] for e in _ranked(ranking) if scorer in e.scores}


def _label(ranking: Ranking, scorer: str | None = None) -> str:
    name = scorer or prediction_name(ranking)
    return f"{plain(name)} (1 − mean relative rank)" if name == PANEL else f"{plain(name)} (higher is better)"


def _padded(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * share or 0.05 * max(abs(high), 0.2)
    return low - pad, high + pad


def _cost_axis(axes: Axes, costs: Sequence[float], name: str) -> None:
    """A log axis that spans at least a factor of 4, with ticks at 1, 2 and 5."""
    low, high = min(costs) / 1.3, max(costs) * 1.3
    missing = math.sqrt(max(4 * low / high, 1.0))
    axes.set_xscale("log")
    axes.set_xlim(low / missing, high * missing)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.minorticks_off()
    axes.set_xlabel(f"{name} (log scale)")


def _stairs(front: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """What quality a cost buys: level up to the next point of the front, then up to it."""
    corners = [front[0]]
    for x, y in front[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return [*corners, (end, corners[-1][1])]
