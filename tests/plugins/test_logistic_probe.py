"""The logistic probe against scikit-learn's logistic regression, fold by fold in all dimensions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tlcore.features.moments import Moments
from tlcore.protocols import Evidence
from tlcore_scorers.logistic_probe import PENALTIES, LogisticProbe, fit_all_folds, stratified_folds


def problem(n: int, d: int, classes: int = 3, signal: float = 0.5, seed: int = 0) -> tuple[NDArray, NDArray]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    spread = np.geomspace(2, 0.2, d)
    return draw.normal(size=(classes, d))[labels] * signal + draw.normal(size=(n, d)) * spread, labels


def score(features: NDArray, labels: NDArray, seed: int = 0, **options: object) -> float:
    moments = Moments.of(features, labels, int(labels.max()) + 1)
    return LogisticProbe(**options).score(Evidence(moments, labels, lambda: features, lambda: None, seed))


def scikit_learn(features: NDArray, labels: NDArray, penalty: float, folds: int) -> tuple[float, float]:
    """Held-out mean log-probability and accuracy at one penalty, with all features."""
    rows = StandardScaler().fit_transform(features)
    rows /= np.sqrt((rows**2).sum(1).mean())
    fold = stratified_folds(labels, folds, 0)
    total, right = 0.0, 0
    for held in range(folds):
        train = fold != held
        model = LogisticRegression(C=1 / (penalty * train.sum()), solver="newton-cholesky", tol=1e-9)
        model.fit(rows[train], labels[train])
        probability = model.predict_proba(rows[~train])
        total += np.log(probability[np.arange((~train).sum()), labels[~train]]).sum()
        right += (probability.argmax(1) == labels[~train]).sum()
    return total / len(labels), right / len(labels)


@pytest.mark.parametrize(("n", "d", "signal"), [(60, 8, 0.4), (30, 50, 0.5)])
def test_scikit_learn_fold_by_fold_agrees(n: int, d: int, signal: float) -> None:
    features, labels = problem(n, d, signal=signal)
    along = [scikit_learn(features, labels, penalty, 5) for penalty in PENALTIES]
    likelihood, accuracy = max(along)
    assert score(features, labels) == pytest.approx(likelihood, abs=2e-3)
    assert score(features, labels, measure="accuracy") == pytest.approx(accuracy, abs=1e-9)


def test_all_folds_at_once_find_the_minimum_of_each() -> None:
    features, labels = problem(50, 6)
    one_hot = np.eye(3)[labels]
    fold = stratified_folds(labels, 4, 1)
    train = (fold[:, None] != np.arange(4)) / (fold[:, None] != np.arange(4)).sum(0)
    found = fit_all_folds(features, one_hot, train, 1e-2, np.zeros((7, 4, 3)))
    for f in range(4):
        kept = fold != f
        model = LogisticRegression(C=1 / (1e-2 * kept.sum()), solver="newton-cholesky", tol=1e-10)
        model.fit(features[kept], labels[kept])
        np.testing.assert_allclose(found[:-1, f].T, model.coef_, atol=2e-3)


@given(st.integers(2, 8), st.integers(0, 5), st.lists(st.integers(2, 9), min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_folds_spread_every_class_and_all_images_evenly(folds: int, seed: int, counts: list[int]) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    fold = stratified_folds(labels, folds, seed)
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for label in range(len(counts)):
        inside = np.bincount(fold[labels == label], minlength=folds)
        assert inside.max() - inside.min() <= 1
        assert (counts[label] - inside > 0).all()  # every training part knows every class


def test_noise_scores_about_the_likelihood_of_the_class_frequencies() -> None:
    features, labels = problem(150, 20, signal=0.0)
    assert -1.25 < score(features, labels) < -np.log(3) + 0.02


def test_an_image_alone_in_its_class_is_left_out() -> None:
    features, labels = problem(41, 8)
    labels[-1] = 3
    assert score(features, labels) == pytest.approx(score(features[:-1], labels[:-1]), abs=1e-9)


def test_a_class_of_two_images_is_judged_by_the_other_one() -> None:
    features, labels = problem(42, 8)
    labels[-2:] = 3
    assert -3 < score(features, labels) < 0
