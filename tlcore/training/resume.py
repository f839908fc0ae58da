"""What a killed training goes on from: one file, replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from tlcore.errors import PluginError

__all__ = ["load_state", "save_state"]

_NAME = "training.pt"


class _Writer:
    """Passes on what torch writes, piece by piece: a copy of the whole would be the most memory that a training takes.
    failed: what torch hides behind an error of its own, such as a full disk."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failed: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failed = error
            raise

    def flush(self) -> None:
        self._file.flush()


def save_state(folder: Path, state: dict[str, Any], name: str | None = None) -> None:
    """Write tensors and plain values under a name; a reader sees the old file or the new one."""
    name = name or _NAME
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f".{name}.*"):
        left.unlink(missing_ok=True)  # of a process that was killed while it wrote: the stage's lock is ours
    part = folder / f".{name}.{os.getpid()}"
    try:
        with part.open("wb") as file:
            writer = _Writer(file)
            try:
                torch.save(state, cast(IO[bytes], writer))
            except Exception:
                if writer.failed is not None:
                    raise writer.failed from None
                raise
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / name)
    finally:
        part.unlink(missing_ok=True)


def load_state(folder: Path, name: str | None = None) -> dict[str, Any] | None:
    """The last state, or None. Only tensors and plain values are read (weights_only).

    Raises:
        PluginError: the file is there and cannot be read.
    """
    path = folder / (name or _NAME)
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes torch raise
        raise PluginError(
            f"the training checkpoint cannot be read: {error}",
            where=str(path),
            hint="delete it and run again",
        ) from None
    return state
