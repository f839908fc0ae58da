"""Batch normalisation folded into the convolution before it: the same function, a third of the time.

In eval mode batch norm is y = g (x - m) / sqrt(v + eps) + b with fixed m and v, channel by channel, so a
convolution W * x + a followed by it is one convolution with W' = s W and a' = s (a - m) + b, where
s = g / sqrt(v + eps).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["folded"]

# Exact types: a subclass may do more to its weights (weight standardisation, for one) than its base does.
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
NORMS = (nn.BatchNorm2d, BatchNormAct2d)


def folded(network: nn.Module, example: Tensor) -> tuple[nn.Module, int]:
    """A copy of an eval-mode network with batch norms folded away, and how many were.

    Which norm follows which convolution is not guessed from names or order but seen: `example`
    [1, 3, H, W] goes through once, up to the classifier, and a norm is folded when its input *is* the output of
    a convolution and both ran exactly once. (What this cannot see, a second reader of the convolution's
    output, shows when the copy is compared with the original: that is the caller's part.)

    timm's `BatchNormAct2d` is a batch norm with dropout and activation inside; those two stay in its place.
    """
    twin = copy.deepcopy(network)
    pairs = _pairs(twin, example)
    for conv, norm in pairs:
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
    norms = {id(norm) for _, norm in pairs}
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in norms:
                setattr(parent, name, _rest(child))
    return twin, len(pairs)


def _rest(norm: Any) -> nn.Module:
    """What a norm does beside normalising."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _pairs(network: nn.Module, example: Tensor) -> list[tuple[Any, Any]]:
    made: dict[int, nn.Module] = {}  # id of an output -> the convolution that made it
    kept: list[Tensor] = []  # keeps every output alive, so that no id is used twice
    runs: dict[nn.Module, int] = {}
    found: list[tuple[nn.Module, nn.Module]] = []

    def after_convolution(module: nn.Module, _: Any, output: Tensor) -> None:
        runs[module] = runs.get(module, 0) + 1
        made[id(output)] = module
        kept.append(output)

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        runs[module] = runs.get(module, 0) + 1
        maker = made.get(id(inputs[0]))
        if maker is not None:
            found.append((maker, module))

    hooks = []
    for module in network.modules():
        if type(module) in CONVOLUTIONS:
            hooks.append(module.register_forward_hook(after_convolution))
        elif type(module) in NORMS and getattr(module, "running_var", None) is not None:
            hooks.append(module.register_forward_pre_hook(before_norm))
    try:
        with torch.inference_mode():
            timm_network: Any = network
            timm_network.forward_head(timm_network.forward_features(example), pre_logits=True)
    finally:
        for hook in hooks:
            hook.remove()
    return [(conv, norm) for conv, norm in found if runs[conv] == runs[norm] == 1]
