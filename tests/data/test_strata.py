from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tlcore.data.strata import number_bins, strata, tag_strata


@given(st.lists(st.floats(-1e6, 1e6), max_size=120), st.randoms())
def test_bins_follow_the_order_of_the_numbers_and_not_that_of_the_rows(
    values: list[float], random: object
) -> None:
    numbers = np.array(values)
    codes = number_bins(numbers)
    assert codes.shape == numbers.shape
    order = np.argsort(numbers, kind="stable")
    assert (np.diff(codes[order]) >= 0).all()
    assert set(codes.tolist()) == set(range(len(set(codes.tolist()))))  # no gap
    assert len(set(codes.tolist())) <= max(1, min(10, len(values) // 10))
    equal = numbers[:, None] == numbers[None, :]
    assert (codes[:, None] == codes[None, :])[equal].all()
    turned = np.random.default_rng(0).permutation(len(values))
    assert (number_bins(numbers[turned]) == codes[turned]).all()


def test_distinct_numbers_fill_bins_alike() -> None:
    codes = number_bins(np.random.default_rng(0).permutation(100.0 + np.arange(100)))
    assert np.bincount(codes).tolist() == [10] * 10


def test_an_image_belongs_to_its_rarest_tag_and_one_without_to_a_group_of_their_own() -> None:
    tags = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]])
    assert tag_strata(tags).tolist() == [0, 1, 2, 3]
    assert tag_strata(np.zeros((2, 3))).tolist() == [3, 3]
    assert tag_strata(np.zeros((0, 3))).tolist() == []


def test_classes_are_their_own_strata() -> None:
    assert strata(np.array([2, 0, 1]), "classification").tolist() == [2, 0, 1]
