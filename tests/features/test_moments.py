"""Moments: sums that add, in float64, about a shift."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcore.errors import UserError
from tlcore.features.moments import Moments, MomentsBuilder

K = 4


def _images(n: int, d: int = 5, *, seed: int = 0, offset: float = 0.0):
    draw = np.random.default_rng(seed)
    features = (draw.normal(size=(n, d)) + offset).astype(np.float32)
    mass = draw.dirichlet(np.ones(3), size=n).astype(np.float32)
    return features, draw.integers(0, K, n), mass


def _assert_same(left: Moments, right: Moments, tolerance: float = 1e-10) -> None:
    assert left.n == right.n
    assert (left.class_counts == right.class_counts).all()
    names = ("mean", "total", "gram", "centred_gram", "class_sums", "centred_class_sums", "class_squares")
    for name in names:
        a, b = getattr(left, name), getattr(right, name)
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), name
    np.testing.assert_allclose(left.centred_quartic, right.centred_quartic, rtol=1e-7, atol=1e-20)
    if left.source_mass is not None and right.source_mass is not None:
        assert (left.source_counts == right.source_counts).all()
        np.testing.assert_allclose(left.source_mass, right.source_mass, rtol=tolerance)


def test_every_sum_is_what_numpy_gives() -> None:
    features, labels, mass = _images(40, offset=3.0)
    moments = Moments.of(features, labels, K, mass)
    exact, onehot = features.astype(np.float64), np.eye(K)[labels]
    assert (moments.n, moments.dim, moments.classes) == (40, 5, K)
    np.testing.assert_allclose(moments.total, exact.sum(0), rtol=1e-12)
    np.testing.assert_allclose(moments.mean, exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.gram, exact.T @ exact, rtol=1e-12)
    np.testing.assert_allclose(moments.centred_gram, 40 * np.cov(exact.T, bias=True), atol=1e-11)
    np.testing.assert_allclose(moments.class_sums, onehot.T @ exact, rtol=1e-12)
    np.testing.assert_allclose(moments.centred_class_sums, onehot.T @ (exact - exact.mean(0)), atol=1e-11)
    np.testing.assert_allclose(moments.class_squares, onehot.T @ exact**2, rtol=1e-12)
    assert moments.source_mass is not None and moments.source_counts is not None
    np.testing.assert_allclose(moments.source_mass, onehot.T @ mass.astype(np.float64), rtol=1e-12)
    for label in range(K):
        np.testing.assert_array_equal(
            moments.source_counts[label], np.bincount(mass[labels == label].argmax(1), minlength=3)
        )


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 60),
    offset=st.sampled_from([0.0, 50.0, -1e3]),
    cuts=st.lists(st.integers(1, 59), max_size=4),
    given_shift=st.booleans(),
)
def test_merged_shards_in_any_order_equal_one_pass(
    seed: int, n: int, offset: float, cuts: list[int], given_shift: bool
) -> None:
    features, labels, mass = _images(n, seed=seed, offset=offset)
    draw = np.random.default_rng(seed)
    bounds = sorted({0, n, *(cut for cut in cuts if cut < n)})
    order = draw.permutation(n)
    shift = np.full(5, offset + 0.5) if given_shift else None
    parts = [order[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    shards = [Moments.of(features[p], labels[p], K, mass[p], shift=shift) for p in parts]
    one_pass = Moments.of(features, labels, K, mass)
    merged = Moments.merge([shards[i] for i in draw.permutation(len(shards))])
    _assert_same(merged, one_pass)
    builder = MomentsBuilder(K)
    for p in parts:
        builder.add(features[p], labels[p], mass[p])
    _assert_same(builder.moments(), one_pass)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 40),
    offset=st.sampled_from([0.0, 5.0, -30.0]),
    move=st.sampled_from([0.0, 1.0, -7.0, 40.0]),
    cut=st.integers(0, 40),
)
def test_third_and_fourth_powers_are_exact_about_any_point_and_in_any_order(
    seed: int, n: int, offset: float, move: float, cut: int
) -> None:
    features, labels, _ = _images(n, seed=seed, offset=offset)
    point = features.astype(np.float64).mean(0) + move * np.array([1.0, -0.5, 0.2, 0.0, 2.0])
    one = Moments.of(features, labels, K)
    parts = [
        part for part in np.split(np.random.default_rng(seed).permutation(n), [min(cut, n)]) if part.size
    ]
    merged = Moments.merge(Moments.of(features[part], labels[part], K) for part in parts[::-1])
    rows = features.astype(np.float64) - point
    length = (rows**2).sum(1)
    for moments in (one.rebased(point), merged.rebased(point), one.rebased(np.zeros(5)).rebased(point)):
        scale = float((length**2).sum()) + (n * 31.0**4) * 1e-3
        np.testing.assert_allclose(moments.shifted_quartic, (length**2).sum(), atol=1e-10 * scale)
        np.testing.assert_allclose(moments.shifted_cubic, length @ rows, atol=1e-10 * scale)


def test_more_rows_than_one_internal_batch_are_all_counted() -> None:
    features, labels, mass = _images(5000)
    moments = Moments.of(features, labels, K, mass)
    exact = features.astype(np.float64)
    np.testing.assert_allclose(moments.gram, exact.T @ exact, rtol=1e-11, atol=1e-9)
    assert moments.source_counts is not None and moments.source_counts.sum() == moments.n == 5000


def test_an_offset_of_50_in_float32_costs_no_digits() -> None:
    features, labels, _ = _images(3000, offset=50.0)
    exact = features.astype(np.longdouble)
    centred = exact - exact.mean(0)
    wanted = (centred.T @ centred).astype(np.float64)
    found = Moments.of(features, labels, K).centred_gram
    assert np.abs(found - wanted).max() <= 1e-12 * np.abs(wanted).max()


def test_a_file_gives_back_the_same_bits(tmp_path: Path) -> None:
    features, labels, mass = _images(20)
    for moments in (Moments.of(features, labels, K, mass), Moments.of(features, labels, K)):
        path = tmp_path / "moments.npz"
        moments.save(path)
        again = Moments.load(path)
        _assert_same(again, moments, tolerance=0.0)
        assert (again.source_mass is None) == (moments.source_mass is None)


def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "moments.npz"
    with pytest.raises(UserError, match="not a readable file of moments"):
        Moments.load(path)
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match="not a readable file of moments"):
        Moments.load(path)
    features, labels, _ = _images(9)
    Moments.of(features, labels, K).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="delete the file"):
        Moments.load(path)
    with path.open("wb") as file:
        np.savez(file, shift=np.zeros(3))
    with pytest.raises(UserError, match="not a readable file of moments"):
        Moments.load(path)


def test_no_scorer_can_change_what_the_next_one_sees() -> None:
    features, labels, _ = _images(9)
    moments = Moments.of(features, labels, K)
    with pytest.raises(ValueError, match="read-only"):
        moments.shifted_gram[0, 0] = 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_with_nan_or_infinity_are_named(bad: float) -> None:
    features, labels, _ = _images(10)
    features[[3, 7], 2] = bad
    with pytest.raises(UserError, match="rows 3, 7"):
        Moments.of(features, labels, K)
    builder = MomentsBuilder(K)
    builder.add(*_images(10)[:2])
    with pytest.raises(UserError, match="rows 13, 17"):
        builder.add(features, labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, -1], "row 2"),
        ([0, 4, 1], "row 1"),
        ([0, 1], "3 rows of features"),
        (["a", "b", "c"], "encoded as whole numbers"),
        ([0.0, 1.0, 2.0], "encoded as whole numbers"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: list[object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Moments.of(np.ones((3, 2)), labels, K)  # type: ignore[arg-type]


@pytest.mark.parametrize("features", [np.ones((0, 3)), np.ones((3, 0)), np.ones(3), np.array([["a"]])])
def test_features_that_are_no_table_of_numbers_are_refused(features: np.ndarray) -> None:
    with pytest.raises(UserError, match="table of numbers"):
        Moments.of(features, np.zeros(len(features), dtype=int), K)


def test_source_probabilities_must_be_probabilities() -> None:
    features, labels, mass = _images(6)
    for wrong in (mass * 2, -mass, np.full_like(mass, np.nan)):
        with pytest.raises(UserError, match="do not sum to 1"):
            Moments.of(features, labels, K, wrong)
    with pytest.raises(UserError, match="source probabilities of shape"):
        Moments.of(features, labels, K, mass[:3])


def test_moments_that_do_not_belong_together_do_not_add() -> None:
    features, labels, mass = _images(6)
    plain = Moments.of(features, labels, K)
    with pytest.raises(UserError, match="cannot be added"):
        plain + Moments.of(features[:, :3], labels, K)
    with pytest.raises(UserError, match="cannot be added"):
        plain + Moments.of(features, labels, K + 1)
    with pytest.raises(UserError, match="source classes"):
        plain + Moments.of(features, labels, K, mass)
    with pytest.raises(UserError, match="no moments to merge"):
        Moments.merge([])
    with pytest.raises(UserError, match="no images"):
        MomentsBuilder(K).moments()
    builder = MomentsBuilder(K)
    builder.add(features, labels)
    with pytest.raises(UserError, match="3 features in this batch, 5 in the ones before"):
        builder.add(features[:, :3], labels)


@pytest.mark.parametrize("value", [0.0, 1e4, 0.1, -3.7e-5])
def test_constant_features_do_not_vary_however_they_were_summed(value: float) -> None:
    labels = np.arange(30) % K
    for dtype in (np.float32, np.float64):
        features = np.full((30, 6), value, dtype=dtype)
        assert not Moments.of(features, labels, K).varies
        assert not Moments.of(features, labels, K, shift=np.zeros(6)).varies
        halves = Moments.of(features[:7], labels[:7], K) + Moments.of(features[7:], labels[7:], K)
        assert not halves.varies
        features[3, 2] += 1e-3 * max(abs(value), 1e-3)
        assert Moments.of(features, labels, K).varies
