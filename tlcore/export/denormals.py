"""ONNX Runtime may count the smallest numbers as zero; the thread that called it must not go on doing so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["denormals_kept"]


@contextmanager
def denormals_kept() -> Iterator[None]:
    """Around a session with `session.set_denormal_as_zero`: it sets a flag of the processor for the calling thread too,
    and leaves it set, so that 2^-1074 is 0 in whatever that thread computes afterwards."""
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
