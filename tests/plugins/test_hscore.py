"""The regularised H-score against scikit-learn's Ledoit-Wolf and plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from threadpoolctl import threadpool_limits

from tlcore.features.moments import Moments
from tlcore.testing import tiny_evidence
from tlcore_scorers.hscore import HScore, shrunk_h_score
from tlcore_scorers.hscore import ledoit_wolf as from_moments


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small matrices gain nothing from threads, and wait for them on a busy machine."""
    with threadpool_limits(limits=1):
        yield


def _problem(n: int, d: int, *, signal: float = 0.5, seed: int = 0) -> tuple[NDArray, NDArray]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    centres = draw.normal(size=(3, d)) * signal
    return (centres[labels] + draw.normal(size=(n, d))) * np.geomspace(3, 0.3, d) + 20.0, labels


def _plain(features: NDArray, labels: NDArray, alpha: float) -> float:
    rows = features - features.mean(0)
    covariance = rows.T @ rows / len(rows)
    size = len(covariance)
    shrunk = (1 - alpha) * covariance + alpha * np.trace(covariance) / size * np.eye(size)
    means = np.stack([rows[labels == k].mean(0) for k in np.unique(labels)])[
        np.unique(labels, return_inverse=True)[1]
    ]
    return float(np.trace(np.linalg.pinv(shrunk, rcond=1e-12) @ ((1 - alpha) * means.T @ means / len(rows))))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), n=st.integers(4, 60), d=st.integers(2, 50), cut=st.integers(1, 59))
def test_the_shrinkage_is_that_of_scikit_learn_from_merged_shards_too(
    seed: int, n: int, d: int, cut: int
) -> None:
    features, labels = _problem(n, d, seed=seed)
    wanted = ledoit_wolf(features)[1]
    assert from_moments(Moments.of(features, labels, 3)) == pytest.approx(wanted, abs=1e-9)
    order = np.random.default_rng(seed).permutation(n)
    parts = [part for part in np.split(order, [min(cut, n)]) if part.size]
    merged = Moments.merge(Moments.of(features[part], labels[part], 3) for part in parts)
    assert from_moments(merged) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(90, 8), (40, 60), (30, 200), (12, 12)])
def test_the_score_is_that_of_plain_linear_algebra(n: int, d: int) -> None:
    features, labels = _problem(n, d)
    moments = Moments.of(features, labels, 3)
    alpha = ledoit_wolf(features)[1]
    assert shrunk_h_score(moments, from_moments(moments)) == pytest.approx(
        _plain(features, labels, alpha), rel=1e-8
    )
    for fixed in (0.0, 0.3, 1.0):
        assert shrunk_h_score(moments, fixed) == pytest.approx(
            _plain(features, labels, fixed), rel=1e-6, abs=1e-12
        )


def test_noise_in_more_features_than_images_does_not_score_the_number_of_classes() -> None:
    """Without shrinkage it scores K - 1 = 2, as high as perfect separation."""
    noise = tiny_evidence(60, 3, 200, skill=0.0)
    assert HScore(shrinkage=0.0).score(noise) == pytest.approx(2.0, abs=1e-6)
    assert 0 <= HScore().score(noise) < 0.2 < 1.0 < HScore().score(tiny_evidence(60, 3, 200, skill=2.0)) <= 2


def test_shrinkage_of_nought_and_of_one_are_reached_and_finite() -> None:
    labels = np.arange(8) % 2
    two = np.tile([[1.0, 2.0, -1.0]], (8, 1)) * (
        2 * labels[:, None] - 1
    )  # x x^T is the same for all: no noise
    moments = Moments.of(two, labels, 2)
    assert from_moments(moments) == 0.0 == ledoit_wolf(two)[1]
    assert shrunk_h_score(moments, 0.0) == pytest.approx(1.0)
    corners = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]] * 2)  # the covariance is a multiple of I already
    assert 0.0 <= from_moments(Moments.of(corners, labels, 2)) <= 1.0
    alike = tiny_evidence(6, 2, 300, skill=0.0)
    assert from_moments(alike.moments) <= 1.0 and HScore(shrinkage=1.0).score(alike) == 0.0


def test_a_copy_of_the_moments_is_worked_on() -> None:
    evidence = tiny_evidence(60, 3, 8)
    assert HScore().score(evidence) == HScore().score(evidence)


def test_a_known_limit_features_that_occur_twice_raise_the_score_of_noise() -> None:
    labels = np.arange(200) % 5
    noise = np.random.default_rng(0).normal(size=(200, 64))
    once, twice = (Moments.of(features, labels, 5) for features in (noise, np.column_stack([noise, noise])))
    assert from_moments(twice) < 0.6 * from_moments(once)
    scores = [shrunk_h_score(moments, from_moments(moments)) for moments in (once, twice)]
    assert scores[0] < 0.1 < 0.5 < scores[1]
