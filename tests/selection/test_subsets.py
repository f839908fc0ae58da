"""Samples of a bounded size with the classes in their shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.selection.subsets import stratified

counts = st.lists(st.integers(1, 200), min_size=1, max_size=40)


@given(counts=counts, limit=st.integers(1, 300), seed=st.integers(0, 3))
def test_no_more_than_the_limit_but_two_of_each_class(counts: list[int], limit: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = stratified(labels, limit, seed)
    assert len(set(rows.tolist())) == rows.size and (np.diff(rows) > 0).all()
    if sum(counts) <= limit:
        assert rows.size == sum(counts)
        return
    least = np.minimum(counts, 2)
    found = np.bincount(labels[rows], minlength=len(counts))
    assert (found >= least).all() and (found <= counts).all()
    assert rows.size <= max(limit, int(least.sum()))
    # Those above the least have one share, rounded down, and no more than rounding is left of the limit.
    large = found > least
    if large.any():
        sizes, of = found[large], np.asarray(counts)[large]
        assert (sizes / of).max() < ((sizes + 1) / of).min() + 1e-12
        assert rows.size > limit - len(counts)


@pytest.mark.parametrize(("large", "small", "each"), [(300, 30, 3), (1000, 40, 5), (5000, 60, 2)])
def test_a_long_tail_leaves_less_for_the_large_class(large: int, small: int, each: int) -> None:
    labels = np.repeat(np.arange(small + 1), [large, *[each] * small])
    found = np.bincount(labels[stratified(labels, 160, 0)])
    assert found.tolist() == [160 - 2 * small, *[2] * small]
