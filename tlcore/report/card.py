"""The run card: one HTML file that needs nothing beside it.

No script, no font, no request: the page forbids itself all of them. Names of classes and files come from
strangers; the template escapes everything but the figures, whose text matplotlib has escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import jinja2
from markupsafe import Markup

from tlcore.evaluation.comparison import LINEAR_PROBE, MAJORITY, SCRATCH, negative_transfer, sentence
from tlcore.report import figures, formatting
from tlcore.report.curves import curves
from tlcore.report.drawing import PALETTE, svg
from tlcore.report.thumbnails import thumbnail
from tlcore.selection.agreement import Agreement, agreement
from tlcore.values import DataReport, Metrics, Mistake, Ranked, Ranking, RunRecord

__all__ = ["render"]

BASELINES = {
    MAJORITY: "most frequent class",
    LINEAR_PROBE: "linear probe, frozen",
    SCRATCH: "same network from scratch",
}
"""Baselines as a reader calls them; others keep their name."""
_PHRASES = {
    MAJORITY: "always answering the most frequent class",
    LINEAR_PROBE: "a linear probe on frozen features",
    SCRATCH: "the same network trained from scratch",
}

_PAIRS = 15  # most confused pairs shown where the matrix is too large
_EXTREMES = 12  # classes shown from each end where there are many


def render(record: RunRecord) -> str:
    """The run card of `record`.

    Thumbnails are read from `record.thumbnails` (or a mistake's own uri); what is missing there is left out. The
    file is complete: it makes no request, and may be mailed.
    """
    template = _environment().get_template("card.html.j2")
    return template.render(
        record=record,
        palette=PALETTE,
        verdict=_verdict(record),
        negative=negative_transfer(record.baselines),
        results=_results(record),
        baselines=sorted(record.baselines, key=lambda entry: -entry.accuracy),
        ranking=_ranking(record),
        curves=_curves(record),
        adaptation=_adaptation(record),
        confusion=_confusion(record),
        recalls=_recalls(record.metrics),
        mistakes=[_Mistake(entry, _picture(record, entry)) for entry in record.metrics.mistakes],
        data=_data(record.data),
        timings=_timings(record),
        configuration=formatting.toml(record.config),
        version=record.versions.get("tlcore", ""),
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tlcore.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in (
        "count",
        "interval",
        "moment",
        "number",
        "percent",
        "rate",
        "scientific",
        "score",
        "seconds",
        "signed_points",
        "size",
    ):
        environment.filters[name] = getattr(formatting, name)
    environment.filters["baseline"] = lambda name: BASELINES.get(name, name)
    environment.filters["comparison"] = sentence
    environment.globals["DASH"] = formatting.DASH
    return environment


@dataclass(frozen=True)
class _Verdict:
    beats: str
    others: str
    total: float


def _verdict(record: RunRecord) -> _Verdict:
    """Against the baselines, as two halves of a sentence."""
    named = [(_PHRASES.get(entry.baseline, entry.baseline), entry) for entry in record.baselines]
    beats = [name for name, entry in named if entry.better]
    worse = [name for name, entry in named if entry.difference_ci.high < 0]
    level = [name for name, entry in named if not entry.better and entry.difference_ci.high >= 0]
    others = [f"worse than {_listed(worse)}"] * bool(worse)
    others += [f"not shown to differ from {_listed(level)}"] * bool(level)
    return _Verdict(beats=_listed(beats), others=" and ".join(others), total=sum(record.seconds.values()))


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def _results(record: RunRecord) -> Markup | None:
    if not record.baselines:
        return None
    result = f"{record.chosen.candidate} · {record.chosen.strategy}"
    drawn = figures.accuracies(record.metrics, record.baselines, BASELINES, result)
    return Markup(svg(drawn, "Test accuracy of the result and of each baseline, with intervals"))


@dataclass(frozen=True)
class _Row:
    entry: Ranked
    place: str
    chosen: bool


@dataclass(frozen=True)
class _ScorerView:
    name: str
    scores: Markup
    achieved: Markup | None
    agreement: Agreement | None
    first: float | None
    best: str


@dataclass(frozen=True)
class _RankingView:
    rows: list[_Row]
    skipped: list[Ranked]
    scorers: list[_ScorerView]
    columns: set[str]
    notes: list[tuple[str, str]]


def _ranking(record: RunRecord) -> _RankingView:
    ranking = record.ranking
    ranks = [entry.rank for entry in ranking.entries if entry.rank is not None]
    rows = [
        _Row(
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
    return _RankingView(
        rows=rows,
        skipped=[entry for entry in ranking.entries if entry.rank is None],
        scorers=[view for view in scorers if view is not None],
        columns=columns,
        notes=[(row.entry.candidate, note) for row in rows for note in row.entry.notes],
    )


def _scorer(ranking: Ranking, scorer: str, chosen: str) -> _ScorerView | None:
    scored = [entry for entry in ranking.entries if scorer in entry.scores]
    if not scored:
        return None
    achieved = [(e.scores[scorer], e.achieved, e.candidate) for e in scored if e.achieved is not None]
    known = len(achieved) >= 2
    return _ScorerView(
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


def _curves(record: RunRecord) -> Markup | None:
    names = [f"{trial.candidate} · {trial.strategy}" for trial in record.trials]
    histories = dict(zip(names, (trial.history for trial in record.trials), strict=True))
    if not any(histories.values()):
        return None
    chosen = f"{record.chosen.candidate} · {record.chosen.strategy}"
    if not histories.get(chosen) and record.adaptation is not None:
        best = max(record.trials, key=lambda trial: trial.validation)
        chosen = f"{best.candidate} · {best.strategy}"
    return Markup(svg(curves(histories, chosen), "Training loss and validation measure by epoch"))


@dataclass(frozen=True)
class _AdaptationView:
    labelled: bool
    figure: Markup | None
    curves: Markup | None
    reason: str


def _adaptation(record: RunRecord) -> _AdaptationView | None:
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
    return _AdaptationView(
        labelled=labelled,
        figure=Markup(svg(figures.adapters(adaptation), "Target accuracy of each adapter"))
        if labelled
        else None,
        curves=None
        if drawn is None
        else Markup(svg(drawn, "Loss and validator score of each adapter by epoch")),
        reason=reason[:1].upper() + reason[1:],
    )


@dataclass(frozen=True)
class _ConfusionView:
    figure: Markup | None
    large: bool
    pairs: list[tuple[str, str, int, float]]


def _confusion(record: RunRecord) -> _ConfusionView | None:
    """The matrix where it is readable, else (and beside it) the most confused pairs: true, predicted, images, share."""
    classes, counts = record.data.classes, record.metrics.confusion
    if not counts or len(counts) != len(classes):
        return None
    pairs = [
        (classes[i], classes[j], cell, cell / sum(row))
        for i, row in enumerate(counts)
        for j, cell in enumerate(row)
        if cell and i != j
    ]
    pairs.sort(key=lambda pair: (-pair[2], -pair[3]))
    drawn = None
    if len(classes) <= figures.MANY:
        drawn = Markup(
            svg(figures.confusion_matrix(classes, counts), "Confusion matrix: true class by predicted class")
        )
    return _ConfusionView(figure=drawn, large=len(classes) > figures.FEW, pairs=pairs[:_PAIRS])


def _recalls(metrics: Metrics) -> list[tuple[str, float, int | None]]:
    """(class, recall, test images), the weakest first; of very many classes only the weakest."""
    supports = dict.fromkeys(metrics.per_class, None) | {
        name: sum(row) for name, row in zip(metrics.per_class, _present(metrics), strict=False)
    }
    rows = sorted(
        ((name, recall, supports[name]) for name, recall in metrics.per_class.items()), key=lambda row: row[1]
    )
    return rows if len(rows) <= figures.MANY else rows[: 2 * _EXTREMES]


def _present(metrics: Metrics) -> list[tuple[int, ...]]:
    """Rows of the confusion matrix that have an image: the classes of `per_class`, in its order."""
    return [row for row in metrics.confusion if sum(row)]


@dataclass(frozen=True)
class _Mistake:
    entry: Mistake
    picture: str | None

    @property
    def file(self) -> str:
        return PurePath(self.entry.uri).name or self.entry.sample_id


def _picture(record: RunRecord, mistake: Mistake) -> str | None:
    return thumbnail(record.thumbnails.get(mistake.sample_id, mistake.uri))


@dataclass(frozen=True)
class _DataView:
    groups: list[str]
    rows: list[tuple[str, list[int]]]
    totals: list[int]
    summaries: list[tuple[str, int, int, int, float, int]]


def _data(report: DataReport) -> _DataView:
    """Images per class and split; for many classes per split: images, classes, smallest, mean, largest."""
    groups = list(report.counts)
    names = list(
        dict.fromkeys([*report.classes, *(name for group in groups for name in report.counts[group])])
    )
    table = [(name, [report.counts[group].get(name, 0) for group in groups]) for name in names]
    totals = [sum(report.counts[group].values()) for group in groups]
    summaries = []
    if len(names) > figures.MANY:
        for group in groups:
            counts = [n for n in report.counts[group].values() if n]
            if counts:
                summaries.append(
                    (group, sum(counts), len(counts), min(counts), sum(counts) / len(counts), max(counts))
                )
        table = []
    return _DataView(groups=groups, rows=table, totals=totals, summaries=summaries)


@dataclass(frozen=True)
class _Timing:
    stage: str
    seconds: float
    share: float
    cached: bool


def _timings(record: RunRecord) -> list[_Timing]:
    longest = max(record.seconds.values(), default=0.0) or 1.0
    return [
        _Timing(stage, spent, spent / longest, stage in record.cached)
        for stage, spent in record.seconds.items()
    ]
