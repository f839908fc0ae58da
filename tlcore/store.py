"""The run store: content-addressed stage results, atomic, locked, resumable.

    stages/STAGE/KEY/   a finished stage: value.json and its files; exists complete or not at all
    work/STAGE/KEY/     what a stage may leave behind to resume from (training checkpoints)
    runs/RUN_ID/        run.json, card.html, model.onnx, config.json
    locks/              one lock per stage and key; the system frees it when its process dies
    remote.json         the shared store that this folder is the local cache of, where there is one

A stage works in a temporary folder that is renamed when it is done, so a reader never sees half a
result and `kill -9` leaves nothing that looks finished.

With a shared store (`tlcore.store_remote`) a result that is not here is looked for there and downloaded, and
every result goes there when it is done. One that was deleted there comes back: of each result that is found
here, an opened store asks at its first look, and every TRUSTED_SECONDS, whether it is still there. What a
killed stage resumes from, and the runs, stay here.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

import tlcore
from tlcore.errors import RetryableError, TlcoreError, UserError
from tlcore.store_remote import Remote, cache_folder, is_url
from tlcore.values import Json, Ref

__all__ = ["STORE_API", "Store", "Work", "content_key", "write_text"]

STORE_API = 1
"""Raised when the meaning of stored results changes: old entries are then never read."""

TRUSTED_SECONDS = 600.0
"""How long a result that was seen in the shared store is believed to be there: about one run."""

_VALUE = "value.json"
_REMOTE = "remote.json"
_Model = TypeVar("_Model", bound=BaseModel)


_LIBRARIES = (
    "numpy", "onnx", "onnxruntime", "pillow", "scikit-learn", "scipy", "timm", "torch", "torchvision",
)  # fmt: skip


@functools.cache
def _libraries() -> dict[str, str]:
    """Versions whose change may change a result: an upgrade must not be answered from the cache."""
    return {name: version(name) for name in _LIBRARIES}


def content_key(document: Mapping[str, Json]) -> str:
    """40 hex digits of the SHA-256 of the canonical JSON, the store's format, and the versions that results hang on."""
    payload = {"tlcore": tlcore.__version__, "store": STORE_API, "libraries": _libraries(), **document}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def write_text(path: Path, text: str) -> None:
    """Replace `path` in one step; a reader sees the old text or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class Work:
    """Where a stage writes. `folder` becomes the result; `scratch` survives a kill and is emptied at the end."""

    folder: Path
    scratch: Path

    def write(self, value: BaseModel) -> None:
        """Set the stage's value."""
        (self.folder / _VALUE).write_text(value.model_dump_json(indent=1, by_alias=True), encoding="utf-8")


class Store:
    """One store folder, and the shared store behind it where there is one."""

    def __init__(self, root: Path, remote: Remote | None = None) -> None:
        self.root = root
        self.remote = remote
        self._seen: dict[tuple[str, str], float] = {}

    @property
    def place(self) -> str:
        """What another process, on this machine or another, opens the same store with."""
        return str(self.root) if self.remote is None else self.remote.url

    @staticmethod
    def local_root(place: str | Path | None = None) -> Path:
        """The local folder of the store at `place`; nothing is made. See `open`."""
        given = place or os.environ.get("TLCORE_HOME") or ".tlcore"
        return cache_folder(_normal(given)) if is_url(given) else Path(given).expanduser().resolve()

    @classmethod
    def open(cls, place: str | Path | None = None, *, cache: Path | None = None) -> Store:
        """Open or make the store at `place`, else at $TLCORE_HOME, else at .tlcore in the current folder.

        Args:
            place: a folder, or the URL of a folder that machines share (s3://, gs://, file://, memory://, …).
            cache: with a URL, the local folder of its results; default: see `tlcore.store_remote.cache_folder`.

        Raises:
            UserError: it cannot be made or written, or the URL cannot be used.
            RetryableError: the shared store does not answer.
        """
        given = place or os.environ.get("TLCORE_HOME") or ".tlcore"
        root = cache.expanduser().resolve() if cache is not None else cls.local_root(given)
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("stages", "work", "runs", "locks"):
                (root / name).mkdir(exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=root):
                pass
        except OSError as error:
            raise _storage_error(error, root) from None
        return cls(root, _remote_of(root, _normal(given) if is_url(given) else None))

    def folder(self, ref: Ref) -> Path:
        """The folder of a finished stage.

        Raises:
            UserError: it is gone (the store was cleaned while the run went on, or moved).
        """
        path = (self.root / ref.path).resolve()
        inside = path.is_relative_to(self.root)
        if inside and self.remote is not None and not (path / _VALUE).is_file():
            self.find(ref.stage, ref.key)  # downloads what another machine made
        if not inside or not (path / _VALUE).is_file():
            raise UserError(
                f"the result of stage {ref.stage} is gone",
                where=str(path),
                hint="run the same command again; it is computed anew",
            )
        return path

    def read(self, ref: Ref, model: type[_Model]) -> _Model:
        """The value of a finished stage."""
        return model.model_validate_json((self.folder(ref) / _VALUE).read_text(encoding="utf-8"))

    def find(self, stage: str, key: str) -> Ref | None:
        """The finished stage, or None. With a shared store: what is found is here and there.

        Raises:
            RetryableError: the shared store does not answer.
        """
        ref = self._local(stage, key)
        if ref is not None:
            self._publish(stage, key)
            return ref
        if self.remote is None or not self.remote.has(stage, key):
            return None
        with self.lock(f"{stage}-{key}"):
            return self._local(stage, key) or self._fetched(stage, key)

    def _local(self, stage: str, key: str) -> Ref | None:
        path = self.root / "stages" / stage / key
        if not (path / _VALUE).is_file():
            return None
        return Ref(stage=stage, key=key, path=path.relative_to(self.root).as_posix())

    def _publish(self, stage: str, key: str) -> None:
        """Upload a finished result, unless it is there or was seen there a moment ago."""
        if self.remote is None or self._trusted(stage, key):
            return
        with self.lock(f"publish-{stage}-{key}"):
            if not self._trusted(stage, key):
                self.remote.publish(stage, key, self.root / "stages" / stage / key)
                self._seen[stage, key] = time.monotonic()

    def _trusted(self, stage: str, key: str) -> bool:
        seen = self._seen.get((stage, key))
        return seen is not None and time.monotonic() - seen < TRUSTED_SECONDS

    def _fetched(self, stage: str, key: str) -> Ref | None:
        """Download a result of another machine, in one step; None where there is none. The caller holds the lock."""
        final = self.root / "stages" / stage / key
        if self.remote is None:
            return None
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            self._sweep(final)
            folder = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{key}."))
            try:
                if not self.remote.fetch(stage, key, folder) or not (folder / _VALUE).is_file():
                    return None
                folder.replace(final)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            self._seen[stage, key] = time.monotonic()
        except OSError as error:
            raise _storage_error(error, self.root) from None
        return self._local(stage, key)

    def scratch(self, stage: str, key: str) -> Path:
        return self.root / "work" / stage / key

    def compute(
        self,
        stage: str,
        key: str,
        work: Callable[[Work], None],
        *,
        waiting: Callable[[], None] = lambda: None,
    ) -> tuple[Ref, bool]:
        """The stage's result and whether it was there already.

        `work` runs at most once at a time per key on this folder, whatever the number of processes; a
        second caller waits (after calling `waiting`) and reuses the result. Machines that share a store may
        both do the work: see `tlcore.store_remote`.

        Raises:
            RetryableError: the store ran out of space; nothing half-written stays. Or the shared store does
                not answer: the result is kept here, and goes there when it is looked for again.
        """
        found = self.find(stage, key)
        if found is not None:
            return found, True
        with self.lock(f"{stage}-{key}", waiting=waiting):
            found = self._local(stage, key) or self._fetched(stage, key)
            if found is not None:
                return found, True
            final = self.root / "stages" / stage / key
            scratch = self.scratch(stage, key)
            try:
                final.parent.mkdir(parents=True, exist_ok=True)
                scratch.mkdir(parents=True, exist_ok=True)
                self._sweep(final)
                folder = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{key}."))
            except OSError as error:
                raise _storage_error(error, self.root) from None
            try:
                work(Work(folder, scratch))
                if not (folder / _VALUE).is_file():
                    raise RuntimeError(f"stage {stage} wrote no value")
                folder.replace(final)
            except TlcoreError:
                raise
            except Exception as error:
                cause = self._storage_fault(error, folder)
                if cause is None:
                    raise
                raise _storage_error(cause, self.root) from None
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(scratch, ignore_errors=True)
            self._seen.pop((stage, key), None)
            self._publish(stage, key)
        return Ref(stage=stage, key=key, path=final.relative_to(self.root).as_posix()), False

    def _storage_fault(self, error: Exception, folder: Path) -> OSError | None:
        """The fault of the store behind an error, if there is one.

        Libraries that write files hide a full disk behind errors of their own, so it is tried here. A denied
        path counts only inside the store: elsewhere it is about the data.
        """
        if isinstance(error, OSError):
            inside = error.filename is None or str(error.filename).startswith(str(self.root))
            if error.errno in _FULL or (error.errno in _DENIED and inside):
                return error
        try:
            with (folder / ".probe").open("wb") as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as fault:
            return fault if fault.errno in _FULL else None
        return None

    def _sweep(self, final: Path) -> None:
        """Remove what a killed attempt at this key left; the lock is held, so nobody works in there."""
        shutil.rmtree(final, ignore_errors=True)  # it has no value, or it would have been found
        for left in final.parent.glob(f".{final.name}.*"):
            shutil.rmtree(left, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, name: str, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the named lock; it is freed by the system when the process dies."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.root / "locks" / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
        except OSError as error:
            raise _storage_error(error, self.root) from None
        try:
            yield
        finally:
            lock.release()


def _normal(url: str | Path) -> str:
    """One spelling per shared store, since the local folder is named after it."""
    return str(url).rstrip("/")


def _remote_of(root: Path, url: str | None) -> Remote | None:
    """The shared store of the local folder `root`: the one named now, else the one it was made for.

    Raises:
        UserError: the folder belongs to another shared store.
    """
    path = root / _REMOTE
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if known is None:
            if url is None:
                return None
            # Never the machine's name: two of them may be called alike.
            known = {"url": url, "upload": secrets.token_hex(8)}
            remote = Remote.open(known["url"], upload=known["upload"])
            write_text(path, json.dumps(known, indent=1))
            return remote
        if url is not None and known["url"] != url:
            raise UserError(f"this folder caches another store, {known['url']}", where=str(root))
        return Remote.open(known["url"], upload=known["upload"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError):
            raise _storage_error(error, root) from None
        raise UserError(
            f"not a description of a shared store: {error}", where=str(path), hint="delete the file"
        ) from None


_PROBE_BYTES = 2**20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


def _storage_error(error: OSError, place: Path) -> UserError | RetryableError:
    if error.errno in _FULL:
        return RetryableError(
            "the run store is out of space; nothing half-written was kept",
            where=str(place),
            hint="free some space and run the same command again: finished stages are kept",
        )
    return UserError(
        f"the run store cannot be written: {error.strerror or error}",
        where=str(place),
        hint="set TLCORE_HOME to a folder you may write, or pass --store FOLDER",
    )
