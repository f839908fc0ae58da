"""Paths that people give: found or explained, and kept inside their root."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Literal

from tlcore.errors import UserError

__all__ = ["existing", "is_inside"]


def existing(path: str | Path, kind: Literal["folder", "file"]) -> Path:
    """The absolute path of a folder or file that is there; `~` is expanded, links are resolved.

    Raises:
        UserError: nothing there (with the nearest sibling's name), or a file where a folder should be
            and the other way round.
    """
    given = Path(path).expanduser()
    if "\0" in str(given) or not str(path).strip():
        raise UserError(f"not a path: {str(path)!r}")
    found = Path(os.path.realpath(given))
    wanted, other = (os.path.isdir, os.path.isfile) if kind == "folder" else (os.path.isfile, os.path.isdir)
    if wanted(found):
        return found
    if other(found):
        hint = (
            "name the folder that holds the class folders"
            if kind == "folder"
            else "name the file itself; a folder of class folders is read by image-folder"
        )
        raise UserError(f"not a {kind}", where=str(given), hint=hint)
    near = difflib.get_close_matches(found.name, _siblings(found), n=1, cutoff=0.6)
    raise UserError(
        f"no such {kind}" + (f'; did you mean "{found.parent / near[0]}"?' if near else ""), where=str(given)
    )


def _siblings(path: Path) -> list[str]:
    try:
        return [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return []


def is_inside(path: str | Path, root: Path) -> bool:
    """Whether `path`, with all links and ".." resolved, is `root` or lies below it. `root` must be resolved."""
    return Path(os.path.realpath(path)).is_relative_to(root)
