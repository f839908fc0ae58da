"""Probabilities that mean what they say: one temperature for all logits, and honest numbers of what it does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import UserError
from tlcore.values import Calibration, Reliability, ReliabilityBin

__all__ = [
    "BINS", "COLDEST", "HOTTEST", "MINIMUM_IMAGES", "at_temperature", "best_temperature", "bin_of", "calibration_error",
    "fit_temperature", "log_loss", "logits_of", "reliability", "scaled",
]  # fmt: skip

BINS = 15
"""Equal-width confidence bins of the calibration error (Guo et al. 2017 use the same number)."""
COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of a temperature."""
MINIMUM_IMAGES = 30
"""Below so many images no temperature is kept: half of them would have to judge the other half."""

_TINY = float(np.finfo(np.float32).tiny)
_WHERE = "calibration"


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64], *, seed: int = 0) -> Calibration:
    """The temperature of images that were not trained on, and its effect on images it was not fitted on.

    logits: float [n, K], or log probabilities, which are logits up to a constant per image. labels: int [n].

    The halves of the cross-fit are drawn by `seed`, with classes, and right and wrong answers, spread evenly. The
    temperature is that of all images; it is kept where the cross-fitted loss falls and there are at least 30 images.

    Raises:
        UserError: shapes that do not fit, labels outside 0 … K-1, logits that are NaN or +inf.
    """
    values, truth = _checked(logits, labels)
    n = len(truth)
    right = values.argmax(axis=1) == truth if n else np.zeros(0, dtype=bool)
    before = _softmax(values)
    nll, error = _nll(values, truth), _error(before, right)

    def left(why: str, nll_after: float = nll, error_after: float = error) -> Calibration:
        return Calibration(
            images=n, nll_before=nll, nll_after=nll_after, error_before=error, error_after=error_after, kept=False, why=why
        )  # fmt: skip

    if n < MINIMUM_IMAGES:
        return left(f"{n} images are too few to fit and to judge a temperature; it takes {MINIMUM_IMAGES}")
    if right.all() or not right.any():
        return left(
            f"{'every' if right.all() else 'no'} image is answered rightly, which tells no temperature"
        )
    crossed = np.empty_like(values)
    half = _halves(truth, right, seed)
    for fold in (False, True):
        crossed[half == fold] = values[half == fold] / best_temperature(
            values[half != fold], truth[half != fold]
        )
    nll_after, error_after = _nll(crossed, truth), _error(_softmax(crossed), right)
    if not nll_after < nll:
        return left("fitted on one half it does not lower the loss on the other", nll_after, error_after)
    return Calibration(
        temperature=best_temperature(values, truth), images=n, nll_before=nll, nll_after=nll_after, error_before=error,
        error_after=error_after, kept=True, why="fitted on one half it lowers the loss on the other",
    )  # fmt: skip


def best_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """T in [0.05, 20] with the least mean of -log softmax(z / T)[y] (Guo et al. 2017, section 4.2).

    logits z: float [n, K], finite. The loss is convex in 1 / T, so that its minimum over log T is the only one. Where
    every image is right, or none, the minimum lies at the edge and tells nothing: then 1.
    """
    from scipy.optimize import minimize_scalar

    right = logits.argmax(axis=1) == labels
    if right.all() or not right.any():
        return 1.0
    shifted = logits - logits.max(axis=1, keepdims=True)
    own = shifted[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float((np.log(np.exp(inverse * shifted).sum(axis=1)) - inverse * own).mean())

    found = minimize_scalar(
        loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def logits_of(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """log p [n, K]: the logits up to a constant per image. What float32 has rounded to 0 becomes its least number."""
    return np.asarray(np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _TINY)))


def at_temperature(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """softmax(log p / T), float64 [n, K]."""
    return _softmax(logits_of(probabilities) / temperature)


def scaled(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """`at_temperature` in float32; at T = 1 the very same array."""
    return (
        probabilities if temperature == 1 else at_temperature(probabilities, temperature).astype(np.float32)
    )


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(logits) else logits
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def log_loss(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Mean of -log p[y], nats; a probability below float32's least number counts as that."""
    likely = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(likely, _TINY)).mean())


def reliability(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> Reliability:
    """Loss, calibration error, and per bin of top confidence the mean confidence and the accuracy.

    probabilities: [n, K], n > 0; labels: int [n].
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    hit = probabilities.argmax(axis=1) == labels
    number = bin_of(confidence)
    bins = tuple(
        ReliabilityBin(
            confidence=float(confidence[inside].mean()), accuracy=float(hit[inside].mean()), images=int(inside.sum())
        )
        for inside in (number == b for b in np.unique(number))
    )  # fmt: skip
    return Reliability(
        images=len(labels), log_loss=log_loss(probabilities, labels), calibration_error=calibration_error(confidence, hit),
        bins=bins,
    )  # fmt: skip


def calibration_error(confidence: NDArray[np.float64], hit: NDArray[np.bool_]) -> float:
    """Expected calibration error, sum_b n_b/n |accuracy_b - confidence_b| (Guo et al. 2017, eq. 3)."""
    excess = np.bincount(bin_of(confidence), weights=hit - confidence, minlength=BINS)
    return float(np.abs(excess).sum() / len(confidence))


def bin_of(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin b holds (b/15, (b+1)/15], as in Guo et al. 2017."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _halves(labels: NDArray[np.int64], right: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Which images are in the second half: every other one after sorting by outcome and class, drawn within these."""
    order = np.lexsort((np.random.default_rng(seed).permutation(len(labels)), labels, right))
    half = np.empty(len(labels), dtype=bool)
    half[order] = np.arange(len(labels)) % 2 == 1
    return half


def _nll(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    if not len(labels):
        return 0.0
    shifted = logits - logits.max(axis=1, keepdims=True)
    own = shifted[np.arange(len(labels)), labels]
    return float((np.log(np.exp(shifted).sum(axis=1)) - own).mean())


def _error(probabilities: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    return calibration_error(probabilities.max(axis=1), right) if len(right) else 0.0


def _checked(
    logits: NDArray[np.floating], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or not values.shape[1] or truth.shape != values.shape[:1]:
        raise UserError(f"logits are {list(values.shape)} for {list(truth.shape)} labels", where=_WHERE)
    if len(truth) and (truth.min() < 0 or truth.max() >= values.shape[1]):
        raise UserError(f"labels are outside 0 … {values.shape[1] - 1}", where=_WHERE)
    best = values.max(axis=1, keepdims=True) if len(values) else values[:, :1]
    if np.isnan(values).any() or not np.isfinite(best).all():
        raise UserError("logits are not finite", where=_WHERE)
    # log 0 of a probability: as far below the best as float32 can tell
    return np.where(np.isneginf(values), best + np.log(_TINY), values), truth.astype(np.int64)
