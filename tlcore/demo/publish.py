"""Folders that are there whole or not at all, and are made again only when their recipe changed."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from tlcore.errors import RetryableError, TlcoreError, UserError

__all__ = ["published"]


def published(folder: Path, fingerprint: str, fill: Callable[[Path], None]) -> bool:
    """Make sure that `folder` holds what `fill` writes for `fingerprint`; whether it was there already.

    `fill` writes into a hidden folder beside it, which takes the name at the end. An interrupted `fill` finds that
    folder again, with what it had written. A second process waits for the first.

    Raises:
        UserError: the folder holds something else, or cannot be written.
        RetryableError: the disk is full.
    """
    stamp = folder.parent / f".{folder.name}.json"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if folder.is_dir() and _stamped(stamp) == fingerprint:
                return True
            if folder.exists() and _stamped(stamp) is None and (not folder.is_dir() or any(folder.iterdir())):
                raise UserError(
                    "is there already and was not made by the demo",
                    where=str(folder),
                    hint="name another folder",
                )
            partial = folder.parent / f".{folder.name}.{fingerprint[:12]}.partial"
            partial.mkdir(exist_ok=True)
            fill(partial)
            # Without its stamp the old folder would not be recognised as ours: the stamp goes first to a value
            # that fits neither, so that a crash between the next lines leads to a fresh start and never to a mix.
            stamp.write_text(json.dumps({"fingerprint": "being replaced"}), encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
            stamp.write_text(json.dumps({"fingerprint": fingerprint}), encoding="utf-8")
            return False
    except TlcoreError:
        raise
    except OSError as error:
        kind = RetryableError if error.errno in (errno.ENOSPC, errno.EDQUOT) else UserError
        raise kind(
            f"cannot be written: {error.strerror or error}",
            where=str(folder),
            hint="make room or name a folder that can be written",
        ) from error


def _stamped(stamp: Path) -> str | None:
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
        return str(content["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
