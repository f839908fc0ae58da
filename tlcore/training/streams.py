"""Streams of training images in an order that depends on the seed and the step alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tlcore.features.normalisation import normalise
from tlcore.training.augment import augment
from tlcore.training.mixing import mixed, randomly_augmented
from tlcore.training.plan import Phase, View
from tlcore.values import Preprocess

__all__ = ["StreamData", "draw_seed", "passes", "picked", "view"]


@dataclass(frozen=True)
class StreamData:
    """One stream: uint8 pixels [N, H, W, 3] (a memory map), the rows of it that belong, and their labels.

    labels: int64 [n] (float32 [n] of numbers, [n, K] of tags), or None where training must not see any.
    domains: int64 [n], 0 … G-1, where the stream is of several domains: every batch then holds equal shares of them,
    whatever their sizes.
    groups: int64 [n], as of `HeadProblem`.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[Any] | None
    domains: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _members(self) -> list[NDArray[np.int64]]:
        """Positions of each domain's images; every batch asks for them. Empty where there is one domain."""
        if self.domains is None:
            return []
        return [np.flatnonzero(self.domains == domain) for domain in np.unique(self.domains)]

    def batch(self, batch_size: int, step: int, *seed: int | str) -> NDArray[np.int64]:
        """Positions in the stream that step `step` sees; of G domains batch_size // G each, but one at least."""
        members = self._members
        if not members:
            return batch_index(len(self), batch_size, step, *seed)
        share = max(1, batch_size // len(members))
        return np.concatenate(
            [
                own[_endless(len(own), share * step, share, *seed, number)]
                for number, own in enumerate(members)
            ]
        )


def draw_seed(*parts: int | str) -> int:
    """A 63-bit seed from its parts: equal parts, equal draws, on every machine and Python."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def passes(size: int, batch_size: int) -> int:
    """Batches in one pass. Batches differ by at most one image, so none is left with a single one."""
    return max(1, -(-size // batch_size))


def batch_index(size: int, batch_size: int, step: int, *seed: int | str) -> NDArray[np.int64]:
    """Positions in the stream that step `step` sees; each pass shuffles anew."""
    per_pass = passes(size, batch_size)
    turn, place = divmod(step, per_pass)
    short, longer = divmod(size, per_pass)
    start = place * short + min(place, longer)
    return _order(size, draw_seed(*seed, turn))[start : start + short + (place < longer)]


def _endless(size: int, start: int, count: int, *seed: int | str) -> NDArray[np.int64]:
    """Positions start … start + count of a stream without end, each pass of which is shuffled anew."""
    places = np.arange(start, start + count)
    turns = places // size
    return np.concatenate(
        [_order(size, draw_seed(*seed, int(turn)))[places[turns == turn] % size] for turn in np.unique(turns)]
    )


@lru_cache(maxsize=32)
def _order(size: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(size)


def view(
    stream: StreamData,
    index: NDArray[np.int64],
    preprocess: Preprocess,
    phase: Phase,
    seed: int,
    device: torch.device,
    part: slice | None = None,
) -> View:
    """The batch of `index`, augmented as the phase says from `seed`, normalised, on the device.

    part: the images of it that this process takes; they come out as they do in the whole batch. None: all.
    """
    mixes = (phase.mixup > 0 or phase.cutmix > 0) and stream.labels is not None
    part = part or slice(None)
    wanted = slice(None) if mixes else part  # an image is mixed with one that may be another process's
    chosen = np.ascontiguousarray(stream.pixels[stream.rows[index]])
    if phase.randaugment is not None:
        chosen = randomly_augmented(chosen, phase.randaugment, draw_seed(seed, "policy"))
    pixels = torch.from_numpy(chosen)
    generator = torch.Generator().manual_seed(seed)
    weak = normalise(augment(pixels, phase.augment, generator, wanted), preprocess)
    share = None
    if mixes:
        weak, share = mixed(weak, phase.mixup, phase.cutmix, draw_seed(seed, "mix"))
        weak = weak[part]
    hard = (
        normalise(augment(pixels, "strong", generator, part), preprocess).to(device)
        if phase.strong_view
        else None
    )
    own, other = index[part], np.ascontiguousarray(index[::-1][part])
    return View(
        weak.to(device), picked(stream.labels, own, device), torch.from_numpy(own).to(device), hard,
        picked(stream.domains, own, device), share, picked(stream.labels, other, device) if mixes else None,
        torch.from_numpy(other).to(device) if mixes else None,
    )  # fmt: skip


def picked(
    values: NDArray[Any] | None, index: NDArray[np.int64], device: torch.device
) -> torch.Tensor | None:
    """values[index] on the device; None of None."""
    return None if values is None else torch.from_numpy(np.ascontiguousarray(values[index])).to(device)
