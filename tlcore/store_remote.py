"""Finished stage results on a file system that several machines share: s3://, gs://, file://, memory://, …

    stages/STAGE/KEY/UPLOAD/…       the files of one upload; nothing reads them until an entry names them
    stages/STAGE/KEY/entry.json     written last, in one step: the upload that counts, each file's size and SHA-256

A reader sees an entry whole or not at all: an upload that was killed has no entry, and its next attempt writes
over what it left. There is no lock between machines, and none is needed: a key is the content-address of
everything that goes into a result, so that two machines that work on one key at once make the same result
twice. The entry that is written last counts, and both uploads stay complete.

Whoever may write here decides what the readers compute with. Nothing in here is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tlcore.errors import RetryableError, TlcoreError, UserError

__all__ = ["Remote", "cache_folder", "is_url"]

_ENTRY = "entry.json"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+::)*[A-Za-z][A-Za-z0-9+.\-]+://")  # a drive letter is a path
_PLACES = "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, file:///FOLDER, or a folder without a protocol"
_BLOCK = 2**20


def is_url(place: object) -> bool:
    """Whether a store's place is a URL and not a folder."""
    return isinstance(place, str) and _URL.match(place) is not None


def cache_folder(url: str) -> Path:
    """The local folder of the shared store at `url`: below $TLCORE_CACHE, else below the user's cache folder.

    Raises:
        UserError: no store can be at such a URL.
    """
    _refuse_unusable(url)
    base = os.environ.get("TLCORE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "tlcore"
    return Path(base).expanduser().resolve() / hashlib.sha256(url.encode()).hexdigest()[:16]


class Remote:
    """The shared side of a store.

    Args:
        url: where it is, as fsspec writes it.
        files: the fsspec file system, and `root` the place in it.
        upload: name of this cache's uploads. Two caches must not share it.
    """

    def __init__(self, url: str, files: Any, root: str, *, upload: str) -> None:
        self.url = url
        self._files = files
        self._root = root.rstrip("/")
        self._upload = upload

    @classmethod
    def open(cls, url: str, *, upload: str) -> Remote:
        """Connect, and make the folder where the file system has folders.

        Raises:
            UserError: an unknown protocol, a package that it needs is missing, or access is denied.
            RetryableError: it does not answer.
        """
        made = cls(url, None, "", upload=upload)
        with made._faults():
            files, root = _file_system(url)
            made._files, made._root = files, root.rstrip("/")
            files.makedirs(f"{made._root}/stages", exist_ok=True)
            made._look("none", "none")
        return made

    @property
    def shared_between_processes(self) -> bool:
        return not self.url.startswith("memory:")

    def has(self, stage: str, key: str) -> bool:
        """Whether a whole result is there."""
        with self._faults():
            return self._look(stage, key) is not None

    def fetch(self, stage: str, key: str, folder: Path) -> bool:
        """Download a result into the empty `folder`; False where there is none.

        Raises:
            RetryableError: it does not answer, or what came is not what was written.
        """
        with self._faults():
            entry = self._look(stage, key)
            if entry is None:
                return False
            for name, (size, digest) in entry["files"].items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                source = f"{self._place(stage, key)}/{entry['upload']}/{name}"
                try:
                    self._files.get_file(source, str(target))
                    found = target.stat().st_size == size and _sha256(target) == digest
                except FileNotFoundError:
                    found = False
                if not found:
                    # Nobody who has the result sees this: without its entry, they upload it anew.
                    raise RetryableError(
                        f"{name} of stage {stage} is not what was written there",
                        where=f"{self.url}/stages/{stage}/{key}",
                        hint="delete that folder and run the same command again",
                    )
        return True

    def publish(self, stage: str, key: str, folder: Path) -> None:
        """Upload a finished result, unless one is there. The entry comes last and in one step.

        Raises:
            UserError: access is denied.
            RetryableError: it does not answer, or is full.
        """
        with self._faults():
            if self._look(stage, key) is not None:
                return
            place = self._place(stage, key)
            files: dict[str, tuple[int, str]] = {}
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = path.relative_to(folder).as_posix()
                target = f"{place}/{self._upload}/{name}"
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(path), target)
                files[name] = (path.stat().st_size, _sha256(path))
            text = json.dumps({"upload": self._upload, "files": files}, indent=1)
            waiting = f"{place}/{self._upload}.{_ENTRY}"
            self._files.pipe_file(waiting, text.encode())
            # A rename where the file system has folders; one atomic copy where it is a store of objects.
            self._files.mv(waiting, f"{place}/{_ENTRY}")

    def _place(self, stage: str, key: str) -> str:
        return f"{self._root}/stages/{stage}/{key}"

    def _look(self, stage: str, key: str) -> dict[str, Any] | None:
        try:
            text = self._files.cat_file(f"{self._place(stage, key)}/{_ENTRY}")
        except FileNotFoundError:
            return None
        try:
            entry = json.loads(text)
            names = [PurePosixPath(entry["upload"]), *map(PurePosixPath, entry["files"])]
            sound = all(len(row) == 2 for row in entry["files"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            names, sound = [], False
        if not sound or any(name.is_absolute() or ".." in name.parts for name in names):
            raise UserError(
                "not an entry of a store",
                where=f"{self.url}/stages/{stage}/{key}/{_ENTRY}",
                hint="delete that folder and run the same command again",
            )
        found: dict[str, Any] = entry
        return found

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Whatever the file system's client raises, as an error of tlcore."""
        try:
            yield
        except TlcoreError:
            raise
        except Exception as error:  # noqa: BLE001 - every file system has exceptions of its own
            reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            # Clients have exceptions of their own for a caller without rights.
            if (
                isinstance(error, PermissionError | NotADirectoryError)
                or "Credential" in type(error).__name__
            ):
                raise UserError(
                    f"the shared store cannot be used: {reason}",
                    where=self.url,
                    hint="check its name and your rights there, or pass --store FOLDER",
                ) from None
            raise RetryableError(
                f"the shared store does not answer: {reason}",
                where=self.url,
                hint="run the same command again: finished stages are kept",
            ) from None


def _refuse_unusable(url: str) -> None:
    """What fsspec would take for something else: a URL without a place, and one file system over another."""
    if "::" in url:
        raise UserError("a store lies on one file system, not on a chain of them", where=url, hint=_PLACES)
    if not url.partition("://")[2].strip("/"):
        raise UserError("this URL names no place for a store", where=url, hint=_PLACES)


def _file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the place in it; anything but a UserError is the file system's own."""
    from fsspec.core import url_to_fs

    _refuse_unusable(url)
    protocol = url.partition("://")[0]
    try:
        # Another machine may have written since the last look.
        files, root = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise UserError(
            f"a package for this kind of store is missing: {error}",
            where=url,
            hint=f"pip install the package that fsspec names for {protocol}://",
        ) from None
    except ValueError as error:
        raise UserError(f"no file system for this store: {error}", where=url, hint=_PLACES) from None
    except (TypeError, AttributeError, IsADirectoryError):
        # Its class asks for arguments that no URL holds (reference://, github:// without a repository).
        raise UserError(
            f"no file system for this store: {protocol}:// cannot be opened by this URL alone",
            where=url,
            hint=_PLACES,
        ) from None
    return files, str(root)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
