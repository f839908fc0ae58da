"""What one image costs a network, by kind of work: counted, not timed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["CountWork", "Work"]

aten = torch.ops.aten
_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    aten._scaled_dot_product_attention_math.default,
    aten._scaled_dot_product_attention_math_for_mps.default,
}
_NORM = {
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.cudnn_batch_norm.default,
}
_MATMUL = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default}


@dataclass(frozen=True)
class Work:
    """Work on one image. Multiply-accumulates and elements in billions.

    Attributes:
        dense: multiply-accumulates of convolutions with more than one channel a group; depthwise: of the others.
        linear: of matrix products; attention: of both products of attention.
        norm: elements that batch norms write, which folding saves.
        elementwise: elements that everything else writes: activations, layer norms, sums, copies.
        operators: that write anything.
        attention_matrix: elements of the largest attention matrix, all heads.
    """

    dense: float = 0.0
    depthwise: float = 0.0
    linear: float = 0.0
    attention: float = 0.0
    norm: float = 0.0
    elementwise: float = 0.0
    operators: int = 0
    attention_matrix: int = 0

    @property
    def gmacs(self) -> float:
        """Billions of multiply-accumulates."""
        return self.dense + self.depthwise + self.linear + self.attention


class CountWork(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Counts what runs inside the `with` block.

        with torch.no_grad(), CountWork() as counted:
            network(images)
        counted.per_image(len(images))

    Multiply-accumulates are half the operations that torch.utils.flop_counter knows for the same operators.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sums: dict[str, float] = dict.fromkeys(
            ("dense", "depthwise", "linear", "attention", "norm", "elementwise"), 0.0
        )
        self._operators = 0
        self._matrix = 0

    def per_image(self, images: int) -> Work:
        """Means over `images`, which ran inside the block in one batch."""
        means = {kind: total / images / 1e9 for kind, total in self._sums.items()}
        matrix = math.ceil(self._matrix / images)
        return replace(Work(), **means, operators=self._operators, attention_matrix=matrix)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple | list) and out else out
        if isinstance(first, Tensor) and not func.is_view:
            self._operators += 1
            self._count(func, args, first)
        return out

    def _count(self, func: Any, args: tuple[Any, ...], out: Tensor) -> None:
        if func is aten.convolution.default:
            weight = args[1]  # [out, in / groups, ...]
            kind = "depthwise" if weight.shape[1] == 1 else "dense"
            self._sums[kind] += out.numel() * math.prod(weight.shape[1:])
        elif func in _MATMUL:
            left = args[-2]  # addmm and baddbmm take the summand first
            self._sums["linear"] += out.numel() * left.shape[-1]
        elif func in _ATTENTION:
            query, key = args[0], args[1]
            matrix = math.prod(query.shape[:-1]) * key.shape[-2]
            self._sums["attention"] += matrix * (query.shape[-1] + out.shape[-1])
            self._matrix = max(self._matrix, matrix)
        elif func is aten._native_multi_head_attention.default:
            self._count_fused(args)
        else:
            self._sums["norm" if func in _NORM else "elementwise"] += out.numel()

    def _count_fused(self, args: tuple[Any, ...]) -> None:
        """torch's one operator for a whole `nn.MultiheadAttention`: three projections, two products, a projection."""
        query, width, heads = args[0], args[3], args[4]  # [images, tokens, width]
        images, tokens = query.shape[:2]
        self._sums["linear"] += 4 * images * tokens * width * width
        self._sums["attention"] += 2 * images * tokens * tokens * width
        self._matrix = max(self._matrix, images * heads * tokens * tokens)
