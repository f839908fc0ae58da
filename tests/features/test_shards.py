"""How images are cut into shards, and how shards come together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.features.folds import fold_moments
from tlcore.features.moments import Moments
from tlcore.features.shards import FAN_IN, merge_groups, shard_bounds

sizes = st.integers(1, 5000)


@given(images=sizes, shards=sizes, batch=st.integers(1, 100))
def test_shards_hold_every_image_once_and_end_where_a_batch_ends(
    images: int, shards: int, batch: int
) -> None:
    bounds = shard_bounds(images, shards, batch=batch)
    assert [row for first, last in bounds for row in range(first, last)] == list(range(images))
    assert all(first % batch == 0 and first < last for first, last in bounds)
    batches = [-(-(last - first) // batch) for first, last in bounds]
    assert max(batches) - min(batches) <= 1
    assert len(bounds) == min(shards, -(-images // batch))


@given(parts=st.integers(2, 5000))
def test_a_level_of_the_tree_groups_neighbours_evenly(parts: int) -> None:
    groups = merge_groups(parts)
    assert [part for first, last in groups for part in range(first, last)] == list(range(parts))
    sizes = [last - first for first, last in groups]
    assert max(sizes) <= FAN_IN and min(sizes) >= 2 and max(sizes) - min(sizes) <= 1


def test_the_tree_ends_in_one() -> None:
    for parts in (2, 8, 9, 64, 65, 10_000):
        levels = 0
        while parts > 1:
            parts, levels = len(merge_groups(parts)), levels + 1
        assert levels <= 5


@pytest.mark.parametrize("arguments", [(0, 1), (1, 0)])
def test_nothing_cannot_be_cut(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError):
        shard_bounds(*arguments)
    with pytest.raises(ValueError):
        merge_groups(1)


@pytest.mark.parametrize("shards", [2, 3, 11])
def test_moments_that_come_together_in_the_tree_are_those_of_all_images(shards: int) -> None:
    rng = np.random.default_rng(shards)
    features = rng.normal(50, 1, (700, 9)).astype(np.float32)
    labels = rng.integers(0, 4, 700)
    level = [Moments.of(features[a:b], labels[a:b], 4) for a, b in shard_bounds(700, shards)]
    while len(level) > 1:
        level = [Moments.merge(level[a:b]) for a, b in merge_groups(len(level))]
    whole = Moments.merge(fold_moments(features, labels, 4))
    rows = features.astype(np.float64)
    centred = rows - rows.mean(axis=0)
    np.testing.assert_allclose(level[0].centred_gram, centred.T @ centred, rtol=1e-11, atol=1e-9)
    np.testing.assert_allclose(level[0].centred_gram, whole.centred_gram, rtol=1e-11, atol=1e-9)
    np.testing.assert_array_equal(level[0].class_counts, np.bincount(labels, minlength=4))
