"""Depthwise convolutions under bf16 on a processor: forward in bf16, the slow parts of backward in float32.

oneDNN has no fast bf16 kernel for a depthwise convolution's weight gradient, nor for its input gradient where the
stride is above 1: measured on AVX512_BF16, torch 2.15, [32, 288, 14, 14], 5 x 5, stride 2: 96 and 31 ms in bf16,
0.8 and 6 ms in float32. Whole steps of mobilenetv3 and its like are slower under plain autocast than in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

__all__ = ["DepthwiseInFloat32"]


class DepthwiseInFloat32(TorchFunctionMode):
    """While it is entered inside an autocast region, two-dimensional depthwise convolutions on the processor give
    what autocast gives, bit for bit, and gradients that are more exact and faster."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7 and _concerned(*args):
            x, weight, bias, stride, padding, dilation, groups = args
            with torch.autocast("cpu", enabled=False):
                return _Depthwise.apply(
                    x, weight, bias, _pair(stride), _pair(padding), _pair(dilation), groups
                )
        return func(*args, **(kwargs or {}))


def _concerned(
    x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> bool:
    return (
        1 < groups == len(weight)
        and weight.shape[1] == 1
        and weight.dtype == torch.float32
        and x.device.type == "cpu"
        and not isinstance(padding, str)
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[1]) if len(value) > 1 else (value[0], value[0])


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int,
    ) -> Tensor:  # fmt: skip
        low = x.to(torch.bfloat16)
        ctx.save_for_backward(low, weight)
        ctx.where = stride, padding, dilation, False, (0, 0), groups
        ctx.kind, ctx.bias = x.dtype, bias is not None
        made: Tensor = torch.ops.aten.convolution(
            low,
            weight.to(torch.bfloat16),
            None if bias is None else bias.to(torch.bfloat16),
            stride,
            padding,
            dilation,
            False,
            (0, 0),
            groups,
        )
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Any, ...]:
        low, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = (
            ctx.needs_input_grad[0],
            ctx.needs_input_grad[1],
            ctx.bias and ctx.needs_input_grad[2],
        )
        sizes = [len(weight)] if ctx.bias else None
        gradient = torch.ops.aten.convolution_backward
        grad_x = grad_weight = grad_bias = None
        fast = max(ctx.where[0]) == 1  # the one bf16 kernel that is fast
        if of_x and fast:
            half = weight.to(torch.bfloat16)
            grad_x = gradient(slope, low, half, sizes, *ctx.where, (True, False, False))[0]
        if of_weight or of_bias or (of_x and not fast):
            wanted = (of_x and not fast, of_weight, of_bias)
            found = gradient(slope.float(), low.float(), weight, sizes, *ctx.where, wanted)
            grad_x = found[0] if wanted[0] else grad_x
            grad_weight, grad_bias = found[1], found[2]
        if grad_x is not None:
            grad_x = grad_x.to(ctx.kind)
        return grad_x, grad_weight, grad_bias, None, None, None, None
