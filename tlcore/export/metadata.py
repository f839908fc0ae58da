"""What an exported file says about itself, so that it needs nothing beside it.

The values are stored as string properties of the file (`metadata_props` of an ONNX model). Our own
keys begin with "tlcore."; everything else is the exporter's caller's and is kept as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from tlcore import __version__
from tlcore.errors import UserError
from tlcore.values import Preprocess, Task, Value

__all__ = ["FORMAT", "INPUT", "OUTPUT", "FileMetadata", "output_name", "read_properties", "write_properties"]

FORMAT = "1"
"""Version of this layout; a reader refuses every other one."""
INPUT = "image"
"""Name of the file's input: uint8 RGB [n, height, width, 3]."""
OUTPUT = "probabilities"
"""Name of the output of a file of classes: float32 [n, K], rows sum to 1. See `output_name`."""

_PREFIX = "tlcore."
_KEYS = ("format", "classes", "preprocess", "colour_order", "version", "run_id", "temperature")


class FileMetadata(Value):
    """The self-description of an exported file.

    `classes[k]` names column k of the output; `preprocess` is what has to happen to an image file
    before it becomes the input (normalisation is in the graph). `task` says whether the columns are classes, tags or a
    number. `temperature` is what the graph divides logits by.
    """

    classes: tuple[str, ...] = Field(min_length=1)
    preprocess: Preprocess
    colour_order: Literal["RGB"] = "RGB"
    tlcore_version: str = __version__
    run_id: str = ""
    temperature: float = Field(1.0, gt=0)
    task: Task = "classification"
    extra: dict[str, str] = {}

    @property
    def output(self) -> str:
        """Name of the file's output."""
        return output_name(self.task)


def output_name(task: Task) -> str:
    """What a file's output is called: "probabilities", of classes or of each tag by itself, or "values"."""
    return "values" if task == "regression" else OUTPUT


def write_properties(metadata: FileMetadata) -> dict[str, str]:
    """The string properties that stand for `metadata`; `read_properties` is the inverse.

    Raises:
        UserError: an extra key begins with "tlcore." and would hide one of ours.
    """
    reserved = sorted(key for key in metadata.extra if key.startswith(_PREFIX))
    if reserved:
        raise UserError(
            f'metadata keys that begin with "{_PREFIX}" are reserved: {", ".join(reserved)}',
            hint="give them another name",
        )
    own = {
        "format": FORMAT,
        "classes": json.dumps(metadata.classes, ensure_ascii=False),
        "preprocess": metadata.preprocess.model_dump_json(),
        "colour_order": metadata.colour_order,
        "version": metadata.tlcore_version,
        "run_id": metadata.run_id,
        "temperature": repr(metadata.temperature),
    }
    if metadata.task != "classification":  # a file of classes is what it was before there were others
        own["task"] = metadata.task
    return {**metadata.extra, **{_PREFIX + key: value for key, value in own.items()}}


def read_properties(properties: Mapping[str, str], where: str) -> FileMetadata:
    """The metadata in a file's string properties.

    Args:
        where: the file, as errors name it.

    Raises:
        UserError: no tlcore metadata, another layout version, or values that do not fit together.
    """
    own = {key: properties[_PREFIX + key] for key in (*_KEYS, "task") if _PREFIX + key in properties}
    if not own:
        raise UserError(
            "has no tlcore metadata (class names, input size, resize rule)",
            where=where,
            hint="use a file that a tlcore run exported; the newest one is shown by: tlcore runs show last",
        )
    if own.get("format") != FORMAT:
        raise UserError(
            f"its metadata has layout {own.get('format')!r}, written by tlcore {own.get('version', '?')}; "
            f"this is tlcore {__version__}, which reads layout {FORMAT!r}",
            where=where,
            hint="use the tlcore version that wrote the file, or export the model again",
        )
    try:
        return FileMetadata(
            classes=json.loads(own["classes"]),
            preprocess=Preprocess.model_validate_json(own["preprocess"]),
            colour_order=own["colour_order"],
            tlcore_version=own["version"],
            run_id=own["run_id"],
            temperature=float(own.get("temperature", "1")),  # files of earlier versions have none
            task=own.get("task", "classification"),
            extra={key: value for key, value in properties.items() if not key.startswith(_PREFIX)},
        )
    except (KeyError, ValueError, ValidationError) as error:
        raise UserError(
            f"its tlcore metadata cannot be read: {error}", where=where, hint="export the model again"
        ) from error


def stamp_run_id(path: Path, run_id: str) -> None:
    """Write `run_id` into the metadata of an exported ONNX file, in place; the graph is left as it is."""
    import onnx

    model = onnx.load(path)
    for item in model.metadata_props:
        if item.key == _PREFIX + "run_id" or item.key == "run_id":
            item.value = run_id
    path.write_bytes(model.SerializeToString())
