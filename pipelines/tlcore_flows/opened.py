"""The run store and the registry, opened once per process and shared by all that runs in it."""

from __future__ import annotations

import functools
from pathlib import Path

from tlcore.registry import Registry
from tlcore.store import Store

__all__ = ["open_registry", "open_store"]


@functools.lru_cache(maxsize=8)
def open_store(place: str | Path) -> Store:
    """The store at `place`, a folder or a URL; made if it is missing.

    Raises:
        UserError: it cannot be made or written.
        RetryableError: a shared store does not answer.
    """
    return Store.open(place)


@functools.lru_cache(maxsize=8)
def open_registry(root: Path) -> Registry:
    """The installed strategies; their index lies in the store at `root`."""
    return Registry.discover(cache_folder=open_store(root).root)
