"""Stages that measure the result and write the run card."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlcore.evaluation.comparison import compare, majority, negative_transfer
from tlcore.evaluation.metrics import measure
from tlcore.stages.base import StageContext
from tlcore.stages.networks import load_predictions
from tlcore.stages.tables import load_table, rows_of
from tlcore.stages.values import CheckedData, Evaluation
from tlcore.values import SOURCE, TARGET, RunRecord

__all__ = ["card", "evaluate"]


def evaluate(context: StageContext) -> Evaluation:
    """Measure the chosen model on the test split, against baselines on the same images.

    Inputs: model (chosen), and baselines by name: "baseline:NAME". Option: replicates.
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
    labels: NDArray[np.int64] = np.asarray(dataset.labels(), dtype=np.int64)
    table = dataset.table
    replicates, seed = context.option("replicates"), context.job.seed
    context.progress(0, 0, f"{replicates:,} bootstrap draws over {len(rows):,} images")
    probabilities = load_predictions(context.folder("model"), rows)
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
    flagged = negative_transfer(baselines)
    return Evaluation(
        metrics=metrics, baselines=tuple(baselines), domain=domain, classes=dataset.classes,
        warnings=(*notes, *((flagged,) if flagged else ())),
    )  # fmt: skip


def card(context: StageContext) -> RunRecord:
    """Render the run card: card.html beside the record. Option: record, a RunRecord document."""
    from tlcore.report.card import render

    record = RunRecord.model_validate(context.option("record"))
    context.progress(0, 0, "drawing")
    (context.work.folder / "card.html").write_text(render(record), encoding="utf-8")
    return record
