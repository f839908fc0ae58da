"""The local index: a folder with `index.json` and weights files.

{
  "NAME": {
    "file": "NAME.safetensors",       # in this folder
    "architecture": "mobilenetv2_100",
    "kwargs": {"pad_type": "same"},   # of timm.create_model; padding that the weights were trained with goes here
    "num_classes": 1000,              # 0: the file carries no head
    "input_size": [3, 224, 224],
    "mean": [0.485, 0.456, 0.406],    # of pixels in [0, 1]; null for other modalities
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bilinear",
    "pretrained_on": "ImageNet-1k",
    "modality": "image",
    "known_to_timm": true,            # for readers; what timm ships is looked up
    "licence": "Apache-2.0",
    "crop_pct": 0.875,                # optional, as are "resize" ("crop" | "squash") and
    "prior": 71.9                     # published ImageNet top-1 accuracy in percent
  }
}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from tlcore.errors import UserError
from tlcore.models.build import shipped_with_timm
from tlcore.models.cost import with_size
from tlcore.models.weights import SUFFIXES, sha256_of
from tlcore.values import Candidate, Json, Preprocess, Value

__all__ = ["INDEX", "IndexEntry", "candidate_of", "candidates_in", "read_index"]

INDEX = "index.json"
"""Name of the index in its folder."""

REQUIRED_CHANNELS = 3


FORBIDDEN_ARGUMENTS = frozenset(
    {
        "cache_dir", "checkpoint_path", "exportable", "features_only", "no_jit", "num_classes", "pretrained",
        "pretrained_cfg", "pretrained_cfg_overlay", "scriptable",
    }
)  # fmt: skip
"""Arguments of timm.create_model that read other files, reach the hub, or change what kind of network comes out."""


class IndexEntry(Value):
    """One entry of `index.json`; the fields are explained at the top of this module."""

    file: str = Field(min_length=1)
    architecture: str = Field(pattern=r"^[A-Za-z0-9_]+$")
    kwargs: dict[str, Json] = {}
    num_classes: int = Field(ge=0)
    input_size: tuple[int, int, int]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    pretrained_on: str = "unknown"
    modality: str
    known_to_timm: bool = True
    licence: str = "unknown"
    crop_pct: float = Field(0.875, gt=0, le=1)
    resize: Literal["crop", "squash"] = "crop"
    prior: float | None = Field(None, ge=0, le=100)

    @field_validator("kwargs")
    @classmethod
    def _harmless(cls, given: dict[str, Json]) -> dict[str, Json]:
        refused = sorted(FORBIDDEN_ARGUMENTS & given.keys())
        if refused:
            raise ValueError(
                f"{', '.join(refused)} may not be given: the weights are those of the entry's file"
            )
        return given


def read_index(folder: Path) -> dict[str, IndexEntry]:
    """All entries of the index in `folder`, in its order, validated.

    Raises:
        UserError: no index, not JSON, an unknown or missing field or a wrong value (entry and field are named), a
            file outside the folder.
    """
    path = folder / INDEX
    if not folder.is_dir():
        raise UserError(
            "no such folder", where=str(folder), hint="give local: a folder with index.json, or one file"
        )
    if not path.is_file():
        raise UserError(
            f"no {INDEX} in the folder",
            where=str(folder),
            hint="write one, an entry per weights file, or name one file: local:FOLDER/resnet18.safetensors",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"not readable as JSON: {error}", where=str(path)) from error
    if not isinstance(content, dict) or not content:
        raise UserError('must be an object {"NAME": {entry}, …} with at least one entry', where=str(path))
    return {name: _entry(name, fields, folder, path) for name, fields in content.items()}


def candidates_in(
    folder: Path,
    *,
    source: str,
    options: dict[str, Json],
    include: Sequence[str] = (),
    known: Callable[[str], bool] = shipped_with_timm,
) -> tuple[Candidate, ...]:
    """The index of `folder` as candidates of the model source named `source`.

    Entries that cannot take part (another modality, channels other than 3, an architecture that is not `known`, a
    file that is not there) come with the reason in `skipped`.

    Args:
        options: the options that build that model source again in another process.
        include: glob patterns of entry names; empty: all.
        known: whether an architecture can be built.

    Raises:
        UserError: as `read_index`; `include` matches nothing.
    """
    entries = read_index(folder)
    chosen = {
        name: entry
        for name, entry in entries.items()
        if not include or any(fnmatchcase(name, pattern) for pattern in include)
    }
    if not chosen:
        raise UserError(
            f"include = {', '.join(include)} matches no entry",
            where=str(folder / INDEX),
            choices=sorted(entries),
        )
    reference: dict[str, Json] = {"name": source, "options": options}
    return tuple(
        candidate_of(name, entry, folder, source=reference, known=known) for name, entry in chosen.items()
    )


def candidate_of(
    name: str,
    entry: IndexEntry,
    folder: Path,
    *,
    source: dict[str, Json],
    known: Callable[[str], bool] = shipped_with_timm,
) -> Candidate:
    """One index entry as a candidate; see `candidates_in`."""
    path = folder.resolve() / entry.file
    candidate = Candidate(
        name=name,
        source=source,
        architecture=entry.architecture,
        arguments=entry.kwargs,
        weights=str(path),
        classes=entry.num_classes,
        prior=entry.prior,
        licence=entry.licence,
        pretrained_on=entry.pretrained_on,
    )
    reason = _reason_to_skip(entry, path, known)
    if reason:
        return candidate.model_copy(update={"skipped": reason})
    assert entry.mean is not None and entry.std is not None
    preprocess = Preprocess(
        height=entry.input_size[1],
        width=entry.input_size[2],
        resize=entry.resize,
        crop_pct=entry.crop_pct,
        interpolation=entry.interpolation,
        mean=(entry.mean[0], entry.mean[1], entry.mean[2]),
        std=(entry.std[0], entry.std[1], entry.std[2]),
    )
    candidate = candidate.model_copy(update={"preprocess": preprocess})
    try:
        candidate = with_size(candidate)
    except UserError as error:
        return candidate.model_copy(update={"skipped": error.what})
    return candidate.model_copy(update={"weights_sha256": sha256_of(path)})


def _reason_to_skip(entry: IndexEntry, path: Path, known: Callable[[str], bool]) -> str | None:
    channels = entry.kwargs.get("in_chans", entry.input_size[0])
    if entry.modality != "image":
        return f'made for {entry.modality}, not for images (modality "{entry.modality}" in {INDEX})'
    if channels != REQUIRED_CHANNELS or entry.input_size[0] != REQUIRED_CHANNELS:
        return f"takes {channels} channels, not the {REQUIRED_CHANNELS} of an RGB image"
    if not known(entry.architecture):
        return (
            f'timm does not know the architecture "{entry.architecture}": install a plugin whose model source '
            f"registers it, and name that model source for this folder in --models (tlcore plugins lists them)"
        )
    if not path.is_file():
        return f"its weights file {entry.file} is not in the folder"
    if path.suffix not in SUFFIXES:
        return f"its weights file {entry.file} is not one of {', '.join('*' + suffix for suffix in SUFFIXES)}"
    return None


def _entry(name: str, fields: Any, folder: Path, path: Path) -> IndexEntry:
    where = f'{path}, entry "{name}"'
    try:
        entry = IndexEntry.model_validate(fields)
    except ValidationError as error:
        raise _field_error(error, where) from error
    root = folder.resolve()
    if not (root / entry.file).resolve().is_relative_to(root):
        raise UserError(
            f'file "{entry.file}" leaves the folder', where=where, hint="copy the file into the folder"
        )
    if min(entry.input_size) < 1:
        raise UserError(f"input_size {list(entry.input_size)} must be positive", where=where)
    if entry.modality == "image" and entry.input_size[0] == REQUIRED_CHANNELS:
        for field, value in (("mean", entry.mean), ("std", entry.std)):
            if value is None or len(value) != REQUIRED_CHANNELS:
                raise UserError(
                    f'field "{field}" of an image entry must hold {REQUIRED_CHANNELS} numbers', where=where
                )
        assert entry.std is not None
        if min(entry.std) <= 0:
            raise UserError('field "std" must be positive', where=where)
        if not all(8 <= side <= 4096 for side in entry.input_size[1:]):
            raise UserError(f'field "input_size" {list(entry.input_size)}: sides from 8 to 4096', where=where)
    return entry


def _field_error(error: ValidationError, where: str) -> UserError:
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"])) or "entry"
    known = list(IndexEntry.model_fields) if first["type"] == "extra_forbidden" else []
    said = {"extra_forbidden": "is not a field of an entry", "missing": "is missing"}
    return UserError(f'field "{field}" {said.get(first["type"], first["msg"])}', where=where, choices=known)
