"""How accurate a network is likely to be on the target, told from its confidence; no target label is looked at.

Cheap to import: strategies and reports use it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import UserError
from tlcore.evaluation.calibration import at_temperature, best_temperature, logits_of
from tlcore.protocols import ValidatorOutputs
from tlcore.values import AccuracyEstimates

__all__ = [
    "CANNOT_SEE", "AccuracyEstimates", "confidence", "difference_of_confidences", "estimate_accuracy", "negated_entropy",
    "thresholded_confidence",
]  # fmt: skip

CANNOT_SEE = (
    "These estimates trust that confidence means the same in both domains. They cannot see that classes are confused "
    "with confidence, that a class looks different on the target from what it was on the source, or that the target "
    "has classes which the network does not know; all three can then be wrong together."
)
"""What a person must know who reads the estimates."""

_WHERE = "accuracy estimates"


def estimate_accuracy(outputs: ValidatorOutputs) -> AccuracyEstimates:
    """All three estimates, from probabilities calibrated on the source's validation images.

    Raises:
        UserError: no labelled source validation image, no target image, or shapes that do not fit.
    """
    source, labels, target = _checked(outputs)
    temperature = best_temperature(logits_of(source), labels)
    source, target = at_temperature(source, temperature), at_temperature(target, temperature)
    right = source.argmax(axis=1) == labels
    by_confidence = thresholded_confidence(confidence(source), right, confidence(target))
    by_entropy = thresholded_confidence(negated_entropy(source), right, negated_entropy(target))
    by_difference = difference_of_confidences(confidence(source), right, confidence(target))
    three = by_confidence, by_entropy, by_difference
    return AccuracyEstimates(
        atc_confidence=by_confidence,
        atc_entropy=by_entropy,
        difference_of_confidences=by_difference,
        low=min(three),
        high=max(three),
        temperature=temperature,
    )


def confidence(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """max_k p_k, [n]: higher is surer."""
    return np.asarray(probabilities.max(axis=1), dtype=np.float64)


def negated_entropy(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """sum_k p_k log p_k, [n], in nats: higher is surer."""
    p = np.asarray(probabilities, dtype=np.float64)
    return np.asarray((p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1))


def thresholded_confidence(
    source: NDArray[np.float64], right: NDArray[np.bool_], target: NDArray[np.float64]
) -> float:
    """Average thresholded confidence: the share of target scores at or above t, where t leaves as large a share of the
    source scores below it as the source has errors (Garg et al. 2022, eq. 1 and 2).

    source: scores [n], whether each is right: bool [n], target: scores [m]. t is the largest such threshold. Images
    that tie with it count with the share that makes the equation hold exactly: the estimate for the source itself is
    its accuracy.
    """
    errors = int((~right).sum())
    threshold = np.sort(source)[min(errors, len(source) - 1)]
    ties = source == threshold
    wrong_ties = (errors - int((source < threshold).sum())) / int(ties.sum())
    share = (target > threshold).mean() + (target == threshold).mean() * (1 - wrong_ties)
    return float(min(1.0, max(0.0, share)))


def difference_of_confidences(
    source: NDArray[np.float64], right: NDArray[np.bool_], target: NDArray[np.float64]
) -> float:
    """Source accuracy minus the fall in mean confidence, accuracy - (mean source - mean target), cut to [0, 1]
    (Guillory et al. 2021, difference of confidences).

    source, target: confidences [n], [m]; right: bool [n].
    """
    return float(min(1.0, max(0.0, right.mean() - (source.mean() - target.mean()))))


def _checked(
    outputs: ValidatorOutputs,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    source, labels, target = outputs.source_probabilities, outputs.source_labels, outputs.target_probabilities
    if (
        source.ndim != 2
        or target.ndim != 2
        or source.shape[1:] != target.shape[1:]
        or len(source) != len(labels)
    ):
        raise UserError(
            f"probabilities of source and target are {list(source.shape)} and {list(target.shape)} for {len(labels)} labels",
            where=_WHERE,
        )
    if not len(source) or not len(target):
        missing = "labelled source validation image" if not len(source) else "target image"
        raise UserError(f"there is no {missing}", where=_WHERE)
    if labels.min() < 0 or labels.max() >= source.shape[1]:
        raise UserError(f"labels are outside 0 … {source.shape[1] - 1}", where=_WHERE)
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise UserError("probabilities are not finite", where=_WHERE)
    return source, labels, target
