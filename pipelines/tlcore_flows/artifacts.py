"""Prefect artifacts: after each stage what a person wants to see of it in the morning."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from tlcore.report.places import place, shortlist_sentence
from tlcore.stages.base import StageJob, StageResult
from tlcore.store import Store
from tlcore.values import DataReport, Parity, Ranking, Ref, RunRecord
from tlcore_flows.artifact_text import cell, key

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["ProgressArtifact", "data_report", "key", "publish", "ranking_rows", "ranking_words"]

_log = logging.getLogger(__name__)


class ProgressArtifact:
    """A progress artifact that comes into being with its first update."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._id: UUID | None = None
        self._broken = False

    def update(self, percent: float, text: str) -> None:
        if self._broken:
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        try:
            if self._id is None:
                made = create_progress_artifact(percent, key=key("progress", self._label), description=text)
                self._id = cast("UUID", made)  # a coroutine only where a loop runs
            else:
                update_progress_artifact(self._id, percent, description=text)
        except Exception:  # noqa: BLE001 - progress is a courtesy; the work goes on
            self._broken = True
            _log.warning("no progress artifact for %s", self._label, exc_info=True)


def publish(job: StageJob, result: StageResult, store: Store) -> None:
    """Create the artifacts of a finished stage. One that fails is logged and never ends a run."""
    make = _MAKERS.get(job.stage)
    if make is None or not _in_a_run():
        return
    try:
        make(job, result.ref, store)
    except Exception:  # noqa: BLE001 - an artifact is a courtesy; the result is in the store
        _log.warning("no artifact for %s", job.label, exc_info=True)


def _in_a_run() -> bool:
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


def _data_report(job: StageJob, ref: Ref, store: Store) -> None:
    from prefect.artifacts import create_markdown_artifact

    from tlcore.stages.values import CheckedData

    create_markdown_artifact(data_report(store.read(ref, CheckedData).report), key="data-report")


def data_report(report: DataReport) -> str:
    """The data report as Markdown; names are escaped, since they come from strangers."""
    lines = [f"{report.rows:,} images, {report.dropped:,} dropped, {len(report.classes)} classes", ""]
    places = list(report.counts)
    if places:
        lines += ["| class | " + " | ".join(map(cell, places)) + " |", "|---" * (len(places) + 1) + "|"]
        for name in report.classes:
            counts = (str(report.counts[place].get(name, 0)) for place in places)
            lines.append(f"| {cell(name)} | " + " | ".join(counts) + " |")
        lines.append("")
    if report.problems:
        lines += ["| | finding | count | examples |", "|---|---|---|---|"]
        for problem in report.problems:
            examples = ", ".join(map(cell, problem.examples))
            lines.append(f"| {problem.severity} | {cell(problem.message)} | {problem.count:,} | {examples} |")
    else:
        lines.append("No problem was found.")
    return "\n".join(lines)


def _ranking(job: StageJob, ref: Ref, store: Store) -> None:
    from prefect.artifacts import create_image_artifact, create_table_artifact

    from tlcore.report import figures, ranking_figures
    from tlcore.report.drawing import data_uri

    ranking = store.read(ref, Ranking)
    create_table_artifact(ranking_rows(ranking), key="ranking", description=cell(ranking_words(ranking)))
    drawn = {
        "cost": (ranking_figures.cost_front(ranking), "quality against cost, with the Pareto front"),
        "intervals": (
            ranking_figures.intervals(ranking),
            "rank of each candidate, with its interval over images",
        ),
    }
    if len(ranking.scorers) == 1 and any(entry.scores for entry in ranking.entries):
        only = ranking.scorers[0]
        drawn[only] = (figures.scores(ranking, only), f"{only} per candidate")
    for name, (figure, description) in drawn.items():
        if figure is not None:
            create_image_artifact(data_uri(figure), key=key("ranking", name), description=description)


def ranking_rows(ranking: Ranking) -> list[dict[str, object]]:
    """The ranking as rows of a table artifact, from best to worst; columns that hold nothing are left out."""
    rows: list[dict[str, object]] = [
        {
            "rank": place(entry),
            "candidate": entry.candidate,
            "tied with best": "≈" if entry.tied_with_best else "",
            **{name: entry.scores.get(name) for name in ranking.scorers},
            "ImageNet top-1, %": entry.prior,
            "prior rank": entry.prior_rank,
            "parameters": entry.params,
            "GMACs": entry.gmacs,
            "images/s": entry.images_per_second,
            "engine": entry.engine,
            "latency, ms": entry.latency_ms,
            "ONNX, bytes": entry.onnx_bytes,
            "licence": entry.licence,
            "note": entry.skipped or "; ".join(entry.notes),
        }
        for entry in ranking.entries
    ]
    always = {"rank", "candidate", "note"}
    held = [name for name in rows[0] if name in always or any(row[name] not in (None, "") for row in rows)]
    return [{name: row[name] for name in held} for row in rows]


def ranking_words(ranking: Ranking) -> str:
    """What stands beside the table: how to read it, the shortlist, the prior."""
    prior = f"Prior rank: by {ranking.prior}, a baseline with no part in the rank." if ranking.prior else ""
    parts = ("From best to worst, higher scores are better.", shortlist_sentence(ranking), prior)
    return " ".join(filter(None, parts))


def _curves(job: StageJob, ref: Ref, store: Store) -> None:
    from prefect.artifacts import create_image_artifact

    from tlcore.report.curves import curves
    from tlcore.report.drawing import data_uri
    from tlcore.stages.values import Trained

    history = store.read(ref, Trained).checkpoint.history
    if len(history) > 1:  # a probe that is solved in closed form has no curve
        figure = curves({job.label: history}, job.label)
        create_image_artifact(data_uri(figure), key=key("curves", job.label), description=job.label)


def _evaluation(job: StageJob, ref: Ref, store: Store) -> None:
    if not any(name.startswith("baseline:") for name in job.inputs):
        return  # a trial: its accuracy is in the run card
    from tlcore.stages.values import Evaluation
    from tlcore_flows import evaluation_artifacts

    evaluation_artifacts.publish(store.read(ref, Evaluation))


def _parity(job: StageJob, ref: Ref, store: Store) -> None:
    from prefect.artifacts import create_table_artifact

    document = store.read(ref, Parity).model_dump(mode="json", exclude={"worst"})
    rows = [{"what": name.replace("_", " "), "value": value} for name, value in document.items()]
    create_table_artifact(rows, key="parity", description="the exported file against the model")


def _card(job: StageJob, ref: Ref, store: Store) -> None:
    from prefect.artifacts import create_markdown_artifact

    from tlcore.report.formatting import started
    from tlcore.report.outputs import score_text

    record = store.read(ref, RunRecord)
    made = started(record.chosen.strategy, record.chosen.kept_start)
    create_markdown_artifact(
        f"**{cell(record.chosen.candidate)}, {cell(made)}**: test {score_text(record.metrics)}\n\n"
        f"- run card: `{record.card}`\n- model: `{record.onnx}`\n- `tlcore runs open {record.run_id}`",
        key="run-card",
        description=f"run {record.run_id}",
    )
    _achieved(record)


def _achieved(record: RunRecord) -> None:
    """After a trial or a verified ranking: what was foretold against what was achieved."""
    from prefect.artifacts import create_image_artifact

    from tlcore.report.drawing import data_uri
    from tlcore.report.ranking_figures import achieved_figure

    figure = achieved_figure(record)
    if figure is not None:
        text = f"foretold against {record.ranking.achieved_measure or 'achieved accuracy'}"
        create_image_artifact(data_uri(figure), key="ranking-achieved", description=cell(text))


def _adaptation(job: StageJob, ref: Ref, store: Store) -> None:
    from tlcore_flows import adaptation_artifacts  # draws: it takes a second to import

    adaptation_artifacts.publish(job, ref, store)


_MAKERS: dict[str, Callable[[StageJob, Ref, Store], None]] = {
    "check": _data_report,
    "rank": _ranking,
    "train": _curves,
    "search": _curves,
    "gap": _adaptation,
    "adapt": _adaptation,
    "scatter": _adaptation,
    "evaluate": _evaluation,
    "parity": _parity,
    "card": _card,
}
