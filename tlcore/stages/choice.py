"""Choices between trained networks: plain rules on validation numbers, no test number in sight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from tlcore.evaluation.gate import verdict
from tlcore.stages.values import AdaptedModel, Trained
from tlcore.values import SOURCE_ONLY, Adaptation, Adapted

__all__ = ["best_trained", "judge_adapters"]

_Tag = TypeVar("_Tag")


def best_trained(trained: Sequence[tuple[_Tag, Trained]]) -> tuple[_Tag, Trained]:
    """The highest validation accuracy; among equals the lower validation loss, then the earlier one."""
    return max(
        trained,
        key=lambda pair: (pair[1].validation, -pair[1].checkpoint.measures.get("validation_loss", 0.0)),
    )


def judge_adapters(
    adapted: Sequence[AdaptedModel], others: Sequence[Adapted], *, validators: Sequence[str], floor: float
) -> Adaptation:
    """The do-no-harm gate over all adapters that were tried.

    Of those that pass the rule against source-only (`tlcore.evaluation.gate.verdict`), the one with the highest score
    of all validators together is kept; where none passes, source-only is.

    Args:
        others: adapters that were refused or failed.
    """
    if not adapted:
        raise ValueError("no adapter finished")
    base = adapted[0].source_only
    kept, judged = None, []
    for model in adapted:
        passed, why = verdict(base, model.adapted, floor=floor)
        judged.append(model.adapted.model_copy(update={"verdict": why}))
        if passed and (kept is None or model.adapted.validator_score > kept.adapted.validator_score):
            kept = model
    reasons = [f"{entry.strategy}: {entry.verdict}" for entry in judged]
    reasons += [f"{entry.strategy}: failed, {entry.failed}" for entry in others if entry.failed]
    reasons += [f"{entry.strategy}: refused, {entry.refused}." for entry in others if entry.refused]
    return Adaptation(
        source_only=base, tried=(*judged, *others), kept=kept.adapted.strategy if kept else SOURCE_ONLY,
        validator=" + ".join(validators), reason=" ".join(reasons), target_images=adapted[0].target_images,
    )  # fmt: skip
