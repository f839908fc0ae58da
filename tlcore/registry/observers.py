"""Observers: plugins that look at runs and never touch them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping
from types import ModuleType

import pluggy

from tlcore.errors import UnknownName
from tlcore.registry.entry import Entry, one_line
from tlcore.registry.hooks import OBSERVERS, contained, import_plugin, register
from tlcore.values import Json

__all__ = ["Observers"]

_LOG = logging.getLogger(__name__)


class Observers:
    """The usable observers among `entries`; they are imported when the first one is needed."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = [entry for entry in entries if entry.kind == "observer" and entry.status == "ok"]
        self._watching: list[tuple[ModuleType, pluggy.PluginManager]] | None = None
        self._complained: set[tuple[str, str]] = set()

    def watching(self) -> list[tuple[ModuleType, pluggy.PluginManager]]:
        """Each observer with a manager of its own; one that fails to import is logged and left out."""
        if self._watching is None:
            self._watching = []
            for entry in self._entries:
                try:
                    module = import_plugin(entry.module, entry.digest)
                    self._watching.append((module, register(module)))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
                    _LOG.warning("observer %s is left out: %s", entry.module, one_line(error))
        return self._watching

    def notify(self, hook: str, **values: Json) -> None:
        """Call `hook` on one observer after the other, each with its own copy of the values.

        pluggy would stop at the first that raises; here it is logged, once per run, and harms neither
        the others nor the run.

        Raises:
            UnknownName: `hook` is not an observer hook.
        """
        if hook not in OBSERVERS:
            raise UnknownName("observer hook", hook, OBSERVERS)
        run = values.get("run")
        run_id = str(run.get("id", "")) if isinstance(run, Mapping) else ""
        for module, manager in self.watching():
            try:
                with contained():
                    getattr(manager.hook, hook)(**copy.deepcopy(values))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - nothing that an observer does may harm the run
                if (run_id, module.__name__) not in self._complained:
                    self._complained.add((run_id, module.__name__))
                    _LOG.warning("observer %s failed in %s: %s", module.__name__, hook, one_line(error))
