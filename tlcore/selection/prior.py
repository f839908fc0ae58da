"""The static prior: an order of candidates that looks at no image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["static_prior"]


class _Sized(Protocol):
    @property
    def prior(self) -> float | None: ...
    @property
    def params(self) -> int | None: ...


def static_prior(
    entries: Sequence[_Sized], source: str = "", *, partly: bool = False
) -> tuple[str, list[int | None]]:
    """What the prior is, for people ("" for none), and each entry's place by it: 1 + the number of those with more.

    By published accuracy where every entry has it (with `partly`: where any has), else by parameters. The two are
    never mixed: an entry without the one that counts has no place.

    Args:
        source: where the published accuracies come from, for people.
    """
    values: list[float | None] = [entry.prior for entry in entries]
    name = f"ImageNet top-1 from {source}" if source else "ImageNet top-1"
    if all(value is None for value in values) or (None in values and not partly):
        values, name = [entry.params for entry in entries], "parameters"
    known = [value for value in values if value is not None]
    if not known:
        return "", [None] * len(entries)
    return name, [None if value is None else 1 + sum(other > value for other in known) for value in values]
