"""What a strategy needs of a source model: asked when the candidates are known, before anything is worked out."""

from __future__ import annotations

from collections.abc import Sequence

from tlcore.config import RunConfig, StrategyChoice
from tlcore.errors import UserError
from tlcore.registry import Registry
from tlcore.values import Candidate

__all__ = [
    "TEACHER", "TEXT", "lacks", "named_tuners", "needs_teacher", "refuse_unable", "teaching", "untrainable",
]  # fmt: skip

TEXT, SOURCE_HEAD, TEACHER = "text", "source-head", "teacher"
"""Traits of tuners (`tlcore.protocols.Card`)."""

_HINTS = {
    TEXT: "name an image-text model (--models open-clip:FOLDER), or take a tuner that reads no text (--tuner linear-probe)",
    SOURCE_HEAD: "name a model whose weights carry a head, or take another strategy (--tuner lp-ft)",
}


def needs_teacher(registry: Registry, choice: StrategyChoice) -> bool:
    """Whether this tuner learns from a better network of the same labels."""
    return TEACHER in registry.load("tuner", choice.name).card.traits


def teaching(registry: Registry, config: RunConfig) -> bool:
    """Whether one of the strategies that are tried does."""
    return any(needs_teacher(registry, choice) for choice in config.finetune.strategies)


def named_tuners(config: RunConfig) -> list[tuple[str, StrategyChoice]]:
    """(where it stands, choice) of every tuner that this run trains with."""
    named = [("finetune.try", choice) for choice in config.finetune.strategies]
    if config.selection.verify:
        named.append(("selection.verify_with", config.selection.verify_with))
    return named


def lacks(registry: Registry, choice: StrategyChoice, candidate: Candidate) -> str | None:
    """What the tuner needs and this candidate has not, in words; None where it can be trained so."""
    missing = _missing(registry, choice, candidate)
    if missing == TEXT:
        return "it has no text tower"
    return "its weights carry no head of pretraining" if missing else None


def refuse_unable(config: RunConfig, registry: Registry, candidates: Sequence[Candidate]) -> None:
    """Refuse a tuner that no candidate has what it needs for.

    Raises:
        UserError: with what all of them lack.
    """
    for where, choice in named_tuners(config):
        missing = [_missing(registry, choice, candidate) for candidate in candidates]
        if missing and all(missing):
            need = (
                "a text tower"
                if TEXT in missing
                else "the layer that its weights were pretrained to classify with"
            )
            raise UserError(
                f"{choice.name} needs {need}, and no model that is named has one",
                where=where,
                hint=_HINTS[str(missing[0])],
            )


def untrainable(config: RunConfig, registry: Registry, candidate: Candidate) -> str | None:
    """Why none of the strategies that are tried can train this candidate; None where one can."""
    reasons = {choice.name: lacks(registry, choice, candidate) for choice in config.finetune.strategies}
    if not all(reasons.values()):
        return None
    return "; ".join(f"{name} cannot train it: {reason}" for name, reason in reasons.items())


def _missing(registry: Registry, choice: StrategyChoice, candidate: Candidate) -> str | None:
    traits = registry.load("tuner", choice.name).card.traits
    if TEXT in traits and TEXT not in registry.load("model-source", candidate.source["name"]).card.traits:
        return TEXT
    return SOURCE_HEAD if SOURCE_HEAD in traits and not candidate.classes else None
