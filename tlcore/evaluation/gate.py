"""The do-no-harm gate: whether an adapted network may replace the source-only one. No target label is looked at.

Cheap to import.
"""

from __future__ import annotations

import math

from tlcore.values import Adapted

__all__ = ["AGREEMENT", "EXPECTED", "KEPT", "NOT_KEPT", "SHARE", "collapse", "collapsed", "verdict"]

AGREEMENT = 0.01
"""Least gain in the agreement of predictions and clusters, an adjusted mutual information in [0, 1]."""
SHARE = 0.05
"""By how much the share of the most frequent class may grow; of few classes by a third of an even share."""
EXPECTED = 0.15
"""How far the highest estimate of its accuracy may lie below the lowest of source-only's."""
KEPT, NOT_KEPT = "Kept: ", "Not kept: "
"""What is put before a verdict when all adapters have been judged."""


def collapsed(source_only: Adapted, adapted: Adapted) -> bool:
    """One predicted class takes over: its share of the target images lies more than half-way between source-only's
    largest share and all of them, while the nuclear norm of the predictions (BNM) has fallen below source-only's.
    """
    takes_over = adapted.top_share > (1 + source_only.top_share) / 2
    return takes_over and adapted.nuclear_norm < source_only.nuclear_norm


def collapse(source_only: Adapted, adapted: Adapted) -> str:
    """`collapsed` in words; empty where there is no collapse."""
    if not collapsed(source_only, adapted):
        return ""
    return (
        f"collapse: one class takes {_percent(adapted.top_share)} of the target images (source-only:"
        f" {_percent(source_only.top_share)}), and BNM fell from {source_only.nuclear_norm:.3f} to"
        f" {adapted.nuclear_norm:.3f}"
    )


def verdict(source_only: Adapted, adapted: Adapted, *, floor: float, classes: int) -> tuple[bool, str]:
    """Whether the adapted network may replace source-only, and why, in one sentence.

    Passed only if all hold:

    - every validator scores it above source-only; a score that is not finite never does;
    - its predictions agree with the clusters of its target features by `AGREEMENT` more than source-only's do with the
      clusters of theirs: confidence alone, which adapters train, does not bring that about;
    - the most frequent of K `classes` takes at most max(`SHARE`, 1 / (3 K)) more of the target images than with
      source-only, and there is no collapse (`collapsed`);
    - the highest estimate of its target accuracy (ATC, difference of confidences) is at most `EXPECTED` below the lowest of
      source-only's. No verdict of the benchmark hangs on it: it is there for networks whose classes have changed places,
      which no other condition sees;
    - its accuracy on source validation images is at most `floor` below source-only's (not asked of a network that is for
      the target alone).

    How often this is wrong: `benchmarks/adaptation_tables.py` (README, Measured).
    """
    against: list[str] = []
    for name, score in adapted.validators.items():
        base = source_only.validators[name]
        if not score > base or not math.isfinite(score):
            against.append(f"{name} {score:.3f} is not above source-only's {base:.3f}")
    agreement, before = adapted.cluster_agreement, source_only.cluster_agreement
    if agreement is None or before is None or not agreement >= before + AGREEMENT - 1e-9:
        against.append(
            f"its predictions agree with the clusters of its features by {_number(agreement)}, which is not {AGREEMENT:g} more"
            f" than source-only's {_number(before)}"
        )
    growth = max(SHARE, 1 / (3 * classes))
    if not adapted.top_share <= source_only.top_share + growth + 1e-9:
        against.append(
            f"one class takes {_percent(adapted.top_share)} of its target predictions, more than {100 * growth:.0f} points"
            f" above source-only's {_percent(source_only.top_share)}"
        )
    elif collapsed(source_only, adapted):
        against.append(collapse(source_only, adapted))
    before_it, after_it = source_only.estimates, adapted.estimates
    if before_it and after_it and not after_it.high >= before_it.low - EXPECTED:
        against.append(
            f"its expected target accuracy is {_percent(after_it.high)} at most, and source-only's {_percent(before_it.low)} at"
            " least"
        )
    lost = source_only.source_validation_accuracy - adapted.source_validation_accuracy
    # a hair of tolerance: 0.90 - 0.05 is not 0.85 in binary
    if not adapted.target_only and not lost <= floor + 1e-9:
        against.append(
            f"its source validation accuracy {_percent(adapted.source_validation_accuracy)} is more than"
            f" {100 * floor:g} points below source-only's {_percent(source_only.source_validation_accuracy)}"
        )
    if against:
        return False, "; ".join(against) + "."
    agreed = [
        f"{name} {score:.3f} above {source_only.validators[name]:.3f}"
        for name, score in adapted.validators.items()
    ]
    agreed.append(f"agreement with clusters {_number(agreement)} above {_number(before)}")
    kept_source = (
        "it is for the target alone"
        if adapted.target_only
        else f"source validation accuracy {_percent(adapted.source_validation_accuracy)} against"
        f" {_percent(source_only.source_validation_accuracy)}"
    )
    share = f"its most frequent class takes {_percent(adapted.top_share)}"
    return True, f"{', '.join(agreed)}; {kept_source}; {share}."


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
