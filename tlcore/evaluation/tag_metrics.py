"""Measures of predicted tags on one split, with intervals over images.

The values are scikit-learn's. For the bootstrap, which needs a thousand of each, the same definitions are evaluated
from the number of times that each image was drawn, for a block of replicates at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, f1_score

from tlcore.errors import GateError, UserError
from tlcore.evaluation.bootstrap import blocks, counts_of
from tlcore.evaluation.comparison import compare_scores
from tlcore.evaluation.intervals import percentile, wilson
from tlcore.values import Comparison, Interval, TagMetrics

__all__ = [
    "MEASURE", "THRESHOLD", "average_precisions", "compare_tags", "image_f1", "measure_tags",
    "weighted_average_precision", "weighted_f1",
]  # fmt: skip

MEASURE = "F1 per image"
"""What `compare_tags` compares."""
THRESHOLD = 0.5
"""A tag is predicted where its probability is at least this."""

Float = NDArray[np.float64]


def measure_tags(
    probabilities: ArrayLike,
    targets: ArrayLike,
    tags: Sequence[str],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> TagMetrics:
    """All measures of `probabilities` [n, K] against `targets` [n, K] of 0 and 1.

    mean_average_precision: mean over the tags that an image has of the average precision
    sum_i (recall_i - recall_i-1) precision_i over the distinct probabilities, from the highest down; 0 where there is
    no such tag. micro_f1: of all pairs of image and tag together. macro_f1: mean F1 over the tags that occur among
    labels or predictions. Both are 0 where nothing is there to be found.

    Intervals are 95 % percentile intervals of a bootstrap over images; where no resample differs, Wilson's.

    Raises:
        UserError: shapes that do not fit, no image, targets other than 0 and 1.
        GateError: probabilities that are none.
    """
    p, y = _checked(probabilities, targets, tags)
    n = len(p)
    chosen = p >= THRESHOLD
    occurring = np.flatnonzero(y.any(axis=0) | chosen.any(axis=0))
    per_tag = {tags[k]: value for k, value in average_precisions(y, p).items()}
    mean = float(np.mean(list(per_tag.values()))) if per_tag else 0.0
    micro = float(f1_score(y, chosen, average="micro", zero_division=0))
    macro = (
        float(f1_score(y, chosen, average="macro", labels=occurring, zero_division=0))
        if occurring.size
        else 0.0
    )
    columns: list[list[Float]] = [[], [], []]
    for drawn in blocks(n, replicates, seed, width=8):
        counts = counts_of(drawn)
        precision = weighted_average_precision(y, p, counts)
        columns[0].append(np.nan_to_num(_mean_of_known(precision)))
        for column, values in zip(columns[1:], weighted_f1(y, chosen, counts), strict=True):
            column.append(values)
    draws = [np.concatenate(column) for column in columns]
    return TagMetrics(
        images=n,
        mean_average_precision=mean,
        mean_average_precision_ci=_interval(mean, draws[0], n),
        micro_f1=micro,
        micro_f1_ci=_interval(micro, draws[1], n),
        macro_f1=macro,
        macro_f1_ci=_interval(macro, draws[2], n),
        per_tag=per_tag,
        positives={name: int(count) for name, count in zip(tags, y.sum(axis=0), strict=True)},
        warnings=_absent(tags, y),
    )


def average_precisions(y: NDArray[Any], p: NDArray[Any]) -> dict[int, float]:
    """scikit-learn's average precision of each tag that an image has, by its column of y [n, K] and p [n, K]."""
    return {int(k): float(average_precision_score(y[:, k], p[:, k])) for k in np.flatnonzero(y.any(axis=0))}


def weighted_average_precision(y: NDArray[np.bool_], p: Float, counts: Float) -> Float:
    """Average precision [B, K] of y [n, K] by p [n, K] with image i counted counts[b, i] times; NaN without a hit."""
    found = np.full((len(counts), y.shape[1]), np.nan)
    for k in np.flatnonzero(y.any(axis=0)):
        order = np.argsort(-p[:, k], kind="stable")
        ends = np.flatnonzero(
            np.append(np.diff(p[order, k]) != 0, True)
        )  # equal probabilities count together
        weight = counts[:, order]
        seen = np.cumsum(weight, axis=1)[:, ends]
        hits = np.cumsum(weight * y[order, k], axis=1)[:, ends]
        precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
        gained = np.diff(hits, axis=1, prepend=0.0)
        total = hits[:, -1]
        some = total > 0
        found[some, k] = (gained[some] * precision[some]).sum(axis=1) / total[some]
    return found


def weighted_f1(y: NDArray[np.bool_], chosen: NDArray[np.bool_], counts: Float) -> tuple[Float, Float]:
    """Micro and macro F1, [B] each, with image i counted counts[b, i] times."""
    hits = counts @ (y & chosen)
    size = counts @ y.astype(np.float64) + counts @ chosen.astype(np.float64)  # labels + predictions
    each = np.divide(2 * hits, size, out=np.zeros_like(hits), where=size > 0)
    tags = (size > 0).sum(axis=1)
    total = size.sum(axis=1)
    micro = np.divide(2 * hits.sum(axis=1), total, out=np.zeros(len(total)), where=total > 0)
    return micro, np.divide(each.sum(axis=1), tags, out=np.zeros(len(tags)), where=tags > 0)


def image_f1(probabilities: ArrayLike, targets: ArrayLike) -> Float:
    """F1 of each image, [n]: 2 |predicted and true| / (|predicted| + |true|), 1 where both are empty."""
    chosen, y = np.asarray(probabilities) >= THRESHOLD, np.asarray(targets) > 0.5
    size = chosen.sum(axis=1) + y.sum(axis=1)
    both = 2.0 * (chosen & y).sum(axis=1)
    return np.asarray(np.divide(both, size, out=np.ones(len(size)), where=size > 0))


def compare_tags(
    result: ArrayLike,
    baseline: ArrayLike,
    targets: ArrayLike,
    name: str,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Comparison:
    """The baseline's mean F1 of an image, and by how much the result's is larger: `compare_scores` of `image_f1`.

    Args:
        result, baseline: probabilities [n, K].
        targets: [n, K] of 0 and 1.

    Raises:
        UserError: arrays of different shapes, or fewer than two images.
    """
    shapes = {np.asarray(one).shape for one in (result, baseline, targets)}
    if len(shapes) > 1 or not np.asarray(targets).size:
        raise UserError(f"cannot pair the answers of {name} with the result's", where="evaluation")
    ours, theirs = image_f1(result, targets), image_f1(baseline, targets)
    found = compare_scores(ours, theirs, name, replicates=replicates, seed=seed)
    return found.model_copy(update={"measure": MEASURE})


def _mean_of_known(values: Float) -> Float:
    """Mean over the columns that are no NaN, [B]; NaN where all are."""
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0))


def _interval(value: float, draws: Float, images: int) -> Interval:
    return wilson(value, images) if np.ptp(draws) == 0 else percentile(draws)


def _absent(tags: Sequence[str], y: NDArray[np.bool_]) -> tuple[str, ...]:
    absent = [tags[int(k)] for k in np.flatnonzero(~y.any(axis=0))]
    if not absent:
        return ()
    shown = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
    return (
        f"{len(absent)} of {len(tags)} tags have no test image ({shown}); "
        "mean average precision is the mean over the others",
    )


def _checked(
    probabilities: ArrayLike, targets: ArrayLike, tags: Sequence[str]
) -> tuple[Float, NDArray[np.bool_]]:
    p, y = np.asarray(probabilities, np.float64), np.asarray(targets)
    if p.ndim != 2 or p.shape != y.shape or p.shape[1] != len(tags):
        raise UserError(
            f"probabilities are {list(p.shape)} and targets {list(y.shape)}, not [images, {len(tags)} tags]",
            where="evaluation",
        )
    if not len(p):
        raise UserError(
            "the test split holds no labelled image",
            where="evaluation",
            hint="add labelled test images, or let the run make the splits",
        )
    if not np.isin(y, (0, 1)).all():
        raise UserError(
            "targets of tags are 0 or 1",
            where="evaluation",
            hint="leave unlabelled images out of the evaluation",
        )
    fine = (np.isfinite(p) & (p >= 0) & (p <= 1)).all(axis=1)
    if not fine.all():
        raise GateError(
            f"the network gives no probabilities for {int((~fine).sum())} of {len(p)} images",
            where="evaluation",
            hint="training diverged or the weights are damaged: try a lower learning rate, then run again",
        )
    return p, y.astype(bool)
