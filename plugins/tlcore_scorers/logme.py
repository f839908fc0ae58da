"""LogME: log of maximum evidence, exact, from moments alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.evidence import LogEvidence, log_evidence
from tlcore.selection.requirements import check_moments, check_targets

if TYPE_CHECKING:
    from tlcore.features.moments import Moments
    from tlcore.features.regression import RegressionMoments

__all__ = ["LogME", "class_evidence", "target_evidence"]

_FOUND: WeakKeyDictionary[Moments | RegressionMoments, dict[bool, LogEvidence]] = WeakKeyDictionary()
"""By the statistics, while they live, and `centred`: `score` and `remarks` want the same costly evidence."""


def class_evidence(moments: Moments, *, centred: bool = True) -> LogEvidence:
    """Maximum log evidence per degree of freedom of the one-hot targets of all classes that occur.

    centred=True: features and targets are centred by their means over all images, and N = n - 1. This is
    the *restricted* evidence: the density of the n - 1 contrasts Q^T y (Q an orthonormal basis of the
    vectors that sum to zero) under N(0, I / beta + Q^T F F^T Q / alpha), maximised over alpha and beta. It
    is the evidence of a linear model with a free intercept, so neither an offset nor a constant feature
    changes it.

    centred=False: the evidence of the paper, features and targets as they are, N = n: the class's
    frequency must then be explained by weights with a prior mean of zero.

    Args:
        moments: n images, D features, K classes.

    Returns:
        the evidence of the classes that occur, in their order.

    Raises:
        UserError: fewer than 4 images, fewer than 2 classes, or features without variance.
    """
    check_moments(moments, "LogME")
    present = moments.present
    counts = moments.class_counts[present].astype(np.float64)
    if not centred:
        return log_evidence(moments.gram, moments.class_sums[present].T, counts, moments.n)
    squares = counts - counts**2 / moments.n
    return log_evidence(moments.centred_gram, moments.centred_class_sums[present].T, squares, moments.n - 1)


def target_evidence(moments: RegressionMoments) -> LogEvidence:
    """Maximum log evidence per degree of freedom of real-valued targets, each scaled to a variance of 1.

    Features and targets are centred and N = n - 1, as in `class_evidence`. The scaling makes targets in
    different units comparable: y and a y + b have the same evidence.

    Args:
        moments: n images, D features, T targets.

    Returns:
        the evidence of the targets, [T].

    Raises:
        UserError: fewer than 4 images, a constant target, or features without variance.
    """
    check_targets(moments, "LogME")
    rows = moments.n - 1
    scale = np.sqrt(moments.centred_target_squares / rows)
    squares = np.full(scale.size, float(rows))
    return log_evidence(moments.centred_gram, moments.centred_cross / scale, squares, rows)


class LogME(Scorer):
    """Mean over classes, or over real-valued targets, of the maximum log evidence of a Bayesian linear model.

    Per image, in nats. Where the evidence has real-valued targets (numbers, or 0 and 1 for each tag) they are scored,
    and centred in any case.
    """

    card: ClassVar[Card] = Card(
        name="logme",
        summary="log of maximum evidence of a Bayesian linear model on the frozen features",
        reference="You et al. 2021, LogME, section 4; noise precision profiled out, right for n < D",
        traits=frozenset({"rotation-invariant", "regression"}),
    )

    centred: bool = Field(
        True,
        description="centre features and classes (a free intercept); false: the paper's evidence as printed",
    )

    def score(self, evidence: Evidence) -> float:
        """Mean over the classes that occur of `class_evidence`, or over targets of `target_evidence`.

        O(D^3 + D^2 K) in time, whatever n is.
        """
        return float(self._found(evidence).per_row.mean())

    def remarks(self, evidence: Evidence) -> tuple[str, ...]:
        """Where the evidence is that of no features at all, or of features that leave no error."""
        found = self._found(evidence)
        kind = "classes" if evidence.regression is None else "targets"
        said = []
        if without := int(found.no_signal.sum()):
            said.append(
                f"no linear signal for {without} of {found.no_signal.size} {kind}: "
                "the evidence is largest without the features"
            )
        if whole := int(found.interpolates.sum()):
            said.append(
                f"the features fit {whole} of {found.interpolates.size} {kind} without error"
                + (
                    ", as features that are as many as the images may: held-out scores say more"
                    if found.rank >= found.rows
                    else ": the value there is a numerical bound, the same for all candidates that do so"
                )
            )
        return tuple(said)

    def _found(self, evidence: Evidence) -> LogEvidence:
        """The evidence of all targets, worked out once for the same statistics."""
        targets = evidence.regression
        known = _FOUND.setdefault(evidence.moments if targets is None else targets, {})
        centred = self.centred or targets is not None
        if centred not in known:
            known[centred] = (
                class_evidence(evidence.moments, centred=centred)
                if targets is None
                else target_evidence(targets)
            )
        return known[centred]


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [LogME]
