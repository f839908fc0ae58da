"""NLEEP against loops over images, classes and clusters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from tlcore.features.moments import Moments
from tlcore.protocols import Evidence
from tlcore_scorers.nleep import REGULARISATION, NLeep, leep_of_clusters


def problem(n: int, d: int, classes: int = 3, signal: float = 1.0) -> tuple[NDArray, NDArray]:
    draw = np.random.default_rng(0)
    labels = np.arange(n) % classes
    return draw.normal(size=(classes, d))[labels] * signal + draw.normal(size=(n, d)), labels


def score(features: NDArray, labels: NDArray, seed: int = 0, **options: object) -> float:
    moments = Moments.of(features, labels, int(labels.max()) + 1)
    return NLeep(**options).score(Evidence(moments, labels, lambda: features, lambda: None, seed))


def leep_by_loops(posterior: NDArray, labels: NDArray) -> float:
    n, clusters = posterior.shape
    total = 0.0
    for i in range(n):
        likelihood = 0.0
        for z in range(clusters):
            mass = sum(posterior[j, z] for j in range(n))
            if mass > 0:
                with_label = sum(posterior[j, z] for j in range(n) if labels[j] == labels[i])
                likelihood += posterior[i, z] * with_label / mass
        total += math.log(likelihood)
    return total / n


@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_leep_is_what_loops_over_images_and_clusters_give(n: int, clusters: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    posterior = draw.dirichlet(np.full(clusters, 0.3), size=n)
    labels = draw.integers(0, 3, size=n)
    found = leep_of_clusters(posterior, labels, 3)
    assert found == pytest.approx(leep_by_loops(posterior, labels), abs=1e-12) and found <= 1e-12


def test_a_cluster_without_images_divides_nothing_by_zero() -> None:
    posterior = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    assert leep_of_clusters(posterior, np.array([0, 1, 1]), 2) == pytest.approx(2 / 3 * math.log(0.5))


@pytest.mark.parametrize(("n", "d"), [(120, 10), (60, 150)])
@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_the_parts_of_scikit_learn_put_together_agree(n: int, d: int, covariance: str) -> None:
    features, labels = problem(n, d)
    rows = PCA(0.8).fit_transform(features)
    rows /= math.sqrt((rows**2).mean())
    mixture = GaussianMixture(
        min(15, n // 3), covariance_type=covariance, reg_covar=REGULARISATION, random_state=0
    )
    expected = leep_by_loops(mixture.fit(rows).predict_proba(rows), labels)
    assert score(features, labels, covariance=covariance) == pytest.approx(expected, abs=1e-6)


def test_the_logarithm_is_taken_so_that_pure_clusters_score_zero_and_noise_the_class_entropy() -> None:
    features, labels = problem(120, 6, signal=30.0)
    assert score(features, labels) == pytest.approx(0.0, abs=1e-9)
    noise, labels = problem(600, 2, signal=0.0)
    assert -math.log(3) - 0.01 < score(noise, labels, components_per_class=1) < -math.log(3) + 0.05


def test_few_images_get_fewer_components_than_asked_for() -> None:
    features, labels = problem(12, 4, signal=0.0)
    assert -math.log(3) - 0.01 < score(features, labels, components_per_class=20) < -0.05
