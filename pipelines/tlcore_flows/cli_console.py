"""The console of results, and what a table on it looks like."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["console", "percent", "table", "value_of"]


if TYPE_CHECKING:
    from tlcore.report.measure import Measure


class _Stdout(Console):
    """A reader that went away is no failure: `tlcore.cli` sees to it, where rich would end with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """stdout; where it is no terminal as wide as $COLUMNS, else wide enough for paths."""
    made = _Stdout(highlight=False)
    told = made.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return made if told else _Stdout(highlight=False, width=160)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without borders; columns in `right` are aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        justify = "right" if column in right else "left"
        made.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return made


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def value_of(measure: Measure, value: float | None) -> str:
    """As the card writes it, with the plain spaces of `percent`."""
    return measure.text(value).replace("\u202f", " ")
