"""What the run card shows of the choice of the source model: by scores, and by a trial."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from tlcore.report import figures, ranking_figures
from tlcore.report.drawing import svg
from tlcore.report.places import grouped_notes, level_with_best, shortlist_sentence
from tlcore.selection.agreement import Agreement, agreement
from tlcore.selection.halving import from_trial, rank_regret
from tlcore.values import Halving, Ranked, Ranking, Rung, RunRecord

__all__ = ["RankingView", "TrialView", "ranking_view", "trial_view"]

_COLUMNS = (
    "panel", "params", "gmacs", "images_per_second", "latency_ms", "onnx_bytes", "prior", "prior_rank", "achieved",
)  # fmt: skip
WIDE = 2
"""Scorers up to which their scores stand in the table of the ranking; more have a table of their own."""


@dataclass(frozen=True)
class Row:
    entry: Ranked
    place: str
    chosen: bool
    shortlisted: bool
    level: bool


@dataclass(frozen=True)
class Foretold:
    """How what `name` says agrees with what was achieved. `best`: the candidate that achieved most."""

    name: str
    agreement: Agreement
    best: str


@dataclass(frozen=True)
class RankingView:
    rows: list[Row]
    skipped: list[Ranked]
    columns: set[str]
    notes: list[tuple[str, list[str]]]
    shortlist: str
    firm: bool
    prediction: str
    cost: Markup | None
    cost_name: str
    large: bool
    intervals: Markup | None
    scores: Markup | None
    achieved: Markup | None
    foretold: list[Foretold]
    many: bool


def ranking_view(record: RunRecord) -> RankingView:
    """The ranked candidates, the skipped ones, the figures, and how scores agree with what was achieved."""
    ranking, chosen = record.ranking, record.chosen.candidate
    ranks = [entry.rank for entry in ranking.entries if entry.rank is not None]
    level = level_with_best(ranking)
    rows = [
        Row(
            entry,
            f"{entry.rank}{'=' if ranks.count(entry.rank) > 1 else ''}",
            entry.candidate == chosen,
            entry.candidate in ranking.shortlist,
            len(level) > 1 and entry.tied_with_best,
        )
        for entry in ranking.entries
        if entry.rank is not None
    ]
    columns = {name for name in _COLUMNS if any(getattr(row.entry, name) is not None for row in rows)}
    if len(ranking.scorers) == 1:
        columns.discard("panel")  # the rank once more
    name, cost = ranking_figures.prediction_name(ranking), ranking_figures.cost_of(ranking)
    verified = not from_trial(ranking.achieved_measure)
    foretold = _foretold(ranking) if verified else []
    drawn = ranking_figures.achieved_figure(record) if foretold else None
    only = ranking.scorers[0] if len(ranking.scorers) == 1 and name in _scored(ranking) else None
    return RankingView(
        rows=rows,
        skipped=[entry for entry in ranking.entries if entry.rank is None],
        columns=columns,
        notes=grouped_notes([row.entry for row in rows]),
        shortlist=shortlist_sentence(ranking),
        firm=any(row.entry.rank_interval is not None for row in rows),
        prediction=name,
        cost=_inline(
            ranking_figures.cost_front(ranking, chosen), f"{name} of each candidate against {cost.name}"
        ),
        cost_name=cost.name,
        large=len(rows) > ranking_figures.FEW,
        intervals=_inline(
            ranking_figures.intervals(ranking, chosen), f"Rank of each candidate by {name}, with intervals"
        ),
        scores=_inline(
            figures.scores(ranking, only, chosen) if only else None,
            f"{only} of each candidate, with intervals",
        ),
        achieved=_inline(drawn, f"{name} against {ranking.achieved_measure or 'what was achieved'}"),
        foretold=foretold,
        many=len(ranking.scorers) > WIDE,
    )


def _inline(figure: Figure | None, label: str) -> Markup | None:
    return None if figure is None else Markup(svg(figure, label))


def _scored(ranking: Ranking) -> set[str]:
    return {name for entry in ranking.entries for name in entry.scores}


def _foretold(ranking: Ranking) -> list[Foretold]:
    """The prediction first, then each scorer of a panel, then the static prior; each over those that it knows."""
    achieved = {e.candidate: e.achieved for e in ranking.entries if e.achieved is not None}
    said = {ranking_figures.prediction_name(ranking): ranking_figures.prediction(ranking)}
    for name in ranking.scorers:
        said.setdefault(name, {e.candidate: e.scores[name] for e in ranking.entries if name in e.scores})
    prior = {e.candidate: -float(e.prior_rank) for e in ranking.entries if e.prior_rank is not None}
    said[f"static prior ({ranking.prior})"] = prior
    views = []
    for name, values in said.items():
        both = [candidate for candidate in values if candidate in achieved]
        if len(both) >= 2:
            found = agreement([values[c] for c in both], [achieved[c] for c in both])
            views.append(Foretold(name, found, max(both, key=achieved.__getitem__)))
    return views


@dataclass(frozen=True)
class TrialView:
    """`share` of the budget that was used; `figure` shows the scores against what the trial found.

    `regret`: what `first`, the first by rank, lacked against `best` in the last rung that both finished; None where it
    was compared with nobody.
    """

    trial: Halving
    rungs: list[Rung]
    share: float
    figure: Markup | None
    first: str
    best: str
    regret: float | None


def trial_view(record: RunRecord) -> TrialView | None:
    """The short fine-tunes by rung, the best of each first; None where no trial was held."""
    trial, ranking = record.halving, record.ranking
    if trial is None:
        return None
    place = {name: index for index, name in enumerate(trial.shortlist)}
    short = rank_regret(trial)
    drawn = ranking_figures.achieved_figure(record) if from_trial(ranking.achieved_measure) else None
    return TrialView(
        trial=trial,
        rungs=sorted(
            trial.rungs,
            key=lambda r: (
                r.rung,
                not r.survived,
                r.validation is None,
                -(r.validation or 0),
                place[r.candidate],
            ),
        ),
        share=trial.seconds / trial.budget_seconds,
        figure=_inline(
            drawn, f"{ranking_figures.prediction_name(ranking)} against {ranking.achieved_measure}"
        ),
        first=trial.shortlist[0],
        best=short.best if short else "",
        regret=short.regret if short else None,
    )
