"""The do-no-harm gate: whether an adapted network may replace the source-only one. No target label is looked at.

Cheap to import.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tlcore.evaluation.label_free import batch_nuclear_norm, top_share
from tlcore.values import Adapted

__all__ = ["collapse", "collapsed", "verdict"]


def collapsed(share: float, norm: float, base_share: float, base_norm: float) -> bool:
    """One predicted class takes over: its share of the target images lies more than half-way between source-only's
    largest share and all of them, while the nuclear norm of the predictions (BNM) has fallen below source-only's.
    """
    return share > (1 + base_share) / 2 and norm < base_norm


def collapse(probabilities: NDArray[np.float64], source_only: NDArray[np.float64]) -> str:
    """`collapsed` in words, of target probabilities [n, K] each; empty where there is no collapse."""
    share, norm = top_share(probabilities), batch_nuclear_norm(probabilities)
    base_share, base_norm = top_share(source_only), batch_nuclear_norm(source_only)
    if not collapsed(share, norm, base_share, base_norm):
        return ""
    return (
        f"collapse: one class takes {_percent(share)} of the target images (source-only: {_percent(base_share)}),"
        f" and BNM fell from {base_norm:.3f} to {norm:.3f}"
    )


def verdict(source_only: Adapted, adapted: Adapted, *, floor: float) -> tuple[bool, str]:
    """Whether the adapted network may replace source-only, and why, in one sentence.

    Kept only if all hold: every validator scores it above source-only; its accuracy on source validation images is
    at most `floor` below source-only's (not asked of a network that is for the target alone); no class has taken
    over its predictions (`collapsed`). A score that is not finite never wins.
    """
    against: list[str] = []
    for name, score in adapted.validators.items():
        base = source_only.validators[name]
        if not score > base or not math.isfinite(score):
            against.append(f"{name} {score:.3f} is not above source-only's {base:.3f}")
    lost = source_only.source_validation_accuracy - adapted.source_validation_accuracy
    # a hair of tolerance: 0.90 - 0.05 is not 0.85 in binary
    if not adapted.target_only and not lost <= floor + 1e-9:
        against.append(
            f"its source validation accuracy {_percent(adapted.source_validation_accuracy)} is more than"
            f" {100 * floor:g} points below source-only's {_percent(source_only.source_validation_accuracy)}"
        )
    if collapsed(adapted.top_share, adapted.nuclear_norm, source_only.top_share, source_only.nuclear_norm):
        against.append(
            f"one class takes {_percent(adapted.top_share)} of its target predictions (source-only:"
            f" {_percent(source_only.top_share)})"
        )
    if against:
        return False, "Not kept: " + "; ".join(against) + "."
    agreed = ", ".join(
        f"{name} {score:.3f} above {source_only.validators[name]:.3f}"
        for name, score in adapted.validators.items()
    )
    kept_source = (
        "it is for the target alone"
        if adapted.target_only
        else f"source validation accuracy {_percent(adapted.source_validation_accuracy)} against"
        f" {_percent(source_only.source_validation_accuracy)}"
    )
    return (
        True,
        f"Kept: {agreed}; {kept_source}; its most frequent class takes {_percent(adapted.top_share)}.",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
