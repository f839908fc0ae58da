"""Find, load and build strategies by kind and name; identity for cache keys; observers."""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from tlcore.errors import PluginError, TlcoreError, UnknownName, UserError
from tlcore.protocols import KINDS, Strategy
from tlcore.registry import index, locate
from tlcore.registry.contract import read
from tlcore.registry.entry import Entry, one_line
from tlcore.registry.observers import Observers
from tlcore.registry.options import explain
from tlcore.values import Json

__all__ = ["BLOCK", "Registry"]

BLOCK = "TLCORE_BLOCK_PLUGINS"
"""Environment variable: distributions to keep out, separated by commas."""

LIST = "List them with: tlcore plugins"
_LOG = logging.getLogger(__name__)


class Registry:
    """The strategies that are installed, good and faulty. Made by `discover`.

    `entries` are sorted by kind, name and distribution.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        *,
        cache_folder: Path | None = None,
        blocked: frozenset[str] = frozenset(),
    ) -> None:
        self.entries = _resolve(entries)
        self._cache_folder = cache_folder
        self._blocked = blocked
        self._classes: dict[tuple[str, str], type[Strategy]] = {}
        self._observers = Observers(self.entries)

    @classmethod
    def discover(cls, *, cache_folder: Path | None = None, block: Iterable[str] | None = None) -> Registry:
        """Everything under the entry-point group "tlcore"; a faulty plugin is listed and harms nothing else.

        Imports only modules that the index in `cache_folder` does not know as they are now.

        Args:
            cache_folder: where the index is kept; None: nowhere.
            block: distributions to keep out; None: those that TLCORE_BLOCK_PLUGINS names.
        """
        named = os.environ.get(BLOCK, "").split(",") if block is None else block
        blocked = frozenset(locate.canonical(name.strip()) for name in named if name.strip())
        found = index.entries(cache_folder, blocked)
        for name in sorted(blocked - {locate.canonical(entry.distribution) for entry in found}):
            _LOG.warning('%s names "%s", which has no installed plugin', BLOCK, name)
        return cls(found, cache_folder=cache_folder, blocked=blocked)

    def names(self, kind: str) -> list[str]:
        """Sorted names of the usable strategies of a kind."""
        return sorted(entry.name for entry in self.entries if entry.kind == kind and entry.status == "ok")

    def find(self, kind: str, name: str, where: str = "") -> Entry:
        """The usable entry of that kind and name.

        Raises:
            UnknownName: nobody registers it.
            UserError: its distribution is kept out.
            PluginError: it is broken, offered twice, or written for another hook API.
        """
        if kind not in KINDS:
            raise UnknownName("kind of strategy", kind, KINDS, where=where)
        found = self._named(kind, name)
        broken = [entry for entry in found if entry.status == "broken"]
        if broken and len(broken) == len(found):
            renewed = index.entries(self._cache_folder, self._blocked, again=broken[0].distribution)
            self.entries = _resolve(renewed)
            found = self._named(kind, name)
        for entry in found:
            if entry.status == "ok":
                return entry
        if not found:
            faulty = sum(entry.status != "ok" for entry in self.entries)
            hint = LIST + (f" ({faulty} installed there cannot be used, and why)" if faulty else "")
            raise UnknownName(kind, name, self.names(kind), where=where, hint=hint)
        raise _refusal(found[0], kind, where)

    def load(self, kind: str, name: str, where: str = "") -> type[Strategy]:
        """The strategy's class; the first call imports its module.

        Raises: as `find`; PluginError where the module no longer gives what was listed.
        """
        key = kind, name
        if key not in self._classes:
            entry = self.find(kind, name, where)
            text = f'{kind} "{name}" of {entry.distribution}'
            if locate.current_digest(entry.module) != entry.digest:
                text += f": {entry.module} was edited since it was listed"
                raise PluginError(
                    text, distribution=entry.distribution, where=where, hint="start the process again"
                )
            found = read(entry, "")
            wanted = (kind, name, entry.qualname, "ok")
            for one, cls in found:
                if (one.kind, one.name, one.qualname, one.status) == wanted:
                    self._classes[key] = cls
                    return self._classes[key]
            faults = [one.error for one, _ in found if one.status != "ok"]
            text += f": {faults[0] if faults else f'{entry.module} no longer registers it'}"
            raise PluginError(text, distribution=entry.distribution, where=where, hint=LIST)
        return self._classes[key]

    def build(
        self, kind: str, name: str, options: Mapping[str, Json] | None = None, where: str = ""
    ) -> Strategy:
        """The strategy with these options; those not given take their defaults.

        Args:
            where: where name and options stand, for the error: "run.toml [finetune]".

        Raises: as `load`; UserError for the options, UnknownName where one is unknown.
        """
        cls = self.load(kind, name, where)
        title = f'{kind} "{name}"'
        if options is not None and not isinstance(options, Mapping):
            raise UserError(
                f"options of {title} must be a table of names and values, not {options!r}", where=where
            )
        try:
            return cls.model_validate(dict(options or {}))
        except ValidationError as error:
            raise explain(error, cls, title, where) from None
        except TlcoreError:
            raise
        except Exception as error:
            distribution = self.find(kind, name).distribution
            text = f"{title} of {distribution} failed on its options: {one_line(error)}"
            raise PluginError(text, distribution=distribution, where=where) from error

    def identity(
        self, kind: str, name: str, options: Mapping[str, Json] | None = None, where: str = ""
    ) -> dict[str, Json]:
        """What a result depends on: kind, name, distribution, version, digest, and every option's value.

        JSON, equal in every process; two strategies never share one, whatever their options.
        """
        strategy = self.build(kind, name, options, where)
        entry = self.find(kind, name, where)
        values = strategy.model_dump(mode="json")
        for option in type(strategy).model_fields:
            if isinstance(
                getattr(strategy, option), set | frozenset
            ):  # their order differs between processes
                values[option] = sorted(values[option], key=json.dumps)
        return {
            "kind": kind,
            "name": name,
            "distribution": entry.distribution,
            "version": entry.version,
            "digest": entry.digest,
            "options": values,
        }

    def observers(self) -> list[ModuleType]:
        """The modules that watch runs, imported; one that fails to import is logged and left out."""
        return [module for module, _ in self._observers.watching()]

    def notify(self, hook: str, **values: Json) -> None:
        """Call an observer hook on every observer; see `Observers.notify`.

        Raises:
            UnknownName: `hook` is not an observer hook.
        """
        self._observers.notify(hook, **values)

    def _named(self, kind: str, name: str) -> list[Entry]:
        """Entries of that name; the kind of a faulty module may be unknown ("")."""
        return [
            entry
            for entry in self.entries
            if entry.name == name and (entry.kind == kind or (entry.kind == "" and entry.status != "ok"))
        ]


def _refusal(entry: Entry, kind: str, where: str) -> TlcoreError:
    title = f'{kind} "{entry.name}" of {entry.distribution}'
    if entry.status == "blocked":
        return UserError(
            f"{title} is {entry.error}", where=where, hint=f"take {entry.distribution} out of {BLOCK}"
        )
    text = f"{title} is {entry.status}: {entry.error}"
    return PluginError(text, distribution=entry.distribution, where=where, hint=LIST)


def _resolve(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Sorted, the same class named by two entry points once, and duplicates marked as such."""
    same = {(one.distribution, one.module, one.qualname, one.kind, one.name): one for one in entries}
    order = [*KINDS, "observer", ""]
    ranked = sorted(
        same.values(), key=lambda one: (order.index(one.kind), one.name, one.distribution, one.module)
    )
    offers: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in ranked:
        if entry.status == "ok" and entry.kind in KINDS:
            offers[entry.kind, entry.name].append(entry)
    result = []
    for entry in ranked:
        rivals = offers[entry.kind, entry.name]
        if entry in rivals and len(rivals) > 1:
            result.append(replace(entry, status="duplicate", error=_rivalry(rivals)))
        else:
            result.append(entry)
    return tuple(result)


def _rivalry(rivals: list[Entry]) -> str:
    places = " and by ".join(f"{one.distribution} ({one.module})" for one in rivals)
    names = sorted({one.distribution for one in rivals} - {"tlcore"})
    if len({one.distribution for one in rivals}) == 1:
        remedy = f"{rivals[0].distribution} must rename one; until then keep it out: {BLOCK}={rivals[0].distribution}"
    else:
        remedy = f"keep one out: {BLOCK}={names[-1]}"
    return f'the name "{rivals[0].name}" is offered by {places}; {remedy}'
