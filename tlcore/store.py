"""The run store: content-addressed stage results, atomic, locked, resumable.

    stages/STAGE/KEY/   a finished stage: value.json and its files; exists complete or not at all
    work/STAGE/KEY/     what a stage may leave behind to resume from (training checkpoints)
    runs/RUN_ID/        run.json, card.html, model.onnx, config.json
    locks/              one lock per stage and key; the system frees it when its process dies

A stage works in a temporary folder that is renamed when it is done, so a reader never sees half a
result and `kill -9` leaves nothing that looks finished.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

import tlcore
from tlcore.errors import RetryableError, TlcoreError, UserError
from tlcore.values import Json, Ref

__all__ = ["STORE_API", "Store", "Work", "content_key", "write_text"]

STORE_API = 1
"""Raised when the meaning of stored results changes: old entries are then never read."""

_VALUE = "value.json"
_Model = TypeVar("_Model", bound=BaseModel)


_LIBRARIES = ("numpy", "onnx", "onnxruntime", "pillow", "scikit-learn", "timm", "torch")


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
    """One store folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, root: str | Path | None = None) -> Store:
        """Open or make the store at `root`, else at $TLCORE_HOME, else at .tlcore in the current folder.

        Raises:
            UserError: it cannot be made or written.
        """
        place = Path(root or os.environ.get("TLCORE_HOME") or ".tlcore").expanduser().resolve()
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("stages", "work", "runs", "locks"):
                (place / name).mkdir(exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise _storage_error(error, place) from None
        return cls(place)

    def folder(self, ref: Ref) -> Path:
        """The folder of a finished stage.

        Raises:
            UserError: it is gone (the store was cleaned while the run went on, or moved).
        """
        path = (self.root / ref.path).resolve()
        if not path.is_relative_to(self.root) or not (path / _VALUE).is_file():
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
        """The finished stage, or None."""
        path = self.root / "stages" / stage / key
        return (
            Ref(stage=stage, key=key, path=path.relative_to(self.root).as_posix())
            if (path / _VALUE).is_file()
            else None
        )

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

        `work` runs at most once at a time per key on this store, whatever the number of processes; a
        second caller waits (after calling `waiting`) and reuses the result.

        Raises:
            RetryableError: the store ran out of space; nothing half-written stays.
        """
        found = self.find(stage, key)
        if found is not None:
            return found, True
        with self.lock(f"{stage}-{key}", waiting=waiting):
            found = self.find(stage, key)
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
