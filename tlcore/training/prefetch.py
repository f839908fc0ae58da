"""Batches made beside the training step, by as many threads as are measured to pay."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from tlcore.training.processes import usable_processors

__all__ = ["Prefetcher"]

_Made = TypeVar("_Made")

_SMALL = 0.03
"""Share of a step up to which making its batch is not worth a thread."""
_TRIALS = (0, 1, 2, 4)
_STEPS = 8
"""Steps that each number of threads is timed for."""
_GAIN = 0.97
"""Of the time before, at most, for another thread to be kept."""


class Prefetcher(Generic[_Made]):
    """`make(step)` for steps in order, the same values whatever the number of threads.

    Starts without a thread. Where making batches takes more than a small share of the time between two of them, one,
    two and four threads, and no more than there are processors (each holds batches), are tried for some steps each, while
    that helps.

    Attributes:
        workers: threads in use.
    """

    def __init__(self, make: Callable[[int], _Made], first: int, last: int) -> None:
        self._make, self._next, self._last = make, first, last
        self.workers = 0
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: dict[int, Future[_Made]] = {}
        self._measuring = True
        self._count, self._busy, self._began = 0, 0.0, time.perf_counter()
        self._best: tuple[float, int] | None = None

    def get(self, step: int) -> _Made:
        """The value of this step. Out of order it is made anew."""
        if step != self._next:
            self._forget()
        self._next = step + 1
        if self._measuring:
            self._judge()
        started = time.perf_counter()
        waited = self._waiting.pop(step, None)
        value = self._make(step) if waited is None else waited.result()
        self._busy += time.perf_counter() - started
        self._count += 1
        self._fill()
        return value

    def close(self) -> None:
        """End the threads; what they have begun is finished first."""
        self._forget()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _fill(self) -> None:
        if not self.workers:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max(_TRIALS), thread_name_prefix="batches")
        for ahead in range(self._next, min(self._last, self._next + self.workers + 1)):
            if ahead not in self._waiting:
                self._waiting[ahead] = self._pool.submit(self._make, ahead)

    def _forget(self) -> None:
        for waiting in self._waiting.values():
            waiting.cancel()
        self._waiting.clear()

    def _judge(self) -> None:
        """After some steps with a number of threads: keep it, try more, or go back."""
        if self._count < _STEPS:
            if self._count == 1:  # the first step warms up: time from the second on
                self._began, self._busy = time.perf_counter(), 0.0
            return
        spent = (time.perf_counter() - self._began) / (_STEPS - 1)
        if self._best is None and self._busy / (_STEPS - 1) < _SMALL * spent:
            self._measuring = False
            return
        if self._best is not None and spent > _GAIN * self._best[0]:
            self.workers, self._measuring = self._best[1], False
            return
        self._best = (spent, self.workers)
        more = [workers for workers in _TRIALS if self.workers < workers <= usable_processors()]
        if not more:
            self._measuring = False
            return
        self.workers, self._count, self._busy = more[0], 0, 0.0
