"""The folded graph through torch.compile, weights frozen into the code."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from tlcore.features.engines.float32 import fold
from tlcore.features.engines.graph import FeatureGraph, Prepared

__all__ = ["compiled"]

_COMPILING = threading.Lock()


def compiled(graph: FeatureGraph, example: Tensor, *, batch: int, narrow: bool) -> Prepared:
    """torch.compile (inductor) with `freezing`: weights are laid out anew and activations fused into convolutions.

    Args:
        batch: images that go through together, always; code for one fixed shape is faster and compiled once.
        narrow: weights and activations in bfloat16.
    """
    twin, count = fold(graph, example)
    dtype = torch.bfloat16 if narrow else torch.float32
    twin.to(dtype=dtype)
    program = torch.compile(twin, fullgraph=True, dynamic=False, options={"freezing": True})

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            outputs: tuple[Tensor, ...] = program(images)
        return outputs

    with _COMPILING:
        # One code object serves all networks: what earlier ones left there would count as recompilations of it.
        torch._dynamo.reset()
        zeros = torch.zeros((batch, *example.shape[1:]), dtype=dtype)
        run(zeros.to(memory_format=torch.channels_last))
    return Prepared(run, dtype=dtype, batch=batch, folded=count)
