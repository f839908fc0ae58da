"""What the run card shows of the two choices: the source model, and the adapter."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from tlcore.report import figures
from tlcore.report.curves import curves
from tlcore.report.drawing import svg
from tlcore.selection.agreement import Agreement, agreement
from tlcore.values import Ranked, Ranking, RunRecord

__all__ = ["AdaptationView", "RankingView", "adaptation_view", "ranking_view"]


@dataclass(frozen=True)
class Row:
    entry: Ranked
    place: str
    chosen: bool


@dataclass(frozen=True)
class ScorerView:
    name: str
    scores: Markup
    achieved: Markup | None
    agreement: Agreement | None
    first: float | None
    best: str


@dataclass(frozen=True)
class RankingView:
    rows: list[Row]
    skipped: list[Ranked]
    scorers: list[ScorerView]
    columns: set[str]
    notes: list[tuple[str, str]]


def ranking_view(record: RunRecord) -> RankingView:
    """The ranked candidates, the skipped ones, and per scorer its figures and its agreement with what was achieved."""
    ranking = record.ranking
    ranks = [entry.rank for entry in ranking.entries if entry.rank is not None]
    rows = [
        Row(
            entry,
            f"{entry.rank}{'=' if ranks.count(entry.rank) > 1 else ''}",
            entry.candidate == record.chosen.candidate,
        )
        for entry in ranking.entries
        if entry.rank is not None
    ]
    columns = {
        name
        for name in ("params", "images_per_second", "prior", "achieved")
        if any(getattr(row.entry, name) is not None for row in rows)
    }
    scorers = [_scorer(ranking, name, record.chosen.candidate) for name in ranking.scorers]
    return RankingView(
        rows=rows,
        skipped=[entry for entry in ranking.entries if entry.rank is None],
        scorers=[view for view in scorers if view is not None],
        columns=columns,
        notes=[(row.entry.candidate, note) for row in rows for note in row.entry.notes],
    )


def _scorer(ranking: Ranking, scorer: str, chosen: str) -> ScorerView | None:
    scored = [entry for entry in ranking.entries if scorer in entry.scores]
    if not scored:
        return None
    achieved = [(e.scores[scorer], e.achieved, e.candidate) for e in scored if e.achieved is not None]
    known = len(achieved) >= 2
    return ScorerView(
        name=scorer,
        scores=Markup(
            svg(figures.scores(ranking, scorer, chosen), f"{scorer} of each candidate, with intervals")
        ),
        achieved=Markup(
            svg(
                figures.scores_against_achieved(ranking, scorer, chosen),
                f"{scorer} against achieved test accuracy",
            )
        )
        if known
        else None,
        agreement=agreement([s for s, _, _ in achieved], [a for _, a, _ in achieved]) if known else None,
        first=max(achieved)[1] if known else None,
        best=max(achieved, key=lambda row: row[1])[2] if known else "",
    )


@dataclass(frozen=True)
class AdaptationView:
    labelled: bool
    figure: Markup | None
    curves: Markup | None
    reason: str


def adaptation_view(record: RunRecord) -> AdaptationView | None:
    """Figures of the adapters and the reason of the choice; None where nothing was adapted."""
    adaptation = record.adaptation
    if adaptation is None:
        return None
    entries = (adaptation.source_only, *adaptation.tried)
    labelled = any(entry.accuracy is not None for entry in entries)
    histories = {entry.strategy: entry.history for entry in adaptation.tried if entry.history}
    measured = {name for history in histories.values() for line in history for name in line.measures}
    drawn = None
    if histories:
        measure = adaptation.validator if adaptation.validator in measured else None
        drawn = curves(histories, adaptation.kept, measure=measure, named=True)
    # the sentence of the rule begins with the verdict, which the card sets in bold itself
    reason = adaptation.reason.removeprefix("Kept: ").removeprefix("Not kept: ")
    return AdaptationView(
        labelled=labelled,
        figure=Markup(svg(figures.adapters(adaptation), "Target accuracy of each adapter"))
        if labelled
        else None,
        curves=None
        if drawn is None
        else Markup(svg(drawn, "Loss and validator score of each adapter by epoch")),
        reason=reason[:1].upper() + reason[1:],
    )
