"""The estimated accuracy of discriminant analysis against accuracy that is counted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm, t
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from threadpoolctl import threadpool_limits

from tlcore.errors import UserError
from tlcore.features.folds import fold_moments, fold_of
from tlcore.features.moments import Moments
from tlcore.protocols import Evidence
from tlcore_scorers.lda import LDA, class_accuracy, held_out_margins


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small matrices gain nothing from threads, and wait for them on a busy machine."""
    with threadpool_limits(limits=1):
        yield


def _gaussians(n: int, d: int, k: int, signal: float, seed: int = 0) -> tuple[NDArray, NDArray, NDArray]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % k
    centres = draw.normal(size=(k, d)) * signal
    return (centres[labels] + draw.normal(size=(n, d))) * np.geomspace(3, 0.3, d) + 7.0, labels, centres


def _evidence(features: NDArray, labels: NDArray, classes: int) -> Evidence:
    folds = fold_moments(features, labels, classes)
    return Evidence(Moments.merge(folds), labels, lambda: features, lambda: None, folds=folds)


def _score(features: NDArray, labels: NDArray, classes: int = 3, **options: float) -> float:
    return LDA(**options).score(_evidence(features, labels, classes))


@pytest.mark.parametrize(
    ("n", "d", "k", "signal"), [(200, 5, 2, 0.5), (600, 10, 3, 0.4), (1000, 20, 8, 0.5), (900, 10, 3, 1.2)]
)
def test_it_is_near_the_accuracy_of_scikit_learn_on_fresh_images(
    n: int, d: int, k: int, signal: float
) -> None:
    features, labels, centres = _gaussians(n, d, k, signal)
    draw = np.random.default_rng(99)
    fresh = np.arange(8000) % k
    test = (centres[fresh] + draw.normal(size=(8000, d))) * np.geomspace(3, 0.3, d) + 7.0
    model = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(k, 1 / k)).fit(features, labels)
    assert _score(features, labels, k) == pytest.approx(model.score(test, fresh), abs=0.035)


@pytest.mark.parametrize(
    ("n", "d", "k", "signal"), [(150, 300, 5, 0.15), (60, 300, 3, 0.1), (150, 300, 5, 0.0)]
)
def test_with_more_features_than_images_it_is_near_the_counted_held_out_accuracy(
    n: int, d: int, k: int, signal: float
) -> None:
    estimated, counted = [], []
    for seed in range(3):
        features, labels, _ = _gaussians(n, d, k, signal, seed)
        fold, right = fold_of(labels), []
        for index in range(5):
            train, test = fold != index, fold == index
            means = np.stack([features[train][labels[train] == c].mean(0) for c in range(k)])
            rest = features[train] - means[labels[train]]
            within = rest.T @ rest / train.sum()
            within += 0.1 * np.trace(within) / train.sum() * np.eye(d)
            weights = np.linalg.solve(within, means.T)
            scores = features[test] @ weights - 0.5 * (means * weights.T).sum(1)
            right.append(scores.argmax(1) == labels[test])
        counted.append(np.concatenate(right).mean())
        estimated.append(_score(features, labels, k, shrinkage=0.1))
    assert np.mean(estimated) == pytest.approx(np.mean(counted), abs=0.06)


def test_margins_are_those_of_the_images_one_by_one() -> None:
    features, labels, _ = _gaussians(66, 12, 3, 0.5)
    fold = fold_of(labels)
    margins: dict[tuple[int, int], list[float]] = {(a, b): [] for a in range(3) for b in range(3)}
    residual: dict[tuple[int, int], list[tuple[int, float]]] = {pair: [] for pair in margins}
    for index in range(5):
        train = fold != index
        means = np.stack([features[train & (labels == c)].mean(0) for c in range(3)])
        rest = features[train] - means[labels[train]]
        within = rest.T @ rest / train.sum()
        within += 0.2 * np.trace(within) / 12 * np.eye(12)
        for a, b in margins:
            w = np.linalg.solve(within, means[a] - means[b])
            for row in np.flatnonzero(~train):
                if labels[row] == a:
                    margins[a, b].append(w @ (features[row] - (means[a] + means[b]) / 2))
                residual[a, b].append((int(labels[row]), w @ (features[row] - means[labels[row]])))
    ratios, images = held_out_margins(fold_moments(features, labels, 3), [0.2])
    assert images.tolist() == [22, 22, 22]
    for a in range(3):
        for b in range(3):
            if a == b:
                continue
            own = {c: [e for label, e in residual[a, b] if label == c] for c in range(3)}
            squares = sum(np.sum(np.square(e)) for e in own.values())
            squares -= sum(len(own[c]) * np.mean(own[c]) ** 2 for c in (a, b))
            assert ratios[0][a, b] == pytest.approx(np.mean(margins[a, b]) / np.sqrt(squares / 64), rel=1e-8)


def test_one_pair_has_normal_tails_but_for_the_share_that_images_leave() -> None:
    ratios = np.array([[0.0, 1.3], [-0.4, 0.0]])
    found = class_accuracy(ratios, np.array([9.0, 99.0]))
    assert found[0] == pytest.approx(0.9 * norm.cdf(1.3) + 0.1 * t(2).cdf(1.3), abs=1e-3)
    assert found[1] == pytest.approx(0.99 * norm.cdf(-0.4) + 0.01 * t(2).cdf(-0.4), abs=1e-3)


def test_many_classes_are_those_of_equally_distant_gaussians() -> None:
    """Centres at the corners of a simplex: each margin's mean is distance / 2 in standard deviations."""
    draw = np.random.default_rng(0)
    for k, side in ((4, 3.0), (20, 4.0), (50, 5.0)):
        noise = draw.normal(size=(100_000, k))
        noise[:, 0] += side / np.sqrt(2)
        counted = (noise.argmax(1) == 0).mean()
        ratios = np.full((k, k), side / 2) * ~np.eye(k, dtype=bool)
        assert class_accuracy(ratios, np.full(k, 1e9))[0] == pytest.approx(counted, abs=0.006)


def test_wide_margins_do_not_saturate_at_one() -> None:
    """In 600 dimensions classes of 20 images lie dozens of standard deviations apart."""
    scores = [_score(*_gaussians(60, 600, 3, signal)[:2]) for signal in (0.3, 0.6, 1.2)]
    assert scores == sorted(scores) and len(set(scores)) == 3 and scores[-1] < 1.0
    near, far = (
        class_accuracy(np.array([[0.0, z], [z, 0.0]]), np.full(2, 30.0)).mean() for z in (20.0, 40.0)
    )
    assert near < far < 1.0


def test_noise_scores_chance() -> None:
    for d in (5, 300):
        assert _score(*_gaussians(150, d, 3, 0.0)[:2]) == pytest.approx(1 / 3, abs=0.09)


def test_rotation_offset_scale_and_absent_classes_change_nothing() -> None:
    features, labels, _ = _gaussians(60, 90, 3, 0.3)
    base = _score(features, labels)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(90, 90)))[0]
    for other in (features @ turn, features * 1e4, features + 50):
        assert _score(other, labels) == pytest.approx(base, abs=1e-7)
    assert _score(features, np.array([1, 4, 8])[labels], 11) == pytest.approx(base, abs=1e-12)


def test_a_class_of_one_image_is_left_out_and_two_classes_of_two_are_needed() -> None:
    features, labels, _ = _gaussians(41, 4, 2, 0.8)
    labels[-1] = 2
    assert 0.5 < _score(features, labels, 3) < 1
    with pytest.raises(UserError, match="2 classes of 2 images"):
        _score(features[:5], np.arange(5), 5)
    with pytest.raises(UserError, match="2 classes of 2 images"):
        _score(features[:5], np.array([0, 0, 0, 1, 2]), 3)


def test_images_of_a_class_that_are_all_alike_score_near_one() -> None:
    labels = np.arange(20) % 2
    found = _score(np.eye(2)[labels] + 3.0, labels, 2)
    assert 0.99 < found <= 1.0
