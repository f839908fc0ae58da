"""What the run card and the JSON document say of searches over a strategy's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tlcore.report.drawing import ACCENT, MUTED, SOFT, TEXT, axes_style, new_figure, svg
from tlcore.report.measure import ACCURACY, Measure, measure_of
from tlcore.values import Json, RunRecord, SearchResult, SearchTrial

__all__ = ["SearchView", "search_document", "search_figure", "search_views"]

WIDTH, HEIGHT = 400.0, 168.0  # units


@dataclass(frozen=True)
class Row:
    trial: SearchTrial
    options: list[str]
    outcome: str
    best: bool


@dataclass(frozen=True)
class SearchView:
    """A search with its trials, the best first, then those that ended early, then those that failed."""

    search: SearchResult
    rows: list[Row]
    figure: Markup | None
    gain: float | None
    """What the best trial has over the configured options, on validation."""


def search_views(record: RunRecord) -> list[SearchView]:
    return [_view(search, measure_of(record.metrics)) for search in record.searches]


def _view(search: SearchResult, measure: Measure) -> SearchView:
    names = list(search.space)
    rows = [
        Row(
            trial,
            [_option(trial.options.get(name)) for name in names],
            _outcome(trial, search),
            trial.number == search.best,
        )
        for trial in sorted(search.trials, key=_place)
    ]
    first = next((trial for trial in search.trials if trial.number == 0 and trial.finished), None)
    best = next((trial for trial in search.trials if trial.number == search.best), None)
    gain = None
    if first is not None and best is not None:
        gain = (best.validation or 0.0) - (first.validation or 0.0)
    drawn = search_figure(search, measure)
    label = f"Validation by trial of {search.strategy} on {search.candidate}"
    return SearchView(search, rows, None if drawn is None else Markup(svg(drawn, label)), gain)


def _place(trial: SearchTrial) -> tuple[bool, bool, float, float]:
    return not trial.finished, trial.failed is not None, -(trial.validation or 0.0), trial.loss or 0.0


def _option(value: Json) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _outcome(trial: SearchTrial, search: SearchResult) -> str:
    if trial.failed is not None:
        return f"failed: {trial.failed}"
    if trial.pruned:
        return f"ended after {trial.epochs} {'epoch' if trial.epochs == 1 else 'epochs'}"
    in_soup = search.soup is not None and search.soup.kept and trial.number in search.soup.members
    return ", ".join(["as configured"] * (trial.number == 0) + ["in the soup"] * in_soup)


def search_figure(search: SearchResult, measure: Measure = ACCURACY) -> Figure | None:
    """Validation of each trial, and the best so far as a line; trials that ended early are hollow. None below two."""
    shown = [trial for trial in search.trials if trial.validation is not None and trial.failed is None]
    if len(shown) < 2:
        return None
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    axes_style(axes, grid="y")
    best, line = -float("inf"), []
    for trial in shown:
        best = max(best, (trial.validation or 0.0) if trial.finished else best)
        line.append(best)
    axes.step([t.number for t in shown], line, where="post", color=SOFT, linewidth=1.2)
    for trial in shown:
        colour = ACCENT if trial.number == search.best else MUTED
        axes.plot(
            [trial.number], [trial.validation or 0.0], marker="o", markersize=6, linestyle="none", color=colour,
            markerfacecolor=colour if trial.finished else "none",
        )  # fmt: skip
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: measure.tick(value)))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    title = measure.axis("validation" if measure.share else f"validation {measure.name}")
    axes.set_title(title, loc="left", color=MUTED, fontsize=TEXT)
    axes.set_xlabel("trial")
    axes.margins(x=0.04, y=0.14)
    return figure


def search_document(search: SearchResult) -> dict[str, Any]:
    """The search as plain JSON values."""
    return {
        "candidate": search.candidate,
        "strategy": search.strategy,
        "space": dict(search.space),
        "best": search.best,
        "reason": search.reason,
        "budget_seconds": search.budget,
        "seconds": round(search.seconds, 3),
        "soup": None if search.soup is None else search.soup.model_dump(mode="json"),
        "trials": [trial.model_dump(mode="json", exclude={"curve"}) for trial in search.trials],
    }
