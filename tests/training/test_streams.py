"""Streams: who is in which batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.training.streams import StreamData, passes

PIXELS = np.zeros((200, 2, 2, 3), np.uint8)


def stream(sizes: list[int]) -> StreamData:
    domains = np.repeat(np.arange(len(sizes)), sizes)
    return StreamData(PIXELS, np.arange(len(domains)), np.zeros(len(domains), np.int64), domains)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.integers(1, 16), st.integers(0, 50))
def test_every_batch_holds_equal_shares_of_the_domains(sizes: list[int], batch: int, step: int) -> None:
    data = stream(sizes)
    index = data.batch(batch, step, 0, "s")
    assert data.domains is not None
    shares = np.bincount(data.domains[index], minlength=len(sizes))
    assert set(shares) == {max(1, batch // len(sizes))}
    assert np.array_equal(index, data.batch(batch, step, 0, "s"))


@pytest.mark.parametrize("sizes", [[7, 30], [12, 12, 5]])
def test_each_domain_is_passed_through_whole_before_an_image_comes_again(sizes: list[int]) -> None:
    data = stream(sizes)
    seen = np.concatenate([data.batch(2 * len(sizes), step, 3) for step in range(40)])
    assert data.domains is not None
    for domain, size in enumerate(sizes):
        own = seen[data.domains[seen] == domain]
        for turn in range(len(own) // size):
            assert len(set(own[turn * size : (turn + 1) * size])) == size


def test_one_domain_is_shuffled_as_ever_and_leaves_no_single_image() -> None:
    data = StreamData(PIXELS, np.arange(33), None)
    batches = [data.batch(16, step, 1) for step in range(passes(33, 16))]
    assert sorted(map(len, batches)) == [11, 11, 11]
    assert sorted(np.concatenate(batches)) == list(range(33))
