"""Safe weights: safetensors, or torch checkpoints that hold tensors and nothing else.

A checkpoint can carry code; these readers never run it. What cannot be read as plain tensors is
refused with an error that says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tlcore.errors import UserError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SUFFIXES", "load_into", "read_metadata", "read_weights", "sha256_of"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""File name endings that `read_weights` reads."""

NESTED = ("state_dict", "model", "model_state_dict")
"""Keys under which training checkpoints keep the weights."""

WRAPPERS = ("_orig_mod.", "module.")
"""Prefixes that torch.compile and DistributedDataParallel put before every name."""

SHOWN = 5
"""How many misfits an error names."""


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"the weights cannot be read: {error.strerror or error}", where=str(path)) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The text metadata in the header of a safetensors file; empty for other kinds of file.

    Raises:
        UserError: not a safetensors file although it is named like one.
    """
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a weights file, by name, on the CPU, as they were stored.

    Reads `.safetensors`, and `.pth`, `.pt`, `.bin` with `torch.load(weights_only=True)`. A training
    checkpoint's inner dictionary (`state_dict`, `model`) is found, wrapper prefixes (`module.`) are cut.

    Raises:
        UserError: no such file, another format, damaged, or holding more than tensors.
    """
    if not path.is_file():
        raise UserError("no such weights file", where=str(path))
    if path.suffix not in SUFFIXES:
        raise UserError(
            f'weights named "*{path.suffix}" are not read',
            where=str(path),
            choices=[f"*{suffix}" for suffix in SUFFIXES],
            hint="save them with safetensors.torch.save_file(network.state_dict(), path)",
        )
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file may fail anywhere in the reader
        raise _unreadable(path, error) from error
    return _plain_tensors(path, loaded)


def load_into(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    where: str,
    head: Sequence[str] = (),
    fresh_head: bool = False,
) -> None:
    """Copy `state` into `network`, exactly: every name and every shape must fit.

    Floating-point tensors are cast to the network's type (fp16 files fill fp32 networks). Batch norm's
    `num_batches_tracked` may be absent: it counts steps and changes no output.

    Args:
        where: what the errors are about, as a person says it (file, entry).
        head: module names of the classifier ("fc", "head.fc").
        fresh_head: leave the network's head as it was initialised, whatever the file has for it.

    A file's head is left out where the network has none, with all that stands in the same module and is gone
    from the network ("head.bn" beside "head.linear").

    Raises:
        UserError: names up to five missing or unexpected names or shapes of file and architecture.
    """
    own = network.state_dict()
    classifier = tuple(f"{name}." for name in head)
    around = tuple(f"{name.split('.')[0]}." for name in head)
    headless = not any(name.startswith(classifier) for name in own)

    def left_out(name: str) -> bool:
        if headless:
            return name.startswith(around) and name not in own
        return fresh_head and name.startswith(classifier)

    given = {name: tensor for name, tensor in state.items() if not left_out(name)}
    wanted = {name: tensor for name, tensor in own.items() if not left_out(name)}

    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in wanted]
    shapes = [
        f"{name}: file {_shape(given[name])}, architecture {_shape(tensor)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]
    parts = [
        _some("missing in the file", missing),
        _some("unknown to the architecture", unexpected),
        _some("another shape", shapes),
    ]
    if any(parts):
        raise UserError(
            f"the weights do not fit {type(network).__name__}: " + "; ".join(part for part in parts if part),
            where=where,
            hint="check the architecture and its arguments (width, in_chans, num_classes) in the index",
        )
    with torch.no_grad():
        for name, tensor in given.items():
            own[name].copy_(tensor)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(title: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    rest = len(names) - SHOWN
    return f"{title} ({len(names)}): " + ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _unreadable(path: Path, error: Exception) -> UserError:
    lines = str(error).strip().splitlines()
    return UserError(
        f"not readable as plain tensors: {lines[0][:200] if lines else type(error).__name__}",
        where=str(path),
        hint="only tensors are read, never code: fetch the file again, or save it as safetensors where it came from",
    )


def _plain_tensors(path: Path, loaded: object) -> dict[str, Tensor]:
    for key in NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        raise UserError(f"holds a {type(loaded).__name__}, not a dictionary of tensors", where=str(path))
    strangers = [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
    if strangers or not loaded:
        raise UserError(
            "holds no tensors" if not loaded else f"holds more than tensors: {', '.join(strangers[:SHOWN])}",
            where=str(path),
            hint="save network.state_dict() alone",
        )
    return {_bare(str(name), WRAPPERS): value for name, value in loaded.items()}


def _bare(name: str, prefixes: Iterable[str]) -> str:
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return name
