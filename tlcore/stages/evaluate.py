"""Stages that measure the result and write the run card."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlcore.evaluation.calibration import reliability, scaled
from tlcore.evaluation.comparison import compare, majority, negative_transfer
from tlcore.evaluation.label_errors import label_errors
from tlcore.evaluation.metrics import measure
from tlcore.evaluation.rows import per_domain
from tlcore.stages.base import StageContext
from tlcore.stages.evaluate_outputs import evaluate_outputs
from tlcore.stages.export import checkpoint_of, strategy_of, temperature_of
from tlcore.stages.networks import load_out_of_fold, load_predictions
from tlcore.stages.tables import load_table, rows_of
from tlcore.stages.values import AdaptedModel, CheckedData, Evaluation, Trained
from tlcore.values import SOURCE, TARGET, Calibration, Dataset, DomainRow, LabelErrors, RunRecord

__all__ = ["card", "evaluate"]

_OUT_OF_FOLD = {"model": "the model", "baseline:linear-probe": "a linear probe of the same network"}
"""Inputs whose out-of-fold predictions may judge the labels, the first that has some, and how people call them."""


def evaluate(context: StageContext) -> Evaluation:
    """Measure the chosen model on the test split, against baselines on the same images.

    Inputs: model (chosen), and baselines by name: "baseline:NAME". Options: replicates, calibrate (default: yes).

    Measured is what the exported file answers: the model's logits over its temperature, unless `calibrate` is off.
    """
    dataset = load_table(context.folder("data"), context.read("data", CheckedData))
    rows, domain = rows_of(dataset, "test", TARGET, labelled=True), TARGET
    notes: list[str] = []
    if not len(rows):
        if dataset.has_target:
            notes.append(
                "The target has no labelled test images: all accuracies are on source test images and say "
                "nothing certain about the target."
            )
        rows, domain = rows_of(dataset, "test", labelled=True), SOURCE
    if dataset.task != "classification":
        return evaluate_outputs(context, dataset, rows, domain, notes)
    labels: NDArray[np.int64] = np.asarray(dataset.labels(), dtype=np.int64)
    table = dataset.table
    replicates, seed = context.option("replicates"), context.job.seed
    context.progress(0, 0, f"{replicates:,} bootstrap draws over {len(rows):,} images")
    raw = load_predictions(context.folder("model"), rows)
    temperature = temperature_of(context, checkpoint_of(context, "model"))
    probabilities = scaled(raw, temperature)
    metrics = measure(
        probabilities, labels[rows], dataset.classes, sample_ids=table["sample_id"].gather(rows).to_list(),
        uris=table["uri"].gather(rows).to_list(), replicates=replicates, seed=seed,
    )  # fmt: skip
    correct = probabilities.argmax(1) == labels[rows]
    common = majority(labels[rows_of(dataset, "train", labelled=True)], dataset.classes)
    baselines = [compare(correct, labels[rows] == common, "majority", replicates=replicates, seed=seed)]
    for name in context.job.inputs:
        if name.startswith("baseline:"):
            theirs = load_predictions(context.folder(name), rows).argmax(1) == labels[rows]
            baselines.append(
                compare(correct, theirs, name.removeprefix("baseline:"), replicates=replicates, seed=seed)
            )
    strategy = strategy_of(context)
    flagged = negative_transfer(baselines, strategy)
    return Evaluation(
        metrics=metrics, baselines=tuple(baselines), domain=domain, classes=dataset.classes,
        warnings=(*notes, *((flagged,) if flagged else ())), calibration=_calibration(context),
        uncalibrated=reliability(raw, labels[rows]) if temperature != 1 else None, strategy=strategy,
        label_errors=_label_errors(context, dataset, labels), domains=_domains(context, dataset, labels),
    )  # fmt: skip


def _calibration(context: StageContext) -> Calibration | None:
    """Of the chosen network; an adapted one has none, since no labelled image of its domain was left out for it."""
    return None if context.ref("model").stage == "adapt" else context.read("model", Trained).calibration


def _label_errors(context: StageContext, dataset: Dataset, labels: NDArray[np.int64]) -> LabelErrors | None:
    for name, found_by in _OUT_OF_FOLD.items():
        stored = load_out_of_fold(context.folder(name)) if name in context.job.inputs else None
        if stored is not None and len(stored[0]):
            rows, probabilities = stored
            ids, uris = (dataset.table[column].gather(rows).to_list() for column in ("sample_id", "uri"))
            return label_errors(
                probabilities, labels[rows], dataset.classes, sample_ids=ids, uris=uris, found_by=found_by
            )
    return None


def _domains(context: StageContext, dataset: Dataset, labels: NDArray[np.int64]) -> tuple[DomainRow, ...]:
    """The labelled test images of each domain, sources first; none where there is one alone."""
    names = [SOURCE, TARGET]
    if context.ref("model").stage == "adapt" and context.read("model", AdaptedModel).adapted.target_only:
        names = [TARGET]  # what it says of source images means nothing
    rows = np.concatenate([rows_of(dataset, "test", name, labelled=True) for name in names])
    if not len(rows):
        return ()
    correct = load_predictions(context.folder("model"), rows).argmax(1) == labels[rows]
    found = per_domain(correct, dataset.table["domain"].gather(rows).to_list())
    return found if len(found) > 1 else ()


def card(context: StageContext) -> RunRecord:
    """Render the run card: card.html beside the record. Option: record, a RunRecord document."""
    from tlcore.report.card import render

    record = RunRecord.model_validate(context.option("record"))
    context.progress(0, 0, "drawing")
    (context.work.folder / "card.html").write_text(render(record), encoding="utf-8")
    return record
