"""Weights and activations in bfloat16."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tlcore.features.engines.float32 import eager, fold
from tlcore.features.engines.graph import FeatureGraph, Prepared

__all__ = ["bfloat16"]

LARGEST_MATRIX = 2**20
"""Elements of an attention matrix (all heads of one image) that may lie in memory: 128 MiB for 64 images."""


def bfloat16(graph: FeatureGraph, example: Tensor, *, attention_matrix: int, matrix_unit: bool) -> Prepared:
    """The folded graph in bfloat16, in channels_last order.

    Where bfloat16 is multiplied by vector instructions, attention runs as two products and a softmax instead of
    torch's fused kernel, which is no faster in bfloat16 than in float32 there (measured on AVX512_BF16, one core,
    vit_tiny at 224 px: 4.2 against 6.8 ms an image for all attention).

    Args:
        attention_matrix: elements of the largest attention matrix of an image; larger ones stay fused.
        matrix_unit: the hardware has matrix units, for which the fused kernel is made.
    """
    twin, count = fold(graph, example)
    if example.device.type == "cpu" and not matrix_unit and attention_matrix <= LARGEST_MATRIX:
        for module in twin.modules():
            if getattr(module, "fused_attn", False) is True:  # timm's switch
                module.fused_attn = False  # type: ignore[assignment]  # a plain bool, no submodule
    twin.to(dtype=torch.bfloat16)
    return replace(eager(twin), dtype=torch.bfloat16, folded=count)
