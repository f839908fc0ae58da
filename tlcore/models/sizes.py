"""Sizes of timm's architectures, so that a thousand candidates are listed without building one.

The table `timm_sizes.csv` is generated (`python -m benchmarks.timm_sizes`): a line for every architecture and
input size of timm's pretrained models. An architecture of another timm version that it lacks is measured on the
meta device: see `tlcore.models.cost`.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

__all__ = ["Place", "Size", "read_table", "size_in_table", "table_text", "timm_version_of_table"]

_FILE = "timm_sizes.csv"
_COLUMNS = ("architecture", "height", "width", "params", "gmacs", "onnx_bytes")
_MADE_WITH = "# made by python -m benchmarks.timm_sizes with timm "


class Size(NamedTuple):
    """What one network needs, its head not counted.

    Attributes:
        params: learnt parameters.
        gmacs: billions of multiply-accumulates for one image; None where the network cannot be followed.
        onnx_bytes: estimated bytes of its ONNX file; None where the network cannot be followed.
    """

    params: int
    gmacs: float | None
    onnx_bytes: int | None


Place = tuple[str, int, int]
"""Architecture, height and width of the input in pixels."""


def size_in_table(architecture: str, height: int, width: int) -> Size | None:
    """The size of an architecture of timm as timm builds it without further arguments, where the table has it."""
    return read_table().get((architecture, height, width))


@functools.cache
def read_table() -> Mapping[Place, Size]:
    """The whole table, by architecture, height and width."""
    table: dict[Place, Size] = {}
    lines = (line for line in _text().splitlines() if not line.startswith("#"))
    for row in csv.DictReader(lines):
        table[row["architecture"], int(row["height"]), int(row["width"])] = Size(
            params=int(row["params"]),
            gmacs=float(row["gmacs"]) if row["gmacs"] else None,
            onnx_bytes=int(row["onnx_bytes"]) if row["onnx_bytes"] else None,
        )
    return table


def timm_version_of_table() -> str:
    """The version of timm whose networks were measured."""
    return _text().partition("\n")[0].removeprefix(_MADE_WITH)


def table_text(sizes: Mapping[Place, Size], *, timm_version: str) -> str:
    """The table as text, sorted; `gmacs` with six digits."""
    lines = [_MADE_WITH + timm_version, ",".join(_COLUMNS)]
    for (architecture, height, width), size in sorted(sizes.items()):
        gmacs = "" if size.gmacs is None else f"{size.gmacs:.6g}"
        onnx_bytes = "" if size.onnx_bytes is None else str(size.onnx_bytes)
        lines.append(f"{architecture},{height},{width},{size.params},{gmacs},{onnx_bytes}")
    return "\n".join(lines) + "\n"


def _text() -> str:
    return resources.files("tlcore.models").joinpath(_FILE).read_text(encoding="utf-8")
