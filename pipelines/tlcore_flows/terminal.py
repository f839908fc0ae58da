"""Progress on stderr: one line per finished stage, and a live line for the one that runs if it is a terminal."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape

__all__ = ["Terminal"]

PATIENCE_SECONDS = 3.0
"""How long a step of unknown length may be silent where there is no live line."""


class Terminal:
    """Shows stages on a console. stdout is never touched: it belongs to results."""

    def __init__(self, console: Console, live: Any = None) -> None:
        self.console = console
        self._live = live
        self._bar: Any = None
        self._label = ""  # of the stage that the bar belongs to
        self._timer: threading.Timer | None = None

    @classmethod
    @contextlib.contextmanager
    def open(cls, *, verbose: bool = False) -> Iterator[Terminal]:
        console = Console(stderr=True, highlight=False)
        if not console.is_terminal or verbose:  # log lines and a live line would overwrite each other
            yield cls(console)
            return
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}", style="dim"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as live:
            yield cls(console, live)

    def say(self, text: str) -> None:
        """One line, as it is."""
        self.console.print(escape(text), soft_wrap=True)

    def started(self, label: str) -> None:
        self._label = label
        if self._live is not None:
            self._bar = self._live.add_task(escape(label), total=None, text="")

    def advanced(self, label: str, done: int, total: int, text: str) -> None:
        """`total` 0: the length is unknown; where nothing moves for a while, the text tells why."""
        if label != self._label:
            return  # one of several that go on side by side: the line tells of the one that is waited for
        if self._live is not None and self._bar is not None:
            self._live.update(self._bar, completed=done, total=total or None, text=escape(text))
            return
        self._quiet()
        if total == 0 and text:
            self._timer = threading.Timer(PATIENCE_SECONDS, self.say, args=(f"  {label}: {text}",))
            self._timer.daemon = True
            self._timer.start()

    def finished(self, label: str, seconds: float, cached: bool) -> None:
        self.stopped(label)
        took = "[dim]cached[/dim]" if cached else f"{seconds:.1f} s"
        self.console.print(f"  {escape(label):<40} {took:>8}", soft_wrap=True)

    def stopped(self, label: str) -> None:
        """The stage ended without a result; what follows says why."""
        self._quiet()
        if self._live is not None and self._bar is not None:
            self._live.remove_task(self._bar)
            self._bar = None

    def _quiet(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
