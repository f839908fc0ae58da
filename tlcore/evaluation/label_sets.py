"""The contract between the classes of source and target: what is known of them, and which adapters are sound then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlcore.errors import UserError
from tlcore.protocols import Card, LabelSets

__all__ = ["Contract", "contract", "unsound"]


@dataclass(frozen=True)
class Contract:
    """declared: somebody said so. missing: classes of the source that the target lacks; new: the reverse."""

    label_sets: LabelSets
    declared: bool
    missing: tuple[str, ...] = ()
    new: tuple[str, ...] = ()


def contract(label_sets: str, target_classes: Sequence[str] | None, classes: Sequence[str]) -> Contract:
    """What a person said of the target's classes; "auto" without a list is taken for closed.

    Args:
        label_sets: "auto", "closed", "partial", "open" or "open-partial".
        target_classes: that occur among the target images; None: nobody said.
        classes: of the source.

    Raises:
        UserError: a list that contradicts `label_sets`, or that shares no class with the source.
    """
    if target_classes is None:
        if label_sets == "auto":
            return Contract("closed", declared=False)
        return Contract(_checked(label_sets), declared=True)
    missing = tuple(sorted(set(classes) - set(target_classes)))
    new = tuple(sorted(set(target_classes) - set(classes)))
    if len(missing) == len(set(classes)):
        raise UserError(
            "the target shares no class with the source", where="data.target_classes", choices=tuple(classes)
        )
    found: LabelSets = (
        "open-partial" if missing and new else "partial" if missing else "open" if new else "closed"
    )
    if label_sets not in ("auto", found):
        raise UserError(
            f'by data.target_classes the label sets are "{found}", not "{label_sets}"',
            where="adapt.label_sets",
            hint='leave it at "auto"',
        )
    return Contract(found, declared=True, missing=missing, new=new)


def unsound(card: Card, label_sets: LabelSets) -> str:
    """Why an adapter must not be used on these label sets, in one sentence; empty where it is sound."""
    needed = {"closed": (), "partial": ("partial",), "open": ("open",), "open-partial": ("partial", "open")}
    lacking = [trait for trait in needed[label_sets] if trait not in card.traits]
    if not lacking:
        return ""
    harm = {
        "partial": "the target lacks classes of the source, and it would pull target images onto them",
        "open": "the target has classes that the source lacks, and it would pull their images onto known ones",
    }
    return f"not sound here: {'; '.join(harm[trait] for trait in lacking)}"


def _checked(label_sets: str) -> LabelSets:
    known: dict[str, LabelSets] = {
        "closed": "closed", "partial": "partial", "open": "open", "open-partial": "open-partial",
    }  # fmt: skip
    if label_sets not in known:
        raise UserError(f'no label sets named "{label_sets}"', choices=("auto", *known))
    return known[label_sets]
