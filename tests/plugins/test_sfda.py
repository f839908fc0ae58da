"""SFDA against scikit-learn's discriminant analysis and the generalised eigenproblem of the authors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import eigh
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tlcore.features.moments import Moments
from tlcore.protocols import Evidence
from tlcore_scorers.sfda import Sfda, confident_mixture, discriminant, shrinkage_by


def problem(n: int, d: int, classes: int = 3, signal: float = 0.3, seed: int = 0) -> tuple[NDArray, NDArray]:
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(n) % classes)
    spread = np.geomspace(0.6, 0.1, d)
    return draw.normal(size=(classes, d))[labels] * signal + draw.normal(size=(n, d)) * spread, labels


def score(features: NDArray, labels: NDArray, **options: object) -> float:
    moments = Moments.of(features, labels, int(labels.max()) + 1)
    return Sfda(**options).score(Evidence(moments, labels, lambda: features, lambda: None))


def scatter_inside(features: NDArray, labels: NDArray) -> NDArray:
    total = np.zeros((features.shape[1],) * 2)
    for label in np.unique(labels):
        group = features[labels == label]
        total += len(group) / len(features) * np.cov(group.T, bias=True)
    return total


def by_eigenvectors(features: NDArray, labels: NDArray, shrinkage: float) -> NDArray:
    """Probabilities [n, K] of Fisher's generalised eigenproblem with all eigenvectors kept."""
    inside = scatter_inside(features, labels)
    d = len(inside)
    shrunk = (1 - shrinkage) * inside + shrinkage * np.trace(inside) / d * np.eye(d)
    means = np.stack([features[labels == label].mean(0) for label in np.unique(labels)])
    _, vectors = eigh(np.cov(features.T, bias=True) - shrunk, shrunk)
    weights = means @ vectors @ vectors.T
    prior = np.bincount(labels) / len(labels)
    logits = features @ weights.T - 0.5 * np.diag(means @ weights.T) + np.log(prior)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def by_loops(features: NDArray, labels: NDArray, shrinkage: float) -> NDArray:
    """Probabilities of the labels after the second stage, [n]; images are moved one at a time."""
    first = by_eigenvectors(features, labels, shrinkage)
    classes = np.unique(labels)
    harder = np.empty_like(features)
    for i, (x, label) in enumerate(zip(features, labels, strict=True)):
        softened = np.exp(first[i]) / np.exp(first[i]).sum()
        others = np.mean([features[labels == c].mean(0) for c in classes if c != label], axis=0)
        harder[i] = softened[label] * x + (1 - softened[label]) * others
    return by_eigenvectors(harder, labels, shrinkage)[np.arange(len(labels)), labels]


@pytest.mark.parametrize(("n", "d"), [(80, 6), (25, 60)])
@pytest.mark.parametrize("shrinkage", [0.05, 0.5])
def test_one_linear_system_is_the_discriminant_analysis_of_scikit_learn(
    n: int, d: int, shrinkage: float
) -> None:
    from tlcore.selection.subsets import rotated

    features, labels = problem(n, d)
    centred = features - features.mean(0)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(features, labels)
    expected = theirs.predict_proba(features)
    for rows in (centred, rotated(centred)):
        ours = discriminant(rows, labels, 3, d, shrinkage)
        np.testing.assert_allclose(np.exp(ours.log_probabilities), expected, atol=1e-9)
    np.testing.assert_allclose(by_eigenvectors(features, labels, shrinkage), expected, atol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(80, 6), (25, 60)])
def test_the_authors_two_stages_in_loops_agree(n: int, d: int) -> None:
    features, labels = problem(n, d)
    inside = scatter_inside(features, labels)
    means = np.stack([features[labels == label].mean(0) for label in range(3)])
    rules = {
        "paper": max(np.exp(-5 * np.linalg.eigvalsh(inside)[-1]), 1e-10),
        "ledoit-wolf": ledoit_wolf_shrinkage(features - means[labels], assume_centered=True),
    }
    for rule, shrinkage in rules.items():
        expected = by_loops(features, labels, shrinkage)
        found = score(features, labels, shrinkage=rule, measure="probability")
        assert found == pytest.approx(expected.mean(), abs=1e-8)
        found = score(features, labels, shrinkage=rule)
        assert found == pytest.approx(np.log(expected).mean(), rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(80, 6), (25, 60)])
def test_the_shrinkage_is_that_of_scikit_learn_also_in_the_row_space(n: int, d: int) -> None:
    from tlcore.selection.subsets import rotated

    features, labels = problem(n, d)
    inner = features - np.stack([features[labels == label].mean(0) for label in range(3)])[labels]
    expected = ledoit_wolf_shrinkage(inner, assume_centered=True)
    for rows in (inner, rotated(inner)):
        values = np.linalg.eigvalsh(rows.T @ rows / n)
        assert shrinkage_by("ledoit-wolf", values, rows, d) == pytest.approx(expected, rel=1e-9)


def test_moved_images_lie_between_themselves_and_the_other_classes() -> None:
    rows = np.array([[0.0, 0], [0, 2], [4, 0], [4, 2]])
    labels = np.array([0, 0, 1, 1])
    kept = rows.copy()
    sure = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    confidence = np.e / (np.e + 1)
    expected = confidence * rows + (1 - confidence) * np.array([[4.0, 1]] * 2 + [[0, 1]] * 2)
    np.testing.assert_allclose(confident_mixture(rows, labels, sure), expected, atol=1e-12)
    np.testing.assert_array_equal(rows, kept)


def test_the_paper_s_shrinkage_ties_noise_with_features_that_know_something_and_the_default_parts_these() -> (
    None
):
    good, labels = problem(60, 100, signal=0.1)
    noise = np.random.default_rng(1).normal(size=(60, 100))
    noise[:, 0] *= 10  # sigma_max above 4.6
    good[:, 0] *= 10
    assert score(good, labels, shrinkage="paper", measure="probability") == pytest.approx(1, abs=1e-9)
    assert score(noise, labels, shrinkage="paper", measure="probability") == pytest.approx(1, abs=1e-9)
    assert score(good, labels) > score(noise, labels) + 0.001


def test_a_known_limit_the_default_too_overfits_where_features_are_more_than_images() -> None:
    """In-sample: wide noise beats narrow features that know the classes, and wide ones that know them tie at 0."""
    labels = np.arange(60) % 3
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(60, 512))
    narrow = draw.normal(size=(3, 16))[labels] + draw.normal(size=(60, 16))
    assert score(narrow, labels) < -0.05 < -0.02 < score(noise, labels) < 0
    for signal in (0.5, 1.0):
        assert score(signal * draw.normal(size=(3, 512))[labels] + noise, labels) == pytest.approx(
            0, abs=1e-12
        )
    assert "overfits" in Sfda.card.summary


def test_classes_that_are_points_score_finitely() -> None:
    labels = np.arange(12) % 3
    assert score(np.eye(3)[labels], labels) <= 0
    assert score(np.eye(3)[labels], labels, shrinkage="paper", measure="probability") <= 1
