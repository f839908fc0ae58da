"""Errors, named by what the caller can do about them.

    TlcoreError
    ├── UserError        the caller can mend it: data, configuration, a name, a path      (exit code 2)
    │   └── UnknownName  a name nobody registered; carries the known names and the nearest
    ├── RetryableError   the same call may succeed later: network, lock, disk pressure    (exit code 1)
    ├── PluginError      a strategy broke its contract; names the distribution            (exit code 1)
    └── GateError        the work ran, the proof failed: nothing is promoted              (exit code 1)

Every error says what happened, where, which choices are known and which command comes next. The
parts stay apart in fields, and the error survives pickling, so it can cross a process boundary.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = ["GateError", "PluginError", "RetryableError", "TlcoreError", "UnknownName", "UserError"]


class TlcoreError(Exception):
    """Base of all errors that tlcore raises on purpose.

    Args:
        what: one sentence: what is wrong.
        where: file, table, option or stage that it is about; empty when `what` says it.
        choices: known valid values, shown when not empty.
        hint: what to do next; a command where there is one.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", choices: Iterable[str] = (), hint: str = "") -> None:
        self.what = what
        self.where = where
        self.choices = tuple(choices)
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.choices:
            text += f"\n  known: {', '.join(self.choices)}"
        if self.hint:
            text += f"\n  next: {self.hint}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(kind: type[TlcoreError], fields: dict[str, Any]) -> TlcoreError:
    error = kind.__new__(kind)
    error.__dict__.update(fields)
    error.args = (str(error),)
    return error


class UserError(TlcoreError):
    """The caller's input is wrong and the caller can mend it."""

    exit_code = 2


class UnknownName(UserError):
    """A name that nobody registered.

    Args:
        kind: what was looked for, as a person says it ("scorer", "column").
        name: the name that was given.
        known: the names that exist.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], *, where: str = "", hint: str = ""
    ) -> None:
        names = sorted(set(known))
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        self.kind = kind
        self.name = name
        self.nearest = near[0] if near else None
        what = f'no {kind} named "{name}"' + (f'; did you mean "{near[0]}"?' if near else "")
        super().__init__(what, where=where, choices=names, hint=hint)


class RetryableError(TlcoreError):
    """The same call may succeed later."""


class PluginError(TlcoreError):
    """A strategy broke its contract.

    Args:
        distribution: the installed package that ships the strategy.
    """

    def __init__(self, what: str, *, distribution: str = "", **parts: Any) -> None:
        self.distribution = distribution
        super().__init__(what, **parts)


class GateError(TlcoreError):
    """The work was done and its proof failed; nothing was promoted."""
