"""Choices between trained networks: plain rules on validation numbers, no test number in sight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from tlcore.evaluation.label_free import keep_adaptation
from tlcore.stages.values import AdaptedModel, Trained
from tlcore.values import Adaptation, Adapted

__all__ = ["best_trained", "judge_adapters"]

_Tag = TypeVar("_Tag")


def best_trained(trained: Sequence[tuple[_Tag, Trained]]) -> tuple[_Tag, Trained]:
    """The highest validation accuracy; among equals the lower validation loss, then the earlier one."""
    return max(
        trained,
        key=lambda pair: (pair[1].validation, -pair[1].checkpoint.measures.get("validation_loss", 0.0)),
    )


def judge_adapters(
    adapted: Sequence[AdaptedModel], failed: Sequence[Adapted], *, validator: str, floor: float
) -> Adaptation:
    """The do-no-harm gate over all adapters that were tried.

    Of those that pass the rule against source-only (`keep_adaptation`), the one with the highest label-free
    score is kept; where none passes, source-only is.
    """
    if not adapted:
        raise ValueError("no adapter finished")
    base = adapted[0].source_only
    kept, reasons = None, []
    for model in adapted:
        passed, why = keep_adaptation(
            base.validator_score, model.adapted.validator_score, base.source_validation_accuracy,
            model.adapted.source_validation_accuracy, floor=floor, predicted_classes=model.adapted.predicted_classes,
            source_only_predicted_classes=adapted[0].source_only_classes,
        )  # fmt: skip
        reasons.append(f"{model.adapted.strategy}: {why}")
        if passed and (kept is None or model.adapted.validator_score > kept.adapted.validator_score):
            kept = model
    reasons += [f"{entry.strategy}: failed, {entry.failed}" for entry in failed]
    return Adaptation(
        source_only=base, tried=(*(model.adapted for model in adapted), *failed),
        kept=kept.adapted.strategy if kept else "source-only", validator=validator, reason=" ".join(reasons),
        target_images=adapted[0].target_images,
    )  # fmt: skip
