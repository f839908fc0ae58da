"""Auto: the strategy by images per class and budget."""

from __future__ import annotations

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Tuner
from tlcore.training.auto import Auto


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [Auto]
