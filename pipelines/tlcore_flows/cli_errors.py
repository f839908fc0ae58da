"""How an error reaches a person, or a program that asked for --json."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from tlcore.errors import TlcoreError

if TYPE_CHECKING:
    from typer import TyperException

__all__ = ["Teller", "print_json"]


def print_json(document: Mapping[str, Any]) -> None:
    """The one JSON document on stdout. NaN and infinity, which JSON lacks, are a bug and raise ValueError."""
    import json

    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


class Teller:
    """Tells errors: text on stderr; with --json also `{"error": {what, where, choices, hint}}` on stdout."""

    def __init__(self, *, as_json: bool, debug: bool) -> None:
        self._as_json = as_json
        self._debug = debug

    def known(self, error: TlcoreError) -> int:
        self._tell(error, error.what, error.where, error.choices, error.hint)
        return error.exit_code

    def usage(self, error: TyperException) -> int:
        """A flag or command that does not exist, or a value of the wrong type."""
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "tlcore"
        self._tell(error, error.format_message().rstrip("."), "", (), f"{command} --help")
        return error.exit_code

    def interrupted(self, code: int) -> int:
        self._tell(None, "interrupted", "", (), "run the same command again to go on where it stopped")
        return code

    def bug(self, error: Exception) -> int:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = f"a bug in tlcore: {type(error).__name__}: {error}"
        place = f"{frame.filename.rpartition('site-packages/')[2]}, line {frame.lineno}"
        self._tell(error, what, place, (), "--debug shows the traceback; please report it")
        return 1

    def _tell(
        self, error: Exception | None, what: str, where: str, choices: tuple[str, ...], hint: str
    ) -> None:
        if self._debug and error is not None:
            traceback.print_exception(error, file=sys.stderr)
        if self._as_json:
            parts = {"what": what, "where": where, "choices": list(choices), "hint": hint}
            print_json({"error": parts})
        text = Text()
        text.append("error: ", style="bold red")
        text.append(f"{where}: {what}" if where else what)
        if choices:
            text.append("\n  known: ", style="dim")
            text.append(", ".join(choices))
        if hint:
            text.append("\n  next:  ", style="dim")
            text.append(hint)
        # A Text is printed as it is: brackets in a file name are no markup.
        Console(stderr=True, highlight=False).print(text, soft_wrap=True)
