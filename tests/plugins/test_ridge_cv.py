"""Ridge regression held out by fold, against scikit-learn fitted fold by fold on the features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_limits

from tlcore.errors import UserError
from tlcore.features.folds import fold_moments, fold_of
from tlcore.features.moments import Moments
from tlcore.protocols import Evidence
from tlcore.testing import tiny_evidence
from tlcore_scorers.ridge_cv import RidgeCV, held_out_error


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small matrices gain nothing from threads, and wait for them on a busy machine."""
    with threadpool_limits(limits=1):
        yield


def _problem(n: int, d: int, k: int = 3, signal: float = 0.5, seed: int = 0) -> tuple[NDArray, NDArray]:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, k, n)
    centres = draw.normal(size=(k, d)) * signal
    return (centres[labels] + draw.normal(size=(n, d))) * np.geomspace(2, 0.2, d) + 5.0, labels


def _evidence(features: NDArray, labels: NDArray, classes: int) -> Evidence:
    folds = fold_moments(features, labels, classes)
    return Evidence(Moments.merge(folds), labels, lambda: features, lambda: None, folds=folds)


def _by_fold(features: NDArray, labels: NDArray, classes: int, share: float) -> tuple[float, float]:
    fold, targets = fold_of(labels), np.eye(classes)[labels]
    error = null = 0.0
    for index in range(5):
        train, test = fold != index, fold == index
        centred = features[train] - features[train].mean(0)
        penalty = share * np.linalg.norm(centred, 2) ** 2
        model = Ridge(alpha=penalty, solver="svd").fit(features[train], targets[train])
        error += ((targets[test] - model.predict(features[test])) ** 2).sum()
        null += ((targets[test] - targets[train].mean(0)) ** 2).sum()
    return error, null


@pytest.mark.parametrize(("n", "d", "k"), [(80, 6, 3), (40, 70, 3), (25, 200, 4), (30, 30, 2), (23, 5, 12)])
def test_all_penalties_give_the_errors_of_scikit_learn(n: int, d: int, k: int) -> None:
    features, labels = _problem(n, d, k)
    shares = np.array([1e-6, 1e-3, 0.1, 10.0])
    error, null = held_out_error(fold_moments(features, labels, k), shares)
    for found, share in zip(error, shares, strict=True):
        wanted, wanted_null = _by_fold(features, labels, k, share)
        assert found == pytest.approx(wanted, rel=1e-6)
        assert null == pytest.approx(wanted_null, rel=1e-10)


def test_the_score_is_the_best_r2_of_the_grid() -> None:
    features, labels = _problem(60, 20)
    shares = np.logspace(-8, 3, 45)
    best = max(1 - error / null for error, null in (_by_fold(features, labels, 3, s) for s in shares))
    assert RidgeCV().score(_evidence(features, labels, 3)) == pytest.approx(best, rel=1e-6)


def test_noise_scores_about_nought_however_wide_and_signal_more() -> None:
    for d in (4, 40, 400):
        noise, some, much = (
            RidgeCV().score(_evidence(*_problem(60, d, signal=s), 3)) for s in (0.0, 0.4, 1.5)
        )
        assert -0.01 < noise < 0.15 and noise < some < much <= 1.0


def test_rotation_offset_and_scale_change_nothing() -> None:
    features, labels = _problem(50, 80)
    base = RidgeCV().score(_evidence(features, labels, 3))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(80, 80)))[0]
    for other in (features @ turn, features * 1e4, features + 50):
        assert RidgeCV().score(_evidence(other, labels, 3)) == pytest.approx(base, abs=1e-7)


def test_a_fold_whose_training_images_are_all_alike_learns_nothing() -> None:
    features = np.zeros((10, 3))
    labels = np.array([0] * 5 + [1] * 5)
    features[0] = [
        1.0,
        2.0,
        0.0,
    ]  # only this image differs: the fold that holds it out has nothing to learn from
    error, null = held_out_error(fold_moments(features, labels, 2), np.array([1e-3]))
    assert np.isfinite(error).all() and null > 0


def test_evidence_without_folds_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="needs moments by fold"):
        RidgeCV().score(replace(tiny_evidence(), folds=()))
