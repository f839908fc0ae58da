"""From installed distributions to plugin modules and their files, without importing any of them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pkgutil
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path

from tlcore.hookspecs import GROUP
from tlcore.registry.entry import one_line
from tlcore.registry.hooks import HOOKS

__all__ = ["Located", "Module", "canonical", "current_digest", "digest", "environment", "guess", "installed"]

_SOURCES = (".py", *EXTENSION_SUFFIXES)
_HOOK = re.compile(rb"^def tlcore_\w+\(", re.MULTILINE)


@dataclass(frozen=True)
class Module:
    """A plugin module.

    Attributes:
        file: what it is made from. `own`: that, or every file of the module's folder.
        around: all source files of the package that it stands in, its own among them.
    """

    name: str
    file: Path
    own: tuple[Path, ...]
    around: tuple[Path, ...]


@dataclass(frozen=True)
class Located:
    """One entry point of the group, followed to files.

    Attributes:
        target: what it names, a module or a package; `package` says which.
        error: why nothing can be found behind it, or "".
    """

    distribution: str
    version: str
    target: str
    package: bool = False
    modules: tuple[Module, ...] = ()
    error: str = ""

    def key(self) -> str:
        """Changes with the version, and with the time and size of any file."""
        files = sorted({file for module in self.modules for file in module.around})
        stats = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
        names = [module.name for module in self.modules]
        text = json.dumps([self.distribution, self.version, self.target, names, self.error, stats])
        return hashlib.sha256(text.encode()).hexdigest()


def canonical(distribution: str) -> str:
    """The name as package indexes compare it: lower case, runs of "-", "_" and "." as one "-"."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def installed() -> list[Located]:
    """Every entry point of the group `tlcore`, in the order of distributions and names; none raises.

    Distributions are read one by one: `importlib.metadata.entry_points` fails as a whole when a single
    file among them cannot be parsed.
    """
    found: list[Located] = []
    seen: set[str] = set()
    for distribution in metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except (OSError, ValueError):
            continue
        if not re.search(rf"^\s*\[\s*{GROUP}\s*\]", text, re.MULTILINE) or _shadowed(distribution):
            continue
        name, version = (
            str(distribution.metadata["Name"] or "unknown"),
            str(distribution.metadata["Version"] or ""),
        )
        if canonical(name) in seen:  # the same folder twice on the path
            continue
        seen.add(canonical(name))
        try:
            values = {point.value for point in distribution.entry_points if point.group == GROUP}
        except Exception as error:  # noqa: BLE001 - the parser of a malformed file raises what it likes
            text = f"entry_points.txt cannot be read: {one_line(error)}"
            found.append(Located(name, version, name, error=text))
            continue
        found += [_locate(name, version, value) for value in sorted(values)]
    return sorted(found, key=lambda one: (canonical(one.distribution), one.target))


def environment() -> str:
    """Changes when any distribution comes, goes or changes version (a broken plugin may then be whole)."""
    names: list[str] = []
    for place in sys.path:
        folder = Path(place or ".")
        try:
            names += sorted(
                str(item) for item in folder.glob("*-info") if item.suffix in (".dist-info", ".egg-info")
            )
        except OSError:
            continue
    return hashlib.sha256(os.fsencode("\n".join(names))).hexdigest()


def digest(module: Module) -> str:
    """sha256 over the module's own files and those around it that it may use.

    Files around it that define a hook are strategies of their own, and do not count.
    """
    total = hashlib.sha256()
    for file in module.around:
        content = file.read_bytes()
        if file in module.own or not _HOOK.search(content):
            total.update(content)
    return total.hexdigest()


def current_digest(name: str) -> str:
    """Digest of the plugin module `name` as it is on disk now; "" where it is no longer there."""
    for found in installed():
        for module in found.modules:
            if module.name == name:
                return digest(module)
    return ""


def guess(module: Module) -> tuple[str, str]:
    """Kind and name that a module registers, as far as its text shows without running it.

    The kind is "" and the name the module's own where the text shows none, or several.
    """
    stem = module.name.rpartition(".")[2].strip("_").replace("_", "-").lower()
    try:
        text = module.file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return "", stem
    kinds = {HOOKS[hook] for hook in re.findall(r"^def (tlcore_\w+)\(", text, re.MULTILINE) if hook in HOOKS}
    names = re.findall(r"""\bCard\(\s*(?:name\s*=\s*)?["']([a-z0-9-]+)["']""", text)
    return kinds.pop() if len(kinds) == 1 else "", names[0] if len(names) == 1 else stem


def _shadowed(distribution: metadata.Distribution) -> bool:
    """Whether another one of the same name stands earlier on the path, which is what Python imports."""
    try:
        first = metadata.distribution(distribution.metadata["Name"])
        return Path(str(first.locate_file(""))) != Path(str(distribution.locate_file("")))
    except Exception:  # noqa: BLE001 - no usable metadata: nothing can shadow it
        return False


def _locate(distribution: str, version: str, value: str) -> Located:
    if not re.fullmatch(r"\w+(\.\w+)*", value):
        text = f'entry point "{value}" must name a module or a package, nothing in it'
        return Located(distribution, version, value, error=text)
    try:
        spec = _spec(value)
        if spec is None:
            text = f"there is no module {value} for its entry point; install {distribution} again"
            return Located(distribution, version, value, error=text)
        package = spec.submodule_search_locations is not None
        return Located(distribution, version, value, package, _modules(value, spec))
    except Exception as error:  # noqa: BLE001 - import hooks and file systems may raise anything
        return Located(distribution, version, value, error=one_line(error))


def _spec(name: str) -> ModuleSpec | None:
    """`importlib.util.find_spec` without its import of the parent packages."""
    first, *rest = name.split(".")
    spec = importlib.util.find_spec(first)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec


def _modules(value: str, spec: ModuleSpec) -> tuple[Module, ...]:
    """The module itself; of a package each public module in it, and the package's own file last."""
    if spec.submodule_search_locations is None:
        file = Path(str(spec.origin))
        return (Module(value, file, (file,), _files([file.parent]) if "." in value else (file,)),)
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    around = _files(folders)
    modules = []
    for item in pkgutil.iter_modules(spec.submodule_search_locations):
        inner = PathFinder.find_spec(f"{value}.{item.name}", spec.submodule_search_locations)
        if item.name.startswith("_") or inner is None or inner.origin is None:
            continue
        file = Path(inner.origin)
        modules.append(Module(inner.name, file, _files([file.parent]) if item.ispkg else (file,), around))
    modules.sort(key=lambda module: module.name)
    if spec.origin is not None:
        modules.append(Module(value, Path(spec.origin), (Path(spec.origin),), around))
    return tuple(modules)


def _files(folders: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(
        sorted(file for folder in folders for file in folder.rglob("*") if file.name.endswith(_SOURCES))
    )
