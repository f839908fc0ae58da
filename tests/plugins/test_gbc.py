"""Bhattacharyya distances against numerical integration and a loop over classes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import norm

from tlcore.errors import UserError
from tlcore.features.moments import Moments
from tlcore.testing import tiny_evidence
from tlcore_scorers.gbc import GBC, bhattacharyya_distances


def _problem(n: int = 60, d: int = 4, k: int = 3, seed: int = 0) -> tuple[NDArray, NDArray]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % k
    spread = draw.uniform(0.5, 2.0, size=(k, d))
    return draw.normal(size=(k, d))[labels] + draw.normal(size=(n, d)) * spread[labels] + 9.0, labels


def test_one_feature_gives_the_integral_of_the_root_of_both_densities() -> None:
    features, labels = _problem(d=1)
    distances = bhattacharyya_distances(Moments.of(features, labels, 3))
    for i in range(3):
        for j in range(i):
            one, other = (norm(features[labels == c].mean(), features[labels == c].std()) for c in (i, j))
            overlap = quad(lambda x, p=one, q=other: np.sqrt(p.pdf(x) * q.pdf(x)), -10, 30, points=[9.0])[0]
            assert np.exp(-distances[i, j]) == pytest.approx(overlap, rel=1e-6)


@pytest.mark.parametrize("spherical", [False, True])
def test_all_features_give_the_formula_of_the_paper(spherical: bool) -> None:
    features, labels = _problem()
    found = bhattacharyya_distances(Moments.of(features, labels, 3), spherical=spherical)
    for i in range(3):
        for j in range(3):
            a, b = features[labels == i], features[labels == j]
            left, right = a.var(0), b.var(0)
            if spherical:
                left, right = np.full(4, left.mean()), np.full(4, right.mean())
            both = np.diag((left + right) / 2)
            gap = a.mean(0) - b.mean(0)
            wanted = gap @ np.linalg.inv(both) @ gap / 8 + 0.5 * np.log(
                np.linalg.det(both) / np.sqrt(left.prod() * right.prod())
            )
            assert found[i, j] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    scorer = GBC(covariance="spherical" if spherical else "diagonal", log=False)
    evidence = tiny_evidence(dim=4)
    pairs = np.exp(-bhattacharyya_distances(evidence.moments, spherical=spherical))
    assert scorer.score(evidence) == pytest.approx(-(pairs.sum() - np.trace(pairs)), rel=1e-12)


def test_the_log_keeps_the_order_and_does_not_underflow() -> None:
    for d in (6, 800):
        evidence = [tiny_evidence(dim=d, skill=s) for s in (0.0, 0.5, 1.0, 3.0)]
        scores = [GBC().score(one) for one in evidence]
        assert scores == sorted(scores) and len(set(scores)) == 4 and np.isfinite(scores).all()
        plain = [GBC(log=False).score(one) for one in evidence]
        assert plain == sorted(plain) and max(plain) <= 0.0
    assert GBC(log=False).score(tiny_evidence(dim=6)) == pytest.approx(
        -np.exp(-GBC().score(tiny_evidence(dim=6))), rel=1e-12
    )


def test_a_known_limit_pure_noise_adds_one_over_twice_the_images_of_a_class_per_feature() -> None:
    features = np.random.default_rng(0).normal(size=(200, 2048))
    distances = bhattacharyya_distances(Moments.of(features, np.arange(200) % 5, 5))
    assert distances[~np.eye(5, dtype=bool)].mean() / 2048 == pytest.approx(1 / 80, rel=0.1)
    assert "width" in GBC.card.summary


def test_a_class_of_one_image_takes_the_variance_within_the_classes() -> None:
    features, labels = _problem(n=41, k=2)
    labels[-1] = 2
    found = bhattacharyya_distances(Moments.of(features, labels, 3))
    pooled = sum(features[labels == c].var(0) * (labels == c).sum() for c in (0, 1)) / 41
    first, gap = features[labels == 0].var(0), features[labels == 0].mean(0) - features[-1]
    middle = (first + pooled) / 2
    wanted = (gap**2 / middle).sum() / 8 + 0.5 * np.log(middle / np.sqrt(first * pooled)).sum()
    assert found[0, 2] == pytest.approx(wanted, rel=1e-9)
    with pytest.raises(UserError, match="at least 2 images"):
        GBC().score(tiny_evidence(images=5, classes=5))


def test_a_feature_that_is_constant_in_one_class_counts_as_the_floor_says_and_dead_ones_not_at_all() -> None:
    features, labels = _problem()
    features[labels == 0, 1] = 2.0
    wide = np.column_stack([features, np.full((60, 3), 4.0)])
    found = bhattacharyya_distances(Moments.of(wide, labels, 3), floor=0.01)
    least = 0.01 * features[:, 1].var()
    other = features[labels == 1].var(0)
    first = np.maximum(features[labels == 0].var(0), 0.01 * features.var(0))
    assert first[1] == pytest.approx(least)
    middle, gap = (first + other) / 2, features[labels == 0].mean(0) - features[labels == 1].mean(0)
    wanted = (gap**2 / middle).sum() / 8 + 0.5 * np.log(middle / np.sqrt(first * other)).sum()
    assert found[0, 1] == pytest.approx(wanted, rel=1e-9)
