"""One module's hooks, called through pluggy.

pluggy ignores a misspelt hook until it is asked, never checks a returned value, never fills an argument
that has a default, and can leave a module half-registered. So every module gets a manager of its own,
and what pluggy would let pass is refused here.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pluggy

from tlcore import hookspecs
from tlcore.errors import PluginError
from tlcore.hookspecs import PROJECT
from tlcore.protocols import KINDS
from tlcore.registry.entry import short

__all__ = ["HOOKS", "OBSERVERS", "contained", "import_plugin", "offered", "register"]

HOOKS: dict[str, str] = {f"tlcore_{kind.replace('-', '_')}s": kind for kind in KINDS}
"""Strategy hook to kind."""

OBSERVERS = ("tlcore_run_started", "tlcore_stage_finished", "tlcore_run_finished")
"""Hooks that look and never touch."""

_CONTAINED = threading.RLock()


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Run a plugin's code: what it prints goes to stderr, since stdout may carry a JSON document.

    The lock keeps two threads from restoring each other's stdout.
    """
    with _CONTAINED, contextlib.redirect_stdout(sys.stderr):
        yield


def import_plugin(name: str, digest: str) -> ModuleType:
    """The module `name`, whose sources have `digest` now.

    Raises:
        PluginError: this process imported an earlier state of it, whose results would be stored under
            the identity of code that did not compute them.
        BaseException: anything else that the module raises.
    """
    with contained():
        module = importlib.import_module(name)
    if module.__dict__.setdefault("__tlcore_digest__", digest) != digest:
        raise PluginError(f"{name} was edited after this process had imported it; start the process again")
    return module


def register(module: ModuleType) -> pluggy.PluginManager:
    """A fresh manager that holds `module` alone; every hook that it implements is known and callable.

    Raises:
        PluginError: an unknown or unmarked hook, or arguments that do not fit.
    """
    _refuse_unmarked(module)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, module.__name__)
        _refuse_unknown(manager, module)
        _refuse_unfilled(manager, module)
    except BaseException as error:
        if manager.has_plugin(module.__name__):
            manager.unregister(name=module.__name__)
        if isinstance(error, pluggy.PluginValidationError):
            raise PluginError(" ".join(str(error).split())) from error
        raise
    return manager


def offered(module: ModuleType) -> tuple[dict[str, list[Any]], tuple[str, ...]]:
    """What the module's strategy hooks return, by kind, and the names of all hooks that it implements.

    Raises:
        PluginError: see `register`; or a hook that returns something other than a list.
    """
    manager = register(module)
    try:
        used = tuple(sorted(caller.name for caller in manager.get_hookcallers(module) or ()))
        found: dict[str, list[Any]] = {}
        for hook in (name for name in used if name in HOOKS):
            with contained():
                returned = getattr(manager.hook, hook)()
            for value in returned:  # one value per implementation; pluggy has dropped None
                if not isinstance(value, list | tuple):
                    raise PluginError(f"{hook} returned {short(repr(value))}, not a list of classes")
                found.setdefault(HOOKS[hook], []).extend(value)
        return found, used
    finally:
        manager.unregister(module)


def _refuse_unmarked(module: ModuleType) -> None:
    for name, value in vars(module).items():
        own = inspect.isfunction(value) and value.__module__ == module.__name__
        if own and name.startswith("tlcore_") and not hasattr(value, f"{PROJECT}_impl"):
            raise PluginError(
                f"function {name} is not marked @hookimpl, so it would never be called{_near(name)};"
                " names that begin with tlcore_ are kept for hooks"
            )


def _refuse_unknown(manager: pluggy.PluginManager, module: ModuleType) -> None:
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = sorted(
            caller.name for caller in manager.get_hookcallers(module) or () if not caller.has_spec()
        )
        text = ", ".join(f"{name}{_near(name)}" for name in unknown)
        raise PluginError(f"no such hook: {text}; hooks: {', '.join((*HOOKS, *OBSERVERS))}") from error


def _refuse_unfilled(manager: pluggy.PluginManager, module: ModuleType) -> None:
    for caller in manager.get_hookcallers(module) or ():
        for implementation in caller.get_hookimpls():
            for argument in inspect.signature(implementation.function).parameters.values():
                if argument.default is not argument.empty or argument.kind is argument.KEYWORD_ONLY:
                    raise PluginError(
                        f"{caller.name}: argument {argument.name} must be plain, without a default and not"
                        " keyword-only: it would never receive a value"
                    )


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, (*HOOKS, *OBSERVERS), n=1, cutoff=0.5)
    return f' (did you mean "{near[0]}"?)' if near and near[0] != name else ""
