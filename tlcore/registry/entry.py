"""What is known of a strategy without importing it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tlcore.errors import TlcoreError
from tlcore.hookspecs import HOOK_API

__all__ = ["Entry", "Status", "one_line", "short"]

Status = Literal["ok", "broken", "blocked", "incompatible", "duplicate"]


@dataclass(frozen=True)
class Entry:
    """One line of `tlcore plugins`: a strategy, an observer, or a module that could not be read.

    Attributes:
        kind: a key of `tlcore.protocols.KINDS`, "observer", or "" where a broken module does not tell.
        name: the card's name; of a broken or blocked module the name that its source seems to give.
        module: the module that registers it. `qualname`: the class in it ("" while unknown).
        schema: JSON schema of its options.
        digest: sha256 of the module's source and of the files in its package that define no hook of their
            own. It is part of `Registry.identity`, so that an edited strategy is computed anew.
        error: why it cannot be used, one line; "" where `status` is "ok".
    """

    kind: str
    name: str
    summary: str = ""
    reference: str = ""
    licence: str = ""
    traits: tuple[str, ...] = ()
    api: int = HOOK_API
    module: str = ""
    qualname: str = ""
    distribution: str = ""
    version: str = ""
    schema: dict[str, Any] = field(default_factory=dict, hash=False)
    digest: str = ""
    status: Status = "ok"
    error: str = ""


def one_line(error: BaseException, file: str = "") -> str:
    """The error as one line of at most 300 characters, with the line of `file` that it came from."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a plugin's error may fail even at this
        text = "it cannot say why"
    if not isinstance(error, TlcoreError):
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    text = short(text, 300)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{text} ({Path(file).name}, line {lines[-1]})" if lines else text


def short(text: str, length: int = 80) -> str:
    """`text` on one line that can be written as UTF-8, cut to `length` characters."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return text if len(text) <= length else text[: length - 1] + "…"
