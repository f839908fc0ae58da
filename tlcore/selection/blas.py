"""How many threads linear algebra uses while scores are computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

__all__ = ["calm_blas"]

SMALL = 1024
"""Up to this many images or features, whichever is fewer, linear algebra runs on one thread."""


class _CalmBlas:
    """One BLAS thread for small matrices.

    A scorer makes hundreds of calls too short to gain from threads; where other work wants the cores,
    waiting for the second thread in each of them made scoring twenty times slower (measured). The number of
    threads belongs to the process, so it is set by the first candidate that comes in and restored by the last
    one that leaves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limits: threadpool_limits | None = None

    @contextmanager
    def __call__(self, size: int) -> Iterator[None]:
        if size > SMALL:
            yield
            return
        with self._lock:
            if not self._inside:
                self._limits = threadpool_limits(limits=1, user_api="blas")
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside and self._limits is not None:
                    self._limits.restore_original_limits()


calm_blas = _CalmBlas()
"""`with calm_blas(min(n, D)): ...`; nests, and may be entered from several threads at once."""
