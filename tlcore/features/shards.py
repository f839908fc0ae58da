"""How images are cut into shards, and how shards come together again: always in the same way.

Shards end where a batch of the extraction ends. So every batch holds the same images, and every feature the
same bits, whatever the number of shards.
"""

from __future__ import annotations

__all__ = ["FAN_IN", "merge_groups", "shard_bounds"]

FAN_IN = 8
"""Moments that one task of the tree adds up, at most: few enough to be quick, enough to keep the tree flat."""


def shard_bounds(images: int, shards: int, *, batch: int = 64) -> list[tuple[int, int]]:
    """First and last-plus-one image of each shard: at most `shards` of them, none empty.

    Every bound but the last is a multiple of `batch`, and no shard has more than one batch more than another.

    Raises:
        ValueError: a number below 1.
    """
    if min(images, shards, batch) < 1:
        raise ValueError(f"{images} images cannot be cut into {shards} shards of batches of {batch}")
    batches = -(-images // batch)
    count = min(shards, batches)
    edges = [index * batches // count * batch for index in range(count)] + [images]
    return list(zip(edges[:-1], edges[1:], strict=True))


def merge_groups(parts: int) -> list[tuple[int, int]]:
    """One level of the tree: which neighbours are added up together, as (first, last-plus-one).

    Groups of at most FAN_IN, of two at least, all of nearly one size. The shape depends on the number of parts
    alone, so sums are rounded in the same way wherever they are computed.

    Raises:
        ValueError: fewer than two parts: there is nothing to add up.
    """
    if parts < 2:
        raise ValueError(f"{parts} parts need no merging")
    groups = -(-parts // FAN_IN)
    edges = [index * parts // groups for index in range(groups + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))
