"""A ranking of files that have not changed since is shown again, without importing torch or starting a server.

Everything in a ranking is found in the run store when it is asked for again. But to ask, the flow needs Prefect's
server, timm's tables and torch, which takes ten seconds; this takes one. What a ranking hangs on is the
configuration, who its strategies are, the versions of the libraries, the processor (engines are chosen by it; for a
GPU, the machine), and the files that its sources read: their names, sizes, and times of change are remembered with
it. Like `make` and `git`, this takes a file whose
inode, size, mtime and ctime are the same for unchanged.

Where a Prefect server is named the flow always runs, so that it is seen there. Here nothing runs, and observers are
not told.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from tlcore.config import RunConfig, StrategyChoice
from tlcore.protocols import DataSource, ModelSource
from tlcore.registry import Registry
from tlcore.store import content_key, write_text
from tlcore.values import Json, Ranking

__all__ = ["address", "find", "keep"]

MOST_FILES = 200_000
"""Above this, looking at every file would take longer than it saves."""


def address(config: RunConfig, registry: Registry, root: Path) -> str | None:
    """Content address of all that the ranking hangs on, taken before it is made; None where a source cannot say.

    The run store at `root` may lie among the images or the weights; what is in it does not count.
    """
    if config.selection.max_latency_ms is not None:
        return None  # a measurement of this machine as it was
    places: list[str] = [config.selection.results] if config.selection.results else []
    identities: list[Json] = []
    data = [choice for choice in (config.data.source, config.data.target) if choice is not None]
    kinds: list[tuple[str, StrategyChoice]] = [
        *(("data-source", choice) for choice in data),
        *(("model-source", choice) for choice in config.models),
        ("data-check", config.data.check),
        *(("scorer", choice) for choice in config.selection.scorers),
    ]
    for kind, choice in kinds:
        identities.append(registry.identity(kind, choice.name, choice.options))
        if kind in {"data-source", "model-source"}:
            source = cast(DataSource | ModelSource, registry.build(kind, choice.name, choice.options))
            found = source.depends_on()
            if found is None:
                return None
            places += found
    seen = _signature(places, root)
    if seen is None:
        return None
    document = {
        "config": config.document(),
        "strategies": identities,
        "files": seen,
        "machine": _machine(config),
    }
    return content_key({"recall": 2, **document})


def _machine(config: RunConfig) -> list[str]:
    """What tlcore.features.engines.hardware looks at, as far as it shows without importing torch."""
    if config.device != "cpu":
        return [platform.node(), config.device]
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.is_file() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    compilers = [name for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if shutil.which(name)]
    return [platform.machine(), " ".join(sorted(flags.split())), *compilers[:1]]


def find(root: Path, key: str | None) -> Ranking | None:
    """The ranking kept under this address, or None."""
    if key is None:
        return None
    try:
        return Ranking.model_validate_json(_place(root, key).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None  # never made, or cleaned away: it is worked out again


def keep(root: Path, key: str | None, ranking: Ranking) -> None:
    """Remember the ranking of files as they were when `key` was taken. Not for one from which a candidate fell out."""
    if key is not None:
        write_text(_place(root, key), ranking.model_dump_json())


def _place(root: Path, key: str) -> Path:
    return root / "rankings" / f"{key}.json"


def _signature(places: list[str], root: Path) -> str | None:
    digest = hashlib.sha256()
    count = 0
    for place in places:
        path = os.path.abspath(os.path.expanduser(place))  # noqa: PTH100, PTH111 - Path takes ten times as long
        digest.update(f"{path}\0".encode(errors="surrogateescape"))
        for line in _files(path, root):
            count += 1
            if count > MOST_FILES:
                return None
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(path: str, root: Path) -> Iterator[str]:
    """A line per file below `path` or at it, in a fixed order. A link stands for the file that it leads to."""
    if not os.path.isdir(path):  # noqa: PTH112
        yield _line(path)
        return
    for folder, folders, names in os.walk(path):
        folders[:] = [
            name for name in sorted(folders) if name != root.name or Path(folder, name).resolve() != root
        ]
        for name in sorted(names):
            yield _line(os.path.join(folder, name))  # noqa: PTH118


def _line(path: str) -> str:
    try:
        facts = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return f"{path} is not there\n"
    return f"{path} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}\n"
