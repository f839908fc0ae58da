"""How many threads linear algebra uses while scores are computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

__all__ = ["calm_blas"]

SMALL = 1024
"""Up to this many images or features, whichever is fewer, linear algebra runs on one thread."""
_ONE_AT_A_TIME = threading.Lock()
_this_thread = threading.local()


@contextmanager
def calm_blas(size: int) -> Iterator[None]:
    """One BLAS thread for small matrices: `with calm_blas(min(n, D)): ...`.

    A scorer makes hundreds of calls too short to gain from threads; where other work wants the cores,
    waiting for the second thread in each of them made scoring twenty times slower (measured). The number of
    threads belongs to the process, hence the lock: two candidates at once must not restore each other's. Nor
    may the last one to leave restore what the first one set: OpenBLAS ignores a larger number from another
    thread than the one that lowered it (measured).
    """
    # A scorer that asks for calm itself may be inside already; finding the libraries anew takes 2 ms.
    if size > SMALL or getattr(_this_thread, "calm", False):
        yield
        return
    import scipy.linalg  # noqa: F401 - brings a BLAS of its own, and a limit holds only for what is loaded

    with _ONE_AT_A_TIME, threadpool_limits(limits=1, user_api="blas"):
        _this_thread.calm = True
        try:
            yield
        finally:
            _this_thread.calm = False
