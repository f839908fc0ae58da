"""Greedy soup: the mean of the weights of several trainings of one network, as far as validation agrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlcore.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Soup", "State", "greedy_soup", "mixed"]

State = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Soup:
    """Averaged weights, the trainings in them (in the order of adding), what validation says of them, and what it says
    of the best single one. `left_out`: trainings whose weights have other names or shapes."""

    state: State
    members: tuple[int, ...]
    measured: tuple[float, ...]
    single: tuple[float, ...]
    left_out: tuple[int, ...] = ()


def mixed(mean: State, count: int, new: State) -> dict[str, Tensor]:
    """The mean of `count` + 1 weights from the mean of the first `count` and the last one: m + (w - m) / (count + 1).

    Everything with a fraction is averaged, running statistics of batch norm among it; whole numbers (the batches that
    batch norm has counted) and switches stay those of `mean`.
    """
    import torch

    made: dict[str, Tensor] = {}
    for name, value in mean.items():
        if not value.is_floating_point():
            made[name] = value
            continue
        wide = torch.promote_types(value.dtype, torch.float32)
        made[name] = value.to(wide).lerp(new[name].to(value.device, wide), 1 / (count + 1)).to(value.dtype)
    return made


def greedy_soup(
    members: Sequence[int], load: Callable[[int], State], validate: Callable[[State], tuple[float, ...]]
) -> Soup:
    """Greedy soup (Wortsman et al. 2022, "Model soups", recipe 1).

    The best training is the first ingredient; each next one is added where validation of the mean of all ingredients
    with it is not worse than without it. So the soup is never worse on validation than the best single training. Not
    more than three copies of the weights are in memory at a time.

    Args:
        members: numbers of the trainings, best on validation first.
        load: the weights of a training.
        validate: larger is better, compared element by element; NaN is never good enough.

    Raises:
        PluginError: there is no training.
    """
    if not members:
        raise PluginError("a soup needs at least one training")
    first, *others = members
    state = dict(load(first))
    measured = single = validate(state)
    inside, left_out = [first], []
    for number in others:
        new = load(number)
        if not _alike(state, new):
            left_out.append(number)
            continue
        trial = mixed(state, len(inside), new)
        del new
        found = validate(trial)
        if found >= measured:
            state, measured = trial, found
            inside.append(number)
    return Soup(state, tuple(inside), measured, single, tuple(left_out))


def _alike(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        value.shape == other[name].shape and value.dtype == other[name].dtype for name, value in one.items()
    )
