"""Folds: every image once, classes spread evenly, and sums that add up to the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcore.errors import UserError
from tlcore.features.folds import fold_moments, fold_of, others
from tlcore.features.moments import Moments


@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=80), folds=st.integers(2, 7))
def test_folds_differ_by_one_image_at_most_in_all_and_in_every_class(labels: list[int], folds: int) -> None:
    codes = np.array(labels)
    number = fold_of(codes, folds)
    assert number.dtype == np.int64 and set(number) <= set(range(folds))
    for chosen in (np.ones(codes.size, dtype=bool), *(codes == code for code in set(labels))):
        sizes = np.bincount(number[chosen], minlength=folds)
        assert sizes.max() - sizes.min() <= 1
    assert (fold_of(codes, folds) == number).all()


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 40),
    folds=st.integers(2, 6),
    offset=st.sampled_from([0.0, 50.0]),
)
def test_folds_are_the_moments_of_their_images_and_merge_to_the_whole(
    seed: int, n: int, folds: int, offset: float
) -> None:
    draw = np.random.default_rng(seed)
    features = (draw.normal(size=(n, 4)) + offset).astype(np.float32)
    labels, mass = draw.integers(0, 3, n), draw.dirichlet(np.ones(2), size=n)
    made = fold_moments(features, labels, 3, mass, folds=folds)
    number = fold_of(labels, folds)
    assert len(made) == min(n, folds)
    for index, fold in enumerate(made):
        rows = number == index
        np.testing.assert_array_equal(fold.class_counts, np.bincount(labels[rows], minlength=3))
        np.testing.assert_allclose(fold.mean, features[rows].astype(np.float64).mean(0), rtol=1e-12)
        np.testing.assert_allclose(
            others(made, index).n if len(made) > 1 else 0, n - rows.sum(), err_msg="the rest is the others"
        )
    merged, whole = Moments.merge(made), Moments.of(features, labels, 3, mass)
    np.testing.assert_allclose(merged.centred_gram, whole.centred_gram, atol=1e-10)
    np.testing.assert_allclose(merged.centred_class_sums, whole.centred_class_sums, atol=1e-10)
    np.testing.assert_allclose(merged.centred_quartic, whole.centred_quartic, rtol=1e-9, atol=1e-20)
    assert merged.source_mass is not None and whole.source_mass is not None
    np.testing.assert_allclose(merged.source_mass, whole.source_mass, rtol=1e-12)


def test_a_memory_map_longer_than_a_block_is_dealt_out_whole(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    np.save(tmp_path / "f.npy", draw.normal(size=(20_000, 3)).astype(np.float32))
    features = np.load(tmp_path / "f.npy", mmap_mode="r")
    labels = draw.integers(0, 5, len(features))
    made = fold_moments(features, labels, 5)
    assert [fold.n for fold in made] == [4000] * 5
    exact = np.asarray(features, dtype=np.float64)
    for index, fold in enumerate(made):
        np.testing.assert_allclose(fold.total, exact[fold_of(labels) == index].sum(0), rtol=1e-10)


def test_errors_name_rows_of_all_images_and_folds_must_be_two() -> None:
    features = np.zeros((12, 2))
    features[7] = np.nan
    with pytest.raises(UserError, match="row 7"):
        fold_moments(features, np.zeros(12, dtype=int), 1)
    with pytest.raises(UserError, match="outside 0 … 1 in row 3"):
        fold_moments(np.ones((4, 2)), np.array([0, 1, 0, 2]), 2)
    with pytest.raises(UserError, match="at least 2 folds"):
        fold_of(np.zeros(3), 1)
