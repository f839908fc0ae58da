"""PARC against SciPy's spearmanr of two NumPy correlation matrices."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.preprocessing import StandardScaler

from tlcore.features.moments import Moments
from tlcore.protocols import Evidence
from tlcore_scorers.parc import Parc, row_correlations


def problem(n: int, d: int, classes: int = 3, signal: float = 1.0) -> tuple[NDArray, NDArray]:
    draw = np.random.default_rng(0)
    labels = draw.permutation(np.arange(n) ** 2 % classes)
    return draw.normal(size=(classes, d))[labels] * signal + draw.normal(size=(n, d)), labels


def score(features: NDArray, labels: NDArray, seed: int = 0, **options: object) -> float:
    moments = Moments.of(features, labels, int(labels.max()) + 1)
    return Parc(**options).score(Evidence(moments, labels, lambda: features, lambda: None, seed))


@pytest.mark.parametrize(("n", "d", "classes"), [(40, 10, 2), (40, 10, 5), (30, 90, 5)])
def test_spearmanr_of_two_correlation_matrices_agrees(n: int, d: int, classes: int) -> None:
    features, labels = problem(n, d, classes)
    _, codes = np.unique(labels, return_inverse=True)
    above = np.triu_indices(n, 1)
    by_features = 1 - np.corrcoef(StandardScaler().fit_transform(features))[above]
    by_labels = np.round(1 - np.corrcoef(np.eye(codes.max() + 1)[codes])[above], 9)
    expected = spearmanr(by_features, by_labels).statistic
    assert score(features, labels) == pytest.approx(expected, abs=1e-6)


def test_correlations_are_those_of_numpy_and_zero_with_a_constant_row() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 9)) + 3
    np.testing.assert_allclose(row_correlations(rows), np.corrcoef(rows), atol=1e-12)
    rows[2] = 7.3
    found = row_correlations(rows)
    assert not found[2].any() and not found[:, 2].any()


def test_the_value_lies_in_minus_one_to_one_and_grows_with_the_signal() -> None:
    scores = [score(*problem(60, 10, signal=signal)) for signal in (0.0, 0.5, 1.0, 3.0)]
    assert scores == sorted(scores) and -1 <= scores[0] < 0.1 < scores[-1] <= 1


def test_one_feature_orders_no_pairs_and_scores_zero() -> None:
    """A vector of one entry has no correlation: every pair is as far apart as every other."""
    features, labels = problem(20, 1)
    assert score(features, labels) == 0.0


def test_no_more_probes_are_compared_than_asked_for() -> None:
    features, labels = problem(90, 6)
    chosen = np.array([])

    class Watched(Evidence):
        def sample(self, limit: int) -> NDArray[np.int64]:
            nonlocal chosen
            chosen = super().sample(limit)
            return chosen

    moments = Moments.of(features, labels, 3)
    value = Parc(max_images=30).score(Watched(moments, labels, lambda: features, lambda: None))
    assert chosen.size <= 30
    assert value == pytest.approx(score(features[chosen], labels[chosen]), abs=1e-12)
