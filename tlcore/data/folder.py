"""Reading a folder of images: a folder per class, with or without split folders above the classes."""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tlcore.data.image_file import IMAGE_SUFFIXES
from tlcore.data.paths import existing, is_inside
from tlcore.data.schema import image_table
from tlcore.errors import UserError
from tlcore.values import Dataset

__all__ = ["SPLIT_FOLDERS", "read_folder"]

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Folder name (lower case) -> split."""

LAYOUT = (
    "a folder per class, FOLDER/CLASS/image.jpg, or splits above them, FOLDER/train/CLASS/image.jpg; "
    "for unlabelled target images a flat folder will do (--target)"
)

_log = logging.getLogger(__name__)

Parts = tuple[str, ...]
"""A path relative to the root, as its names."""


@dataclass
class _Found:
    """What lies below a root."""

    images: list[Parts] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)
    outside: list[str] = field(default_factory=list)
    without_images: list[str] = field(default_factory=list)


def read_folder(
    path: str, *, labelled: bool = True, folders: Literal["classes", "ignored"] = "classes"
) -> Dataset:
    """The images below `path` as a table; nothing is decoded.

    The folder below the root (or below train, val, valid, validation, test in any case) is the class; images in
    folders nested in a class folder belong to the class. sample_id is the path relative to the root. Hidden files
    and folders are left out; files without an image's ending are counted in the log; a file with an image's
    ending is taken whatever it holds (the data check names it).

    Args:
        labelled: class folders are required. False: they give labels where they exist; where an image lies
            outside of one, no image gets a label.
        folders: "ignored": the folders' names mean nothing; no image gets a label or a split.

    Raises:
        UserError: no such folder, no image in it, images outside the class folders, split folders beside class
            folders, a link that leaves the root, a name that is not UTF-8, a folder that may not be read.
    """
    root = existing(path, "folder")
    found = _scan(root)
    if found.outside:
        raise UserError(
            f"{len(found.outside)} links leave the folder: {_some(found.outside)}",
            where=str(root),
            hint="copy the files here, or list them in a manifest whose root holds them all",
        )
    if not found.images:
        holds = f"; it holds {_kinds(found.other)}" if found.other else ""
        raise UserError(
            f"no images in this folder{holds}",
            where=str(root),
            choices=sorted(IMAGE_SUFFIXES),
            hint=f"expected {LAYOUT}",
        )
    if found.other:
        _log.warning(
            "%s: ignored %d files without an image's ending (%s)",
            root,
            found.other.total(),
            _kinds(found.other),
        )
    if found.without_images and folders == "classes":
        _log.warning("%s: ignored folders without images: %s", root, _some(found.without_images))
    images = sorted(found.images)
    splits, labels = (
        ([None] * len(images), [None] * len(images))
        if folders == "ignored"
        else _read_names(root, images, labelled)
    )
    return image_table(
        root.name,
        sample_ids=["/".join(parts) for parts in images],
        uris=[os.path.join(root, *parts) for parts in images],  # noqa: PTH118 - a Path a row is slow
        labels=labels,
        splits=splits,
    )


def _read_names(root: Path, images: list[Parts], labelled: bool) -> tuple[list[str | None], list[str | None]]:
    """Splits and labels from the folders' names."""
    tops = {parts[0] for parts in images if len(parts) > 1}
    named = {top for top in tops if top.lower() in SPLIT_FOLDERS}
    above = bool(named) and named == tops
    if named and not above and any(parts[0] in named and len(parts) > 2 for parts in images):
        raise UserError(
            f"split folders ({_some(sorted(named))}) lie beside other folders ({_some(sorted(tops - named))})",
            where=str(root),
            hint=f"move the other folders away, or put them into the splits: expected {LAYOUT}",
        )
    rest = [parts[1:] if above and len(parts) > 1 else parts for parts in images]
    loose = ["/".join(parts) for parts, names in zip(images, rest, strict=True) if len(names) == 1]
    if loose and labelled:
        all_loose = len(loose) == len(images)
        raise UserError(
            "no class folders: the images have no labels"
            if all_loose
            else f"{len(loose)} images lie outside the class folders: {_some(loose)}",
            where=str(root),
            hint=f"expected {LAYOUT}",
        )
    splits = [SPLIT_FOLDERS[parts[0].lower()] if above and len(parts) > 1 else None for parts in images]
    labels = [None if loose else names[0] for names in rest]
    return splits, labels


def _scan(root: Path) -> _Found:
    found = _Found()
    _walk(root, root, (), found)
    return found


def _walk(root: Path, folder: Path, above: Parts, found: _Found) -> int:
    """Collect what lies in `folder`; returns how many images there are in it and below."""
    try:
        with os.scandir(folder) as entries:
            listing = sorted(
                (entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name
            )
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where=str(folder)) from None
    count = 0
    for entry in listing:
        parts = (*above, entry.name)
        if not entry.name.isprintable():
            # Undecodable bytes arrive as lone surrogates, which no table, JSON or HTML file can hold.
            raise UserError(
                f"a name that cannot be shown: {entry.name!r}",
                where=str(folder),
                hint="rename the file or folder (UTF-8, no control characters)",
            )
        if entry.is_symlink():
            if not is_inside(entry.path, root):
                found.outside.append("/".join(parts))
                continue
            if entry.is_dir():
                continue  # what it leads to is listed under its own name
        if entry.is_dir():
            below = _walk(root, folder / entry.name, parts, found)
            if below == 0:
                found.without_images.append("/".join(parts))
            count += below
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122 - a Path a row is slow
            found.images.append(parts)
            count += 1
        else:
            found.other[os.path.splitext(entry.name)[1].lower() or "no ending"] += 1  # noqa: PTH122 - the same
    return count


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def _kinds(other: Counter[str]) -> str:
    return ", ".join(f"{count} {ending}" for ending, count in other.most_common(5))
