"""The most memory that this process held during some work, where the kernel says it: Linux."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Peak", "peak_memory"]

_PROC = Path("/proc/self")


@dataclass
class Peak:
    """mb: resident memory at its highest; before_mb: when the work began. None: not measured."""

    before_mb: float | None = None
    mb: float | None = None

    @property
    def added_mb(self) -> float | None:
        return None if self.mb is None or self.before_mb is None else max(0.0, self.mb - self.before_mb)


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """Forget the highest mark (5 into clear_refs, see man 5 proc), work, and read it again.

    What was freed and kept for the next step is given back before, so that cells do not inherit it from each other.
    """
    found = Peak()
    gc.collect()
    if (_PROC / "clear_refs").exists():
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc
            trim(0)
        with contextlib.suppress(OSError):
            (_PROC / "clear_refs").write_text("5", encoding="ascii")
            found.before_mb = _status("VmRSS")
    yield found
    if found.before_mb is not None:
        found.mb = _status("VmHWM")


def _status(name: str) -> float:
    for line in (_PROC / "status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return float("nan")
