"""The result against baselines, on the same test images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcore.errors import UserError
from tlcore.evaluation.intervals import percentile
from tlcore.values import UNLABELLED, Comparison, Interval

__all__ = [
    "LINEAR_PROBE",
    "MAJORITY",
    "MEAN_ABSOLUTE_ERROR",
    "RIDGE",
    "SCRATCH",
    "SHARES",
    "compare",
    "majority",
    "negative_transfer",
    "compare_scores",
    "sentence",
    "transfer_sentence",
]

MAJORITY = "majority"
"""Always the most frequent training class."""
LINEAR_PROBE = "linear-probe"
"""A linear head on the frozen features of the best candidate."""
RIDGE = "ridge"
"""The same where labels are numbers or tags: a ridge regression on these features."""
SCRATCH = "scratch"
"""The same network from a random initialisation, by the strategy that the run names: what transfer has to beat."""

SHARES = ("accuracy", "F1 per image", "mean average precision")
"""Values of `Comparison.measure` that lie in [0, 1], whose differences are points; all others keep their unit."""
MEAN_ABSOLUTE_ERROR = "mean absolute error"
"""`Comparison.measure` of numbers: in the unit of the labels, and no share."""

_FEW = 10  # images that only one of the two gets right, below which resampling is too sure of itself
_Z = 1.959963984540054
_BLOCK = 2_000_000  # drawn images held at once


def compare(
    result_correct: ArrayLike,
    baseline_correct: ArrayLike,
    name: str,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Accuracy of the result minus the baseline's, with a 95 % interval from a paired bootstrap over images.

    Both arrays are bool [n]: was image i answered correctly. An image adds +1, 0 or -1 to the difference, so a
    resample of the images is one multinomial draw over these three outcomes: exact, at a cost that does not
    depend on n.

    With fewer than 10 images that only one of the two gets right, or none on which they agree, percentiles
    promise too much (4 wins of 100 and no loss would exclude 0, where McNemar's exact test gives p = 0.125).
    Then the interval is Agresti & Min's (2005, "Simple improved confidence intervals for comparing matched
    proportions"): Wald's, after adding 1/2 to each cell of the 2 x 2 table.

    `better` says that the whole interval lies above 0.

    Raises:
        UserError: arrays of different or zero length.
    """
    result = np.asarray(result_correct, dtype=bool)
    baseline = np.asarray(baseline_correct, dtype=bool)
    if result.ndim != 1 or result.shape != baseline.shape or not result.size:
        raise UserError(
            f"cannot pair {list(result.shape)} results with {list(baseline.shape)} answers of {name}",
            where="evaluation",
        )
    n = len(result)
    wins, losses = int((result & ~baseline).sum()), int((baseline & ~result).sum())
    if wins + losses < _FEW or max(wins, losses) == n:
        interval = _agresti_min(wins, losses, n)
    else:
        share = np.array([wins, losses, n - wins - losses]) / n
        drawn = np.random.default_rng(seed).multinomial(n, share, size=replicates)
        interval = percentile((drawn[:, 0] - drawn[:, 1]) / n)
    return Comparison(
        baseline=name,
        accuracy=float(baseline.mean()),
        difference=(wins - losses) / n,
        difference_ci=interval,
        better=interval.low > 0,
    )


def compare_scores(
    result_scores: ArrayLike,
    baseline_scores: ArrayLike,
    name: str,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Mean score of the result minus the baseline's, higher is better, paired over images; any score of an image.

    Both arrays are [n]: right or wrong (then this is `compare`), or float: a negated squared error, an F1 of tags. The
    interval is the 95 % percentile interval of the mean difference over images drawn anew; below 10 images, where
    percentiles promise too much, Student's t interval. `Comparison.accuracy` is the baseline's mean score.

    Raises:
        UserError: arrays of different length, scores that are not finite, a single image with a score that is no answer.
    """
    result, baseline = np.asarray(result_scores), np.asarray(baseline_scores)
    if result.dtype == bool and baseline.dtype == bool:
        return compare(result, baseline, name, replicates=replicates, seed=seed)
    if result.ndim != 1 or result.shape != baseline.shape or len(result) < 2:
        raise UserError(
            f"cannot pair {list(result.shape)} scores with {list(baseline.shape)} of {name}; it takes two images",
            where="evaluation",
        )
    gaps = result.astype(np.float64) - baseline.astype(np.float64)
    if not np.isfinite(gaps).all():
        raise UserError(f"scores of images are not finite, against {name}", where="evaluation")
    interval = _by_student(gaps) if len(gaps) < _FEW else percentile(_means(gaps, replicates, seed))
    return Comparison(
        baseline=name,
        accuracy=float(baseline.mean()),
        difference=float(gaps.mean()),
        difference_ci=interval,
        better=interval.low > 0,
    )


def majority(train_labels: ArrayLike, classes: Sequence[str]) -> int:
    """Encoded label of the most frequent class (the first of equals); rows without a label do not count.

    Raises:
        UserError: no labelled row, or a label outside 0 … K-1.
    """
    y = np.asarray(train_labels, dtype=np.int64)
    y = y[y != UNLABELLED]
    if not y.size or y.min() < 0 or y.max() >= len(classes):
        raise UserError(
            f"no majority class: {y.size} labelled training images for {len(classes)} classes",
            where="evaluation",
        )
    counts: NDArray[np.intp] = np.bincount(y, minlength=len(classes))
    return int(counts.argmax())


def transfer_sentence(comparisons: Iterable[Comparison], strategy: str = "") -> str | None:
    """What transfer is shown to bring, in one sentence: against the same network from scratch and the frozen probe.

    strategy: of the result; a probe is not held against itself, and what was trained from scratch owes nothing to a
    source model. None without either baseline.
    """
    by_name = {entry.baseline: entry for entry in comparisons}
    scratch, probe = by_name.get(SCRATCH), by_name.get(LINEAR_PROBE, by_name.get(RIDGE))
    name = strategy.partition("+")[0]
    if name == SCRATCH:
        return f"No source model was used: the result was trained from scratch{_against_probe(probe)}."
    if name == LINEAR_PROBE or (name == RIDGE and probe is not None and probe.measure != "accuracy"):
        probe = None
    if scratch is None:
        return None if probe is None else f"Against its frozen probe: {sentence(probe)}."
    if scratch.difference_ci.high < 0:
        return (
            f"Negative transfer: the same network trained from scratch is better by {_gap(scratch, flipped=True)}"
            f"{_probe(probe)}."
        )
    if not scratch.better:
        return (
            "No benefit of transfer shown: against the same network trained from scratch the difference is "
            f"{_gap(scratch)}, which includes zero{_probe(probe)}."
        )
    pays = f"Transfer pays: better than the same network from scratch by {_gap(scratch)}"
    if probe is not None and probe.better:
        return f"{pays} and than its frozen probe by {_gap(probe)}."
    return f"{pays}{_probe(probe)}."


def negative_transfer(comparisons: Iterable[Comparison], strategy: str = "") -> str | None:
    """What to tell a reader when the result is not shown to beat the same network from scratch; else None.

    strategy: of the result; of one that was itself trained from scratch there is nothing to tell.
    """
    entries = tuple(comparisons)
    if strategy.partition("+")[0] == SCRATCH:
        return None
    scratch = next((entry for entry in entries if entry.baseline == SCRATCH), None)
    return None if scratch is None or scratch.better else transfer_sentence((scratch,))


def _against_probe(probe: Comparison | None) -> str:
    """The second half of a sentence about a result that was trained from scratch."""
    if probe is None:
        return ""
    if probe.better:
        return f"; it is better than a probe on the frozen source model by {_gap(probe)}"
    if probe.difference_ci.high < 0:
        return f"; a probe on the frozen source model is better by {_gap(probe, flipped=True)}"
    return (
        f"; against a probe on the frozen source model the difference is {_gap(probe)}, which includes zero"
    )


def _probe(probe: Comparison | None) -> str:
    """The second half of a sentence, about the frozen probe of the same network."""
    if probe is None:
        return ""
    if probe.better:
        return f", though the result is better than its frozen probe by {_gap(probe)}"
    if probe.difference_ci.high < 0:
        return f"; its frozen probe is better than the result by {_gap(probe, flipped=True)}"
    return f"; a gain over its frozen probe is not shown: {_gap(probe)}"


def sentence(comparison: Comparison) -> str:
    """One comparison in plain words, with its numbers."""
    if comparison.better:
        return f"better by {_gap(comparison)}"
    if comparison.difference_ci.high < 0:
        return f"worse by {_gap(comparison, flipped=True)}"
    return f"not told apart: {_gap(comparison)}"


def _gap(entry: Comparison, *, flipped: bool = False) -> str:
    """The difference with its interval, from the baseline's side where flipped."""
    interval = entry.difference_ci
    gap, low, high = entry.difference, interval.low, interval.high
    if flipped:
        gap, low, high = -gap, -high, -low
    if entry.measure not in SHARES:
        text = f"{gap:.3g} of {entry.measure} (95 % interval {low:.3g} to {high:.3g})"
    else:
        unit = "points" if entry.measure == "accuracy" else f"points of {entry.measure}"
        text = f"{100 * gap:.1f} {unit} (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    return text.replace("-", "−")


def _means(gaps: NDArray[np.float64], replicates: int, seed: int) -> NDArray[np.float64]:
    """Means of `gaps` over images drawn with replacement, [replicates]; a bounded number of draws at a time."""
    rng, n = np.random.default_rng(seed), len(gaps)
    rows = max(1, _BLOCK // n)
    parts = [
        gaps[rng.integers(0, n, size=(min(rows, replicates - start), n))].mean(axis=1)
        for start in range(0, replicates, rows)
    ]
    return np.concatenate(parts)


def _by_student(gaps: NDArray[np.float64]) -> Interval:
    from scipy.stats import t

    half = float(t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
    return Interval(low=float(gaps.mean()) - half, high=float(gaps.mean()) + half)


def _agresti_min(wins: int, losses: int, n: int) -> Interval:
    """Wald's interval of (wins - losses) / n after adding 1/2 to each of the four cells."""
    b, c, total = wins + 0.5, losses + 0.5, n + 2
    centre = (b - c) / total
    half = _Z * np.sqrt(b + c - (b - c) ** 2 / total) / total
    gap = (wins - losses) / n
    # the centre is drawn towards 0; the interval must still hold what was observed
    return Interval(
        low=float(max(-1.0, min(gap, centre - half))), high=float(min(1.0, max(gap, centre + half)))
    )
