"""The measuring of networks that answer numbers or tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcore.evaluation.comparison import negative_transfer
from tlcore.evaluation.regression_metrics import compare_numbers, measure_numbers
from tlcore.evaluation.tag_metrics import compare_tags, measure_tags
from tlcore.stages.base import StageContext
from tlcore.stages.export import strategy_of
from tlcore.stages.networks import load_predictions
from tlcore.stages.tables import rows_of
from tlcore.stages.values import Evaluation
from tlcore.values import Comparison, Dataset, NumberMetrics, TagMetrics

__all__ = ["FREQUENCIES", "MEAN", "evaluate_outputs"]

MEAN = "mean"
"""Baseline: always the mean of the training numbers."""
FREQUENCIES = "tag-frequencies"
"""Baseline: for every image the share of the training images that have each tag."""


def evaluate_outputs(
    context: StageContext, dataset: Dataset, rows: NDArray[np.int64], domain: str, notes: Sequence[str]
) -> Evaluation:
    """Measure the chosen model on the labelled test images `rows`, against baselines on the same images.

    Inputs and options: as `tlcore.stages.evaluate.evaluate`.
    """
    replicates, seed = context.option("replicates"), context.job.seed
    context.progress(0, 0, f"{replicates:,} bootstrap draws over {len(rows):,} images")
    targets = dataset.targets()
    outputs, truth = load_predictions(context.folder("model"), rows), targets[rows]
    ids, uris = (dataset.table[column].gather(rows).to_list() for column in ("sample_id", "uri"))
    numbers = dataset.task == "regression"
    metrics: NumberMetrics | TagMetrics
    if numbers:
        metrics = measure_numbers(outputs, truth, sample_ids=ids, uris=uris, replicates=replicates, seed=seed)
    else:
        metrics = measure_tags(outputs, truth, dataset.classes, replicates=replicates, seed=seed)
    simple = targets[rows_of(dataset, "train", labelled=True)].mean(axis=0)
    answers: dict[str, NDArray[Any]] = {
        MEAN if numbers else FREQUENCIES: np.broadcast_to(simple, truth.shape)
    }
    for name in context.job.inputs:
        if name.startswith("baseline:"):
            answers[name.removeprefix("baseline:")] = load_predictions(context.folder(name), rows)
    baselines: list[Comparison] = []
    if len(rows) > 1:  # of a single image nothing can be paired
        compare = compare_numbers if numbers else compare_tags
        baselines = [
            compare(outputs, theirs, truth, name, replicates=replicates, seed=seed)
            for name, theirs in answers.items()
        ]
    strategy = strategy_of(context)
    flagged = negative_transfer(baselines, strategy)
    return Evaluation(
        metrics=metrics, baselines=tuple(baselines), domain=domain, classes=dataset.classes,
        warnings=(*notes, *((flagged,) if flagged else ())), strategy=strategy,
    )  # fmt: skip
