"""From the names in a plan to optimisers: who may change, how fast."""

from __future__ import annotations

import fnmatch
import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlcore.errors import PluginError
from tlcore.training.network import Network
from tlcore.training.plan import Group, Move, Phase

__all__ = [
    "freeze_statistics", "learning_rate_factor", "make_optimizer", "rest_frozen_stages", "select", "trainable",
]  # fmt: skip

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


def select(network: Network, own: nn.Module | None, pattern: str) -> dict[str, nn.Parameter]:
    """The parameters that a group names.

    Raises:
        PluginError: the pattern matches nothing.
    """
    named = dict(network.named_parameters())
    if pattern == "objective":
        chosen = {f"objective.{name}": value for name, value in own.named_parameters()} if own else {}
    elif pattern == "all":
        chosen = named
    elif pattern in {"backbone", "bottleneck", "head"}:
        chosen = {name: value for name, value in named.items() if name.startswith(f"{pattern}.")}
    elif pattern.startswith("last:"):
        chosen = _last_stages(network, pattern)
    elif pattern == "norm":
        inside = {
            f"{prefix}.{name}"
            for prefix, module in network.named_modules()
            if isinstance(module, _NORMS)
            for name, _ in module.named_parameters(recurse=False)
        }
        chosen = {name: value for name, value in named.items() if name in inside}
    else:
        chosen = {name: value for name, value in named.items() if fnmatch.fnmatchcase(name, pattern)}
    if not chosen:
        raise PluginError(
            f'the parameter group "{pattern}" of the training plan matches nothing',
            choices=(
                "all",
                "backbone",
                "last:N",
                "bottleneck",
                "head",
                "norm",
                "objective",
                "a glob over parameter names",
            ),
        )
    return chosen


def _last_stages(network: Network, pattern: str) -> dict[str, nn.Parameter]:
    """The parameters of the backbone's last N stages, by timm's own coarse grouping of its layers; what follows the
    last stage (a final norm or convolution) belongs to it.

    Raises:
        PluginError: N is no number above 0, or the backbone does not say what its stages are.
    """
    from timm.models import group_parameters

    count = pattern.removeprefix("last:")
    if not count.isdecimal() or int(count) < 1:
        raise PluginError(f'"{pattern}" names no number of stages; write last:1, last:2, …')
    matcher = getattr(network.backbone, "group_matcher", None)
    if matcher is None:
        raise PluginError(
            f"a {type(network.backbone).__name__} does not say what its stages are",
            hint="train all of it, or the head",
        )
    groups = group_parameters(network.backbone, matcher(coarse=True), reverse=True)
    # A group of a few norm or pooling weights at the end is no stage: stages are what has matrices or filters.
    named = dict(network.backbone.named_parameters())
    top = _top_stage(network.backbone, groups)
    groups = {name: min(where, top) for name, where in groups.items()}
    order = sorted(set(groups.values()))
    heavy = [g for g in order if any(named[n].ndim > 1 for n, where in groups.items() if where == g)]
    first = heavy[-int(count)] if int(count) <= len(heavy) else order[0]
    return {f"backbone.{name}": named[name] for name, where in groups.items() if where >= first}


def _top_stage(backbone: nn.Module, groups: dict[str, int]) -> int:
    """The group of the last layer that gives feature maps: a convolution after the pooling (mobilenetv3) is no stage."""
    info = getattr(backbone, "feature_info", None)
    maps = [entry["module"] for entry in getattr(info, "info", info) or ()]
    inside = [where for name, where in groups.items() if maps and name.startswith(f"{maps[-1]}.")]
    return max(inside or groups.values())


def trainable(network: Network, own: nn.Module | None, phase: Phase) -> set[str]:
    """Mark what the phase's groups name as trainable, all else as frozen, and return the names."""
    names: set[str] = set()
    for move in phase.moves:
        for group in move.groups:
            names |= select(network, own, group.parameters).keys()
    for name, value in network.named_parameters():
        value.requires_grad_(name in names)
    return names


def make_optimizer(
    network: Network, own: nn.Module | None, phase: Phase, move: Move
) -> torch.optim.Optimizer | None:
    """The optimiser of one move; a parameter named by two groups belongs to the first. None without groups."""
    taken: set[str] = set()
    groups: list[dict[str, object]] = []
    for group in move.groups:
        chosen = {
            name: value for name, value in select(network, own, group.parameters).items() if name not in taken
        }
        taken |= chosen.keys()
        for share, values in _layered(network, group, chosen).items():
            groups += _split_decay(group, share, values)
    if not groups:
        return None
    # fused: one pass over each parameter instead of one per operation
    if phase.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=phase.momentum, nesterov=phase.momentum > 0, fused=True)
    return torch.optim.AdamW(groups, fused=True)


def _layered(
    network: Network, group: Group, chosen: dict[str, nn.Parameter]
) -> dict[float, list[nn.Parameter]]:
    """The parameters by their share of the group's rate: r^1 for the backbone's last layer, r^2 for the one below, …,
    and 1 for what is no part of the backbone.

    Raises:
        PluginError: the backbone does not say what its layers are.
    """
    if group.layer_decay == 1:
        return {1.0: list(chosen.values())}
    from timm.models import group_parameters

    matcher = getattr(network.backbone, "group_matcher", None)
    if matcher is None:
        raise PluginError(
            f"a {type(network.backbone).__name__} does not say what its layers are",
            hint="train it with layer_decay = 1",
        )
    layers = group_parameters(network.backbone, matcher(coarse=False), reverse=True)
    top = max(layers.values())
    parted: dict[float, list[nn.Parameter]] = {}
    for name, value in chosen.items():
        layer = layers.get(name.removeprefix("backbone."))
        below = 0 if layer is None or not name.startswith("backbone.") else top - layer + 1
        parted.setdefault(float(group.layer_decay**below), []).append(value)
    return parted


def _split_decay(group: Group, share: float, values: list[nn.Parameter]) -> list[dict[str, object]]:
    """Weight decay on matrices and filters alone: on biases and norm layers it only hurts."""
    decayed = [value for value in values if value.ndim > 1]
    plain = [value for value in values if value.ndim <= 1]
    made: list[dict[str, object]] = []
    for chosen, decay in ((decayed, group.weight_decay), (plain, 0.0)):
        if chosen:
            made.append(
                {"params": chosen, "lr": group.lr * share, "peak": group.lr * share, "weight_decay": decay}
            )
    return made


def learning_rate_factor(phase: Phase, step: int, steps: int) -> float:
    """Share of the peak rate at a step: linear warm-up, then constant, cosine to 0, or (1 + 10 p)^-0.75
    (Ganin et al. 2016, section 5.2.2), p being the progress after warm-up."""
    warm = int(phase.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    progress = (step - warm) / max(1, steps - warm)
    if phase.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if phase.schedule == "inverse":
        return float((1 + 10 * progress) ** -0.75)
    return 1.0


def freeze_statistics(network: Network) -> None:
    """The backbone's batch-norm layers in eval mode: they normalise by what they saw in pretraining."""
    for module in network.backbone.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def rest_frozen_stages(network: Network) -> None:
    """Parts of the backbone whose parameters are all frozen go to eval mode: their batch norm must not follow the batches
    that later stages learn from. Where nothing is trained at all, statistics are what a phase is about: left alone.
    """
    if not any(value.requires_grad for value in network.parameters()):
        return
    for module in network.backbone.modules():
        own = list(module.parameters())
        if own and not any(value.requires_grad for value in own):
            module.eval()
