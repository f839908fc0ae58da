"""What a search may vary: a strategy's own options, inside their own bounds."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from tlcore.errors import UnknownName, UserError
from tlcore.protocols import Strategy
from tlcore.values import Json

__all__ = ["Choices", "Dimension", "Range", "check_names", "search_space"]

DECADES = 2
"""A range that spans so many powers of ten, and starts above zero, is searched on a logarithmic scale."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both inclusive. `whole`: integers alone."""

    name: str
    low: float
    high: float
    whole: bool = False

    @property
    def log(self) -> bool:
        # The number after zero, where zero is excluded, is no scale to start from.
        return self.low >= sys.float_info.min and self.high / self.low >= 10**DECADES

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}" + (", log" if self.log else "")


@dataclass(frozen=True)
class Choices:
    """One of a few values."""

    name: str
    values: tuple[Json, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


Dimension = Range | Choices


def search_space(
    strategy: Strategy,
    fields: Sequence[str] = (),
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[Dimension, ...]:
    """The options of `strategy` that a search varies, in the order in which they are named.

    A number is searched between its own bounds, or between those that are given; a switch and a name of a few over all
    their values.

    Args:
        strategy: with its configured options.
        fields: options by name; those that this strategy lacks are left out. Empty: those that the strategy names
            (`searched`), else every option that has bounds on both sides.
        bounds: inside the option's own; of options that are not searched here they are not looked at.

    Raises:
        UserError: an option that cannot be searched, bounds outside the option's own.
    """
    own = type(strategy).model_fields
    narrowed = bounds or {}
    named = fields or getattr(strategy, "searched", None)
    if named is not None:
        wanted = [name for name in dict.fromkeys(named) if name in own]
        return tuple(_dimension(strategy, name, narrowed.get(name)) for name in wanted)
    found = []
    for name in own:
        try:
            found.append(_dimension(strategy, name, narrowed.get(name)))
        except UserError:
            if name in narrowed:
                raise
    return tuple(found)


def check_names(
    strategies: Sequence[Strategy],
    fields: Sequence[str],
    bounds: Mapping[str, tuple[float, float]],
    possible: Sequence[Strategy] = (),
) -> None:
    """Each name is an option of at least one strategy; each option with bounds is searched in one.

    Args:
        possible: strategies that one of `strategies` may choose: their options are known, too.

    Raises:
        UnknownName: it is not.
        UserError: as `search_space`, of `strategies`; of those that are possible where none can search it.
    """
    known = {name for one in (*strategies, *possible) for name in type(one).model_fields}
    for name in fields:
        if name not in known:
            raise UnknownName("option of the strategies", name, known, where="finetune.search.fields")
    searched = {one.name for strategy in strategies for one in search_space(strategy, fields, bounds)}
    searched |= {name for one in possible for name in fields or getattr(one, "searched", None) or ()}
    for name in dict.fromkeys((*fields, *sorted(set(bounds) & searched))):
        if not any(name in type(one).model_fields for one in strategies):
            _searchable_in_one(possible, name, bounds)
    for name in bounds:
        if name not in searched:
            raise UnknownName(
                "searched option", name, searched, where="finetune.search.bounds",
                hint=f"search it, too: --search {name}" if name in known else "",
            )  # fmt: skip


def _searchable_in_one(
    possible: Sequence[Strategy], name: str, bounds: Mapping[str, tuple[float, float]]
) -> None:
    refused: list[UserError] = []
    for one in possible:
        if name in type(one).model_fields:
            try:
                _dimension(one, name, bounds.get(name))
                return
            except UserError as error:
                refused.append(error)
    if refused:
        raise refused[0]


def _dimension(strategy: Strategy, name: str, bounds: tuple[float, float] | None) -> Dimension:
    """The option `name` between its bounds.

    Raises:
        UserError: it cannot be searched.
    """
    field = type(strategy).model_fields[name]
    kind, optional = _kind(field.annotation)
    title = f'option "{name}" of {strategy.card.name}'
    if get_origin(kind) is Literal or kind is bool:
        if bounds is not None:
            raise UserError(f"{title} is no number and has no bounds", where="finetune.search.bounds")
        return Choices(name, (False, True) if kind is bool else get_args(kind))
    if kind not in (int, float):
        raise _unsearchable(f"{title} is neither a number, a switch nor one of a few names")
    if optional and getattr(strategy, name) is None:
        raise _unsearchable(f"{title} is none",
            hint=f"give it a value to start from: --tuner {strategy.card.name}:{name}=…",
        )  # fmt: skip
    low, high = _own_bounds(field, whole=kind is int)
    if bounds is not None:
        if not (low <= bounds[0] and bounds[1] <= high):
            raise UserError(
                f"{bounds[0]:g} to {bounds[1]:g} lies outside the own bounds of {title}, {low:g} to {high:g}",
                where=f"finetune.search.bounds.{name}",
            )
        low, high = bounds if kind is float else (math.ceil(bounds[0]), math.floor(bounds[1]))
    if math.isinf(low) or math.isinf(high):
        raise _unsearchable(f"{title} has no bound {'below' if math.isinf(low) else 'above'}",
            hint=f"give both: --search-bounds {name}=[LOW, HIGH]",
        )  # fmt: skip
    if low >= high:
        raise _unsearchable(f"{title} has one value between {low:g} and {high:g}")
    return Range(name, low, high, whole=kind is int)


def _unsearchable(what: str, hint: str = "") -> UserError:
    return UserError(f"{what}: it cannot be searched", where="finetune.search", hint=hint)


def _kind(annotation: Any) -> tuple[Any, bool]:
    """The type without None, and whether None was among its values."""
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return (parts[0] if len(parts) == 1 else None), len(parts) < len(get_args(annotation))
    return annotation, False


def _own_bounds(field: FieldInfo, *, whole: bool) -> tuple[float, float]:
    """Inclusive bounds; an open end moves to the next number of its kind."""
    low, high = -math.inf, math.inf
    for rule in field.metadata:
        for name in ("ge", "gt"):
            value = getattr(rule, name, None)
            if isinstance(value, int | float):
                low = max(
                    low, value if name == "ge" else value + 1 if whole else math.nextafter(value, math.inf)
                )
        for name in ("le", "lt"):
            value = getattr(rule, name, None)
            if isinstance(value, int | float):
                high = min(
                    high, value if name == "le" else value - 1 if whole else math.nextafter(value, -math.inf)
                )
    return low, high
