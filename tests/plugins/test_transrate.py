"""TransRate against eigenvalues of scikit-learn's principal components, class by class."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from tlcore.features.moments import Moments
from tlcore.protocols import Evidence
from tlcore_scorers.transrate import TransRate, coding_rate


def problem(n: int, d: int, classes: int = 3, signal: float = 1.0, seed: int = 0) -> tuple[NDArray, NDArray]:
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(n) % (classes + 1) % classes)  # classes of unequal size
    return draw.normal(size=(classes, d))[labels] * signal + draw.normal(size=(n, d)), labels


def score(features: NDArray, labels: NDArray, **options: object) -> float:
    moments = Moments.of(features, labels, int(labels.max()) + 1)
    return TransRate(**options).score(Evidence(moments, labels, lambda: features, lambda: None))


def rate_by_eigenvalues(rows: NDArray, eps: float) -> float:
    return 0.5 * sum(
        math.log1p(value / eps) for value in np.linalg.eigvalsh(rows.T @ rows / len(rows)) if value > 0
    )


@pytest.mark.parametrize(("n", "d", "axes"), [(300, 5, 64), (300, 40, 8), (60, 150, 3)])
def test_sums_of_logarithms_of_eigenvalues_agree(n: int, d: int, axes: int) -> None:
    features, labels = problem(n, d, classes=4)
    present, codes = np.unique(labels, return_inverse=True)
    kept = min(axes, d, n // (4 * present.size))
    rows = PCA(kept).fit_transform(features)
    rows /= math.sqrt(((features - features.mean(0)) ** 2).sum(1).mean())
    expected = rate_by_eigenvalues(rows, 1e-4)
    for code in range(present.size):
        part = rows[codes == code]
        expected -= len(part) / n * rate_by_eigenvalues(part, 1e-4)
    assert score(features, labels, axes=axes) == pytest.approx(expected, abs=1e-8)


def test_the_smaller_gram_matrix_gives_the_same_rate() -> None:
    for shape in ((5, 40), (40, 5)):
        rows = np.random.default_rng(0).normal(size=shape)
        _, value = np.linalg.slogdet(np.eye(shape[1]) + rows.T @ rows / (shape[0] * 0.01))
        assert coding_rate(rows, 0.01) == pytest.approx(value / 2, rel=1e-12)


@given(st.integers(8, 60), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_rate_that_labels_save_is_never_negative(n: int, d: int, seed: int) -> None:
    """log det is concave, and the Gram matrix of all is the mean of those of the classes."""
    features, labels = problem(n, d, signal=0.0, seed=seed)
    assert score(features, labels) >= -1e-9


def test_more_separate_classes_save_more() -> None:
    scores = [score(*problem(300, 10, signal=signal)) for signal in (0.0, 0.5, 1.0, 3.0)]
    assert scores == sorted(scores) and scores[0] < 0.3 < scores[-1]


def test_two_opposite_classes_save_nothing_since_they_are_not_centred_on_their_own() -> None:
    """So it is in the paper; its score cannot see what separates two classes of equal size."""
    draw = np.random.default_rng(0)
    half = draw.normal(size=(100, 6)) + 5
    features, labels = np.vstack([half, -half]), np.repeat([0, 1], 100)
    assert score(features, labels) == pytest.approx(0.0, abs=1e-9)


def test_wide_noise_does_not_outscore_an_informative_network() -> None:
    """Every axis kept, each of ten images of a class spans its own: noise then looks like information."""
    good, labels = problem(60, 20, signal=2.0)
    noise, _ = problem(60, 500, signal=0.0)
    assert score(noise, labels) < score(good, labels)
