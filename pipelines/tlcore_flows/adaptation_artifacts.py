"""Prefect artifacts of domain adaptation: the gap before it, each adapter, the features before and after."""

from __future__ import annotations

from typing import Literal

from matplotlib.figure import Figure

from tlcore.evaluation.accuracy_estimates import CANNOT_SEE
from tlcore.report import adaptation_figures, gap_figures
from tlcore.report.curves import curves
from tlcore.report.drawing import data_uri
from tlcore.report.formatting import percent
from tlcore.report.gap import balance_classes, gap_measures
from tlcore.report.verdicts import NOT_MEASURABLE
from tlcore.stages.base import StageJob
from tlcore.stages.values import AdaptedModel
from tlcore.store import Store
from tlcore.values import Adaptation, Adapted, DomainGap, Ref, Scatter
from tlcore_flows.artifact_text import cell, key

__all__ = ["adapted_rows", "gap_report", "publish"]


def publish(job: StageJob, ref: Ref, store: Store) -> None:
    """The artifacts of a finished stage "gap", "adapt" or "scatter"."""
    {"gap": _gap, "adapt": _adapted, "scatter": _scatter}[job.stage](job, ref, store)


def _gap(job: StageJob, ref: Ref, store: Store) -> None:
    from prefect.artifacts import create_markdown_artifact

    gap = store.read(ref, DomainGap)
    create_markdown_artifact(gap_report(gap), key="domain-gap")
    _image(gap_figures.class_balance(gap), "domain-gap-classes", "share of each class in both domains")
    _image(gap_figures.examples(gap), "domain-gap-examples", "images of the source above the target's")


def gap_report(gap: DomainGap) -> str:
    """The report before training as Markdown; names are escaped, since they come from strangers."""
    lines = ["| measure | value | how to read it |", "|---|---|---|"]
    lines += [f"| {cell(one.name)} | {cell(one.value)} | {cell(one.reading)} |" for one in gap_measures(gap)]
    lines += ["", *(f"**Note:** {cell(note)}\n" for note in gap.notes)]
    shares = [gap.source_shares, gap.predicted_shares, gap.label_shares]
    names = balance_classes(gap)
    if names:
        lines += ["| class | source | target, as predicted | target, test labels |", "|---|---|---|---|"]
    for name in names:
        cells = (percent(each.get(name)) for each in shares)
        lines.append(f"| {cell(name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _adapted(job: StageJob, ref: Ref, store: Store) -> None:
    from prefect.artifacts import create_table_artifact

    model = store.read(ref, AdaptedModel)
    description = cell(f"{job.label} against source-only. {CANNOT_SEE}")
    create_table_artifact(adapted_rows(model), key=key("target", job.label), description=description)
    history = model.checkpoint.history
    if len(history) > 1:  # what is solved in closed form has no curve
        _image(curves({job.label: history}, job.label), key("curves", job.label), job.label)
    name = model.adapted.strategy
    alone = Adaptation(
        source_only=model.source_only, tried=(model.adapted,), kept=name, reason="", target_images=model.target_images,
        validator=" + ".join(model.adapted.validators),
    )  # fmt: skip
    figure = adaptation_figures.validators_over_time(alone)
    _image(figure, key("validators", job.label), f"validators by epoch, {job.label}")


def adapted_rows(model: AdaptedModel) -> list[dict[str, object]]:
    """An adapter beside source-only, one measure a row."""
    pair = (model.source_only, model.adapted)
    rows: list[dict[str, object]] = []

    def add(what: str, first: object, second: object) -> None:
        cells = (round(one, 4) if isinstance(one, float) else one for one in (first, second))
        rows.append(dict(zip(("what", "source-only", "adapter"), (what, *cells), strict=True)))

    labelled = any(entry.accuracy is not None for entry in pair)

    def on_target(what: str, field: str) -> None:
        first, second = (getattr(entry, field) if labelled else NOT_MEASURABLE for entry in pair)
        add(f"target accuracy, {what}", first, second)

    on_target("label-free choice", "accuracy")
    if labelled:
        add("its 95 % interval", *map(_interval, pair))
    on_target("last epoch", "accuracy_last")
    on_target("oracle, which peeks at the labels", "accuracy_oracle")
    for name in model.adapted.validators:
        add(f"validator {name}", *(entry.validators.get(name) for entry in pair))
    if len(model.adapted.validators) > 1:
        add("all validators together", *(entry.validator_score for entry in pair))
    for what, field in (
        ("ATC by confidence", "atc_confidence"),
        ("ATC by entropy", "atc_entropy"),
        ("difference of confidences", "difference_of_confidences"),
        ("lowest", "low"),
        ("highest", "high"),
    ):
        if all(entry.estimates is not None for entry in pair):
            add(f"expected target accuracy, {what}", *(getattr(entry.estimates, field) for entry in pair))
    add("source validation accuracy", *map(_on_source, pair))
    if all(entry.cluster_agreement is not None for entry in pair):
        add("agreement with clusters of the features", *(entry.cluster_agreement for entry in pair))
    add("largest share of one predicted class", *(entry.top_share for entry in pair))
    if model.adapted.stopped:
        add("stopped early", "", model.adapted.stopped)
    return rows


def _scatter(job: StageJob, ref: Ref, store: Store) -> None:
    pictured = store.read(ref, Scatter)
    colourings: tuple[Literal["domain", "class"], ...] = ("domain", "class")
    for by in colourings:
        figure = adaptation_figures.scatter(pictured, by)
        _image(figure, key("features", by), f"features before and after adaptation, coloured by {by}")


def _interval(entry: Adapted) -> str:
    between = entry.accuracy_ci
    return "" if between is None else f"{between.low:.3f} to {between.high:.3f}"


def _on_source(entry: Adapted) -> object:
    return "not asked: for the target alone" if entry.target_only else entry.source_validation_accuracy


def _image(figure: Figure | None, name: str, description: str) -> None:
    from prefect.artifacts import create_image_artifact

    if figure is not None:
        create_image_artifact(data_uri(figure), key=name, description=description)
