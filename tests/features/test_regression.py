"""Moments of features and real-valued targets: sums that add, about a shift."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcore.errors import UserError
from tlcore.features.regression import RegressionMoments


def _data(n: int, seed: int = 0, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(n, 4)) + offset).astype(np.float32), draw.normal(size=(n, 2)) * 3 + offset


def _assert_describes(moments: RegressionMoments, features: np.ndarray, targets: np.ndarray) -> None:
    x, y = features.astype(np.float64), targets
    x, y = x - x.mean(0), y - y.mean(0)
    assert (moments.n, moments.dim, moments.targets) == (len(x), 4, 2)
    scale = max(np.abs(x).max(), np.abs(y).max(), 1.0) ** 2 * len(x)
    np.testing.assert_allclose(moments.centred_gram, x.T @ x, atol=1e-11 * scale)
    np.testing.assert_allclose(moments.centred_cross, x.T @ y, atol=1e-11 * scale)
    np.testing.assert_allclose(moments.centred_target_squares, (y**2).sum(0), atol=1e-11 * scale)
    np.testing.assert_allclose(moments.target_mean, targets.mean(0), rtol=1e-9)
    np.testing.assert_allclose(moments.mean, features.astype(np.float64).mean(0), rtol=1e-9)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 999),
    n=st.integers(2, 50),
    cuts=st.lists(st.integers(1, 49), max_size=3),
    offset=st.sampled_from([0.0, 50.0]),
)
def test_shards_in_any_order_describe_all_images(seed: int, n: int, cuts: list[int], offset: float) -> None:
    features, targets = _data(n, seed, offset)
    draw = np.random.default_rng(seed)
    bounds = sorted({0, n, *(cut for cut in cuts if cut < n)})
    parts = [draw.permutation(n)] if len(bounds) < 3 else np.split(draw.permutation(n), bounds[1:-1])
    shards = [RegressionMoments.of(features[p], targets[p]) for p in parts]
    merged = RegressionMoments.merge([shards[i] for i in draw.permutation(len(shards))])
    _assert_describes(merged, features, targets)
    _assert_describes(merged.rebased(np.full(4, 0.5), np.array([-2.0, 7.0])), features, targets)


def test_more_rows_than_one_batch_and_given_shifts_are_counted() -> None:
    features, targets = _data(5000, offset=3.0)
    _assert_describes(RegressionMoments.of(features, targets), features, targets)
    _assert_describes(
        RegressionMoments.of(features, targets, shift=np.zeros(4), target_shift=np.zeros(2)),
        features,
        targets,
    )


def test_a_file_gives_back_the_same_bits_and_a_damaged_one_is_a_clear_error(tmp_path: Path) -> None:
    moments = RegressionMoments.of(*_data(20))
    path = tmp_path / "moments.npz"
    moments.save(path)
    again = RegressionMoments.load(path)
    assert again.n == 20 and (again.shifted_cross == moments.shifted_cross).all()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a readable file of moments"):
        RegressionMoments.load(path)
    arrays = {**moments._arrays(), "n": np.array(20), "shifted_cross": np.zeros((4, 3))}
    with path.open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(UserError, match="do not fit each other: shifted_cross"):
        RegressionMoments.load(path)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, 1e6])
def test_constant_targets_do_not_vary_however_they_were_summed(value: float) -> None:
    features, targets = _data(30)
    targets[:, 1] = value
    for shift in (None, np.zeros(2)):
        assert RegressionMoments.of(features, targets, target_shift=shift).targets_vary.tolist() == [
            True,
            False,
        ]
    halves = RegressionMoments.of(features[:7], targets[:7]) + RegressionMoments.of(features[7:], targets[7:])
    assert halves.targets_vary.tolist() == [True, False]


def test_what_is_no_regression_problem_is_refused() -> None:
    features, targets = _data(6)
    with pytest.raises(UserError, match="targets are NaN or infinite in row 2"):
        wrong = targets.copy()
        wrong[2, 0] = np.inf
        RegressionMoments.of(features, wrong)
    for bad in (targets[:3], np.array(["a"] * 6), np.ones((6, 0))):
        with pytest.raises(UserError, match="6 rows of features, but targets"):
            RegressionMoments.of(features, bad)
    with pytest.raises(UserError, match="cannot be added"):
        RegressionMoments.of(features, targets) + RegressionMoments.of(features, targets[:, 0])
    with pytest.raises(UserError, match="shifts of shape"):
        RegressionMoments.of(features, targets, shift=np.zeros(3))
    with pytest.raises(ValueError, match="read-only"):
        RegressionMoments.of(features, targets).shifted_gram[0, 0] = 1.0
