"""Choices between trained networks: plain rules on validation numbers, no test number in sight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from tlcore.evaluation.gate import KEPT, NOT_KEPT, verdict
from tlcore.stages.values import Trained
from tlcore.values import SOURCE_ONLY, Adaptation, Adapted

__all__ = ["best_trained", "judge_adapters", "kept_start"]

PROBE = "probe"
"""Name of the head fit that tuners of the network begin with (`tlcore.training.network_tuner.probe`)."""
_Tag = TypeVar("_Tag")


def best_trained(trained: Sequence[tuple[_Tag, Trained]]) -> tuple[_Tag, Trained]:
    """The highest validation accuracy; among equals the lower validation loss, then the earlier one."""
    return max(
        trained,
        key=lambda pair: (pair[1].validation, -pair[1].checkpoint.measures.get("validation_loss", 0.0)),
    )


def kept_start(trained: Trained) -> str:
    """What a training ended with where no epoch was better than its start: "the linear probe" of the same features
    ("the ridge" of numbers and tags), or "its start" where no probe came before; else empty.

    Lines of a history that tell a training loss are epochs of gradient steps; what comes before them fitted the head.
    """
    checkpoint = trained.checkpoint
    if trained.search is not None and trained.search.soup is not None and trained.search.soup.kept:
        return ""
    epochs = [line for line in checkpoint.history if "total" in line.losses]
    probes = [line for line in checkpoint.history if line.phase == PROBE]
    if (
        checkpoint.chosen_epoch is None
    ):  # a head in closed form, or cross-validation ended the training at its start
        kept = not epochs and (bool(probes) or not checkpoint.history)
    elif checkpoint.chosen_epoch == 0:  # of the last phase: those before it may have got further
        several = len({line.phase for line in epochs}) > 1
        kept = not several or bool(probes) and _same(probes[-1].measures, checkpoint.measures)
    else:
        kept = False
    if not kept:
        return ""
    probe = "the linear probe" if checkpoint.task == "classification" else "the ridge"
    return probe if probes else "its start"


def _same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    common = set(one) & set(other)
    return bool(common) and all(math.isclose(one[name], other[name], rel_tol=1e-6) for name in common)


def judge_adapters(
    source_only: Adapted, adapted: Sequence[Adapted], others: Sequence[Adapted], *, validators: Sequence[str],
    floor: float, classes: int, target_images: int,
) -> Adaptation:  # fmt: skip
    """The do-no-harm gate over all adapters that were tried.

    Of those that pass the rule against source-only (`tlcore.evaluation.gate.verdict`), the one with the highest score
    of all validators together is kept; where none passes, source-only is.

    Args:
        adapted: those that finished, their names unique.
        others: adapters that were refused or failed.
    """
    verdicts = [verdict(source_only, entry, floor=floor, classes=classes) for entry in adapted]
    passed = [entry for entry, (good, _) in zip(adapted, verdicts, strict=True) if good]
    # among equals the first
    kept = max(passed, key=lambda entry: entry.validator_score).strategy if passed else SOURCE_ONLY
    judged = [
        entry.model_copy(update={"verdict": _said(entry.strategy, good, kept) + why})
        for entry, (good, why) in zip(adapted, verdicts, strict=True)
    ]
    reasons = [f"{entry.strategy}: {entry.verdict}" for entry in judged]
    reasons += [f"{entry.strategy}: failed, {entry.failed}" for entry in others if entry.failed]
    reasons += [f"{entry.strategy}: refused, {entry.refused}." for entry in others if entry.refused]
    return Adaptation(
        source_only=source_only, tried=(*judged, *others), kept=kept, validator=" + ".join(validators),
        reason=" ".join(reasons), target_images=target_images,
    )  # fmt: skip


def _said(strategy: str, passed: bool, kept: str) -> str:
    """What is said before the reason: of several that pass, one is kept."""
    if not passed:
        return NOT_KEPT
    return KEPT if strategy == kept else f"Passed, but {kept} has the higher score: "
