"""The console of results, and what a table on it looks like."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["console", "percent", "table"]


def console() -> Console:
    """stdout; wide enough for paths where it is no terminal."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=160)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without borders; columns in `right` are aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        justify = "right" if column in right else "left"
        made.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return made


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
