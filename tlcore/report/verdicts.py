"""What is said of an adapter, alike in the card, on the terminal and in a scheduler's artifacts."""

from __future__ import annotations

from tlcore.values import SOURCE_ONLY, Adaptation, Adapted

__all__ = [
    "NOT_MEASURABLE", "finished", "pictured_adapter", "shown_entries",
]  # fmt: skip

NOT_MEASURABLE = "not measurable: target has no labels"
"""Stands where an accuracy on the target would stand."""


def shown_entries(adaptation: Adaptation) -> tuple[Adapted, ...]:
    """Source-only under that name, where its record has the name of its tuner, and then every adapter.

    A network for the target alone has no estimate of its accuracy: they are calibrated on source images.
    """
    tried = (
        entry.model_copy(update={"estimates": None}) if entry.target_only else entry
        for entry in adaptation.tried
    )
    return adaptation.source_only.model_copy(update={"strategy": SOURCE_ONLY}), *tried


def finished(entry: Adapted) -> bool:
    """It was neither refused nor did it fail: it has scores."""
    return entry.failed is None and entry.refused is None


def pictured_adapter(adaptation: Adaptation) -> str:
    """Whose features stand under "after": those of the kept adapter, else of the one with the highest score."""
    entries = [entry for entry in adaptation.tried if finished(entry)]
    if adaptation.kept in {entry.strategy for entry in entries}:
        return adaptation.kept
    return max(entries, key=lambda entry: entry.validator_score).strategy if entries else ""
