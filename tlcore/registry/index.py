"""What is installed, remembered in one file, so that listing it imports no plugin.

A group of the index (one entry point) holds as long as its distribution's version and the times and
sizes of its files do; the whole index as long as tlcore's contract, Python and the set of installed
distributions do. An index that is missing, corrupt or cannot be written costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

import tlcore
from tlcore.registry import locate
from tlcore.registry.contract import read
from tlcore.registry.entry import Entry
from tlcore.registry.locate import Located, Module

__all__ = ["FILE", "entries"]

FILE = "plugins.json"
"""Name of the index in the cache folder."""

_CONTRACT = ("hookspecs.py", "protocols.py", "values.py", "registry/*.py")


@dataclass(frozen=True)
class _Group:
    key: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class _Index:
    contract: str = ""
    groups: dict[str, _Group] = field(default_factory=dict)


def entries(cache_folder: Path | None, blocked: Set[str], again: str = "") -> list[Entry]:
    """Everything that is installed under the entry-point group, faulty plugins too; never raises for one.

    Duplicates are not looked for here. A module of a distribution in `blocked` (canonical names) is
    not imported: it is listed from the index, or by what its text shows. The distribution `again` is
    examined afresh: what broke it (a full disk, a module from elsewhere) may be gone without a trace here.
    """
    old = _read(cache_folder)
    contract = _contract()
    known = old.groups if old.contract == contract else {}
    groups: dict[str, _Group] = {}
    listed: list[Entry] = []
    for found in locate.installed():
        label = f"{locate.canonical(found.distribution)} {found.target}"
        key = _key(found)
        group = known.get(label)
        fresh = group is not None and bool(key) and group.key == key and found.distribution != again
        if locate.canonical(found.distribution) in blocked:
            seen = group.entries if group is not None and fresh else _unread(found)
            text = "kept out by TLCORE_BLOCK_PLUGINS"
            listed += [replace(entry, status="blocked", error=text) for entry in seen]
        else:
            group = group if group is not None and fresh else _examine(found, key)
            listed += group.entries
            fresh = True
        if group is not None and fresh and group.key:
            groups[label] = group
    new = _Index(contract, groups)
    if new != old:
        _write(cache_folder, new)
    return listed


def _examine(found: Located, key: str) -> _Group:
    """Imports the modules behind one entry point and checks what they register."""
    listed: list[Entry] = []
    classes: list[object] = []
    stale = False
    for module in found.modules if key else ():
        origin = _origin(found, module)
        imported = sys.modules.get(module.name)
        stale |= getattr(imported, "__tlcore_digest__", origin.digest) != origin.digest
        for entry, cls in read(origin, str(module.file)):
            if cls is not None and any(cls is other for other in classes):
                continue  # a package that re-exports what its modules register
            classes.append(cls)
            whole = found.package and module.name == found.target
            if (
                whole
                and entry.status == "broken"
                and listed
                and all(one.status == "broken" for one in listed)
            ):
                continue  # the package's own file failed, and each of its modules is listed for that
            listed.append(entry)
    if not listed and (found.error or not key or not found.package):
        unreadable = "" if key else f"the source files of {found.target} cannot be read"
        text = found.error or unreadable or f"{found.target} registers nothing: mark its hooks with @hookimpl"
        listed = [replace(entry, status="broken", error=text) for entry in _unread(found)]
    return _Group("" if stale else key, tuple(listed))


def _unread(found: Located) -> tuple[Entry, ...]:
    """Entries of modules that are not imported; at least one, so that nothing installed goes unlisted."""
    modules = [module for module in found.modules if not (found.package and module.name == found.target)]
    guessed = tuple(_origin(found, module) for module in modules)
    name = found.target.replace("_", "-").lower()
    bare = Entry("", name, module=found.target, distribution=found.distribution, version=found.version)
    return guessed or (bare,)


def _origin(found: Located, module: Module) -> Entry:
    kind, name = locate.guess(module)
    try:
        digest = locate.digest(module)
    except OSError:
        digest = ""
    return Entry(
        kind, name, module=module.name, distribution=found.distribution, version=found.version, digest=digest
    )


def _key(found: Located) -> str:
    """The group's key, or "" where a file cannot be looked at: such a group is never imported nor kept."""
    try:
        return found.key()
    except OSError:
        return ""


def _contract() -> str:
    folder = Path(tlcore.__file__).parent
    files = sorted(file for pattern in _CONTRACT for file in folder.glob(pattern))
    stats = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    text = json.dumps([tlcore.__version__, sys.version, locate.environment(), stats])
    return hashlib.sha256(text.encode()).hexdigest()


def _read(cache_folder: Path | None) -> _Index:
    if cache_folder is None:
        return _Index()
    try:
        return TypeAdapter(_Index).validate_json((cache_folder / FILE).read_bytes())
    except (OSError, ValueError):
        return _Index()


def _write(cache_folder: Path | None, index: _Index) -> None:
    if cache_folder is None:
        return
    with contextlib.suppress(OSError):
        cache_folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=FILE, suffix=".tmp", dir=cache_folder)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(index), file)
            Path(name).replace(cache_folder / FILE)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
