"""What a process that computes sets once: threads, and memory that is kept."""

from __future__ import annotations

import ctypes
import functools
import sys

__all__ = ["settle"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h of glibc
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


def settle(threads: int, device: str) -> None:
    """Use `threads` processor threads (0: all), and keep freed memory for the next step.

    Training frees and takes the same large blocks in every step. By default glibc hands them back to the
    system each time, and every page is cleared anew: measured on 2 cores, mobilenetv1_100 at 224 px trains
    1.2 to 1.35 times as fast when they are kept.
    """
    if device == "cpu":
        import torch

        everything = _all_threads()
        torch.set_num_threads(threads or everything)
    _keep_freed_memory()


@functools.cache
def _all_threads() -> int:
    """What torch would use by itself, before any run set another number."""
    import torch

    return torch.get_num_threads()


@functools.cache
def _keep_freed_memory() -> None:
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another libc
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_TRIM_THRESHOLD, 2**30)
    mallopt(_TOP_PAD, 64 * 2**20)
