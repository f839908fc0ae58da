"""Checks what a plugin module registers, class by class."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from types import ModuleType
from typing import Any

from tlcore.errors import PluginError
from tlcore.hookspecs import HOOK_API
from tlcore.protocols import KINDS, Card, DataSource, ModelSource, Strategy
from tlcore.registry.entry import Entry, one_line, short
from tlcore.registry.hooks import HOOKS, OBSERVERS, import_plugin, offered

__all__ = ["NAME", "check", "read"]

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""What a card's name looks like."""

_REQUIRED_OPTION: dict[type[Strategy], str] = {DataSource: "path", ModelSource: "spec"}


def read(origin: Entry, file: str) -> list[tuple[Entry, Any]]:
    """Import the module that `origin` names and check what it registers.

    Nothing that the module does is raised, except KeyboardInterrupt.

    Args:
        origin: carries module, distribution, version and digest, and kind and name for the case that
            the module is broken.
        file: the module's source, to say where it failed.

    Returns: an entry and its class per strategy; one without a class for observer hooks or a broken module.
    """
    try:
        module = import_plugin(origin.module, origin.digest)
        found, hooks = offered(module)
        if not hooks:
            _refuse_forgotten(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
        return [(replace(origin, status="broken", error=one_line(error, file)), None)]
    entries = [(_entry(kind, cls, origin), cls) for kind, classes in found.items() for cls in classes]
    if any(hook in OBSERVERS for hook in hooks):
        summary = short((inspect.getdoc(module) or "").partition("\n")[0], 120)
        entries.append((replace(origin, kind="observer", summary=summary), None))
    return entries


def check(kind: str, cls: Any) -> Card:
    """The card of a class that a hook of `kind` returned.

    Raises:
        PluginError: `cls` is not a concrete, frozen strategy of that kind with a complete card.
    """
    wanted = KINDS[kind]
    if not isinstance(cls, type):
        raise PluginError(f"the {kind} hook returned {short(repr(cls))}, not a class")
    title = cls.__qualname__
    if not issubclass(cls, wanted):
        other = next((name for name, base in KINDS.items() if issubclass(cls, base)), None)
        what = f"a {other}" if other else "no strategy"
        raise PluginError(f"{title}, returned as a {kind}, is {what}: it must subclass {wanted.__name__}")
    card = getattr(cls, "card", None)
    if not isinstance(card, Card):
        raise PluginError(f"{title} has no card: set card: ClassVar[Card] = Card(...)")
    if type(card.api) is not int:
        raise PluginError(f"{title}: card.api is {card.api!r}, not a whole number")
    if not (isinstance(card.name, str) and NAME.fullmatch(card.name)):
        raise PluginError(f"{title}: card.name {card.name!r} is not lower-case words joined by -")
    if card.api != HOOK_API:
        return card  # the checks below are those of this API
    for part in ("summary", "reference", "licence"):
        text = getattr(card, part)
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise PluginError(f"{title}: card.{part} must be one line of text")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise PluginError(f"{title} does not implement {', '.join(missing)}")
    if cls.model_config.get("frozen") is not True or cls.model_config.get("extra") != "forbid":
        raise PluginError(f"{title} must stay frozen and refuse unknown options (model_config)")
    option = _REQUIRED_OPTION.get(wanted)
    if option and option not in cls.model_fields:
        raise PluginError(f"{title}, a {kind}, needs a field {option}: str")
    return card


def _entry(kind: str, cls: Any, origin: Entry) -> Entry:
    entry = replace(origin, kind=kind, qualname=cls.__qualname__ if isinstance(cls, type) else "")
    try:
        card = check(kind, cls)
        entry = replace(entry, name=card.name, summary=str(card.summary), reference=str(card.reference))
        entry = replace(
            entry, licence=str(card.licence), traits=tuple(sorted(map(str, card.traits))), api=card.api
        )
        if card.api != HOOK_API:
            return replace(entry, status="incompatible", error=_incompatible(card.api, origin.distribution))
        schema = json.dumps(cls.model_json_schema(), ensure_ascii=False)
        return replace(entry, schema=json.loads(schema.encode("utf-8", "replace")))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - properties and schema hooks are the plugin's code
        return replace(entry, name=_name(cls) or entry.name, status="broken", error=one_line(error))


def _name(cls: Any) -> str:
    """The name on a faulty class's card, if it has a usable one."""
    card = inspect.getattr_static(cls, "card", None)  # runs none of the plugin's code
    usable = isinstance(card, Card) and isinstance(card.name, str) and NAME.fullmatch(card.name)
    return card.name if usable else ""


def _refuse_forgotten(module: ModuleType) -> None:
    """A module with a strategy in it was meant to register it: a new file is a new strategy."""
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module.__name__ and "card" in vars(value):
            for hook, kind in HOOKS.items():
                if issubclass(value, KINDS[kind]):
                    raise PluginError(
                        f"defines {value.__name__} and registers nothing: add @hookimpl def {hook}()"
                    )


def _incompatible(api: int, distribution: str) -> str:
    name = "tlcore" if api > HOOK_API else distribution
    return f"written for hook API {api}, this tlcore has API {HOOK_API}; upgrade {name}: pip install --upgrade {name}"
