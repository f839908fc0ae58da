"""What a killed training goes on from: one file, replaced in one step."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch

from tlcore.errors import PluginError

__all__ = ["load_state", "save_state"]

_NAME = "training.pt"


def save_state(folder: Path, state: dict[str, Any], name: str | None = None) -> None:
    """Write tensors and plain values under a name; a reader sees the old file or the new one."""
    name = name or _NAME
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f".{name}.*"):
        left.unlink(missing_ok=True)  # of a process that was killed while it wrote: the stage's lock is ours
    part = folder / f".{name}.{os.getpid()}"
    buffer = io.BytesIO()  # torch hides a full disk behind an error of its own
    torch.save(state, buffer)
    try:
        with part.open("wb") as file:
            file.write(buffer.getbuffer())
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
