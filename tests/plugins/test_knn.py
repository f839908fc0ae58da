"""k nearest neighbours against scikit-learn's search and a loop over images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from tlcore.features.moments import Moments
from tlcore.protocols import Evidence
from tlcore_scorers.knn import BLOCK, KNearestNeighbours, leave_one_out_votes


def problem(n: int, d: int, classes: int = 4, signal: float = 0.5) -> tuple[NDArray, NDArray]:
    draw = np.random.default_rng(0)
    labels = np.arange(n) % classes
    return draw.normal(size=(classes, d))[labels] * signal + draw.normal(size=(n, d)), labels


def score(features: NDArray, labels: NDArray, **options: object) -> float:
    moments = Moments.of(features, labels, int(labels.max()) + 1)
    return KNearestNeighbours(**options).score(Evidence(moments, labels, lambda: features, lambda: None))


@pytest.mark.parametrize(("n", "d", "k"), [(60, 6, 1), (60, 6, 5), (40, 90, 10), (20, 5, 50)])
def test_a_loop_that_leaves_each_image_out_of_scikit_learn_agrees(n: int, d: int, k: int) -> None:
    features, labels = problem(n, d)
    centred = features - features.mean(0)
    correct, share = [], []
    for i in range(n):
        rest = np.delete(np.arange(n), i)
        search = KNeighborsClassifier(
            min(k, n - 1), metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
        )
        probabilities = search.fit(centred[rest], labels[rest]).predict_proba(centred[i : i + 1])[0]
        correct.append(probabilities.argmax() == labels[i])
        share.append(probabilities[labels[i]])
    assert score(features, labels, neighbours=k) == pytest.approx(np.mean(share), abs=2e-5)
    assert score(features, labels, neighbours=k, measure="accuracy") == pytest.approx(
        np.mean(correct) + np.mean(share) / (n + 1), abs=1e-6
    )


def test_blocks_of_rows_give_what_one_product_gives() -> None:
    features, labels = problem(BLOCK + 37, 4)
    votes = leave_one_out_votes(features, labels, 4, 7, 0.1)
    np.testing.assert_allclose(votes.sum(1), 1, atol=1e-6)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for i in (0, 500, BLOCK - 1, BLOCK, BLOCK + 36):
        near = unit @ unit[i]
        near[i] = -np.inf
        chosen = np.argsort(-near)[:7]
        weight = np.exp(near[chosen] / 0.1)
        np.testing.assert_allclose(votes[i], np.bincount(labels[chosen], weight, 4) / weight.sum(), atol=1e-4)


def test_all_images_as_near_as_the_last_neighbour_vote() -> None:
    features = np.array([[1.0, 0], [1, 1], [1, 1], [1, -1], [0, 1]])
    votes = leave_one_out_votes(features, np.array([0, 0, 1, 1, 0]), 2, 1, 100.0)
    np.testing.assert_allclose(votes[0], [1 / 3, 2 / 3], atol=1e-6)  # three at 45 degrees
    np.testing.assert_allclose(votes[1], [0, 1], atol=1e-6)  # its twin alone


def test_accuracy_orders_by_steps_and_then_by_the_share_of_votes() -> None:
    scores = [
        score(*problem(50, 8, signal=s), neighbours=3, measure="accuracy") for s in (0.0, 0.5, 1.0, 3.0)
    ]
    assert scores == sorted(scores) and scores[-1] <= 1 + 1 / 51
    assert all(score * 50 % 1 <= 50 / 51 + 1e-9 for score in scores)


def test_a_vector_of_length_zero_is_far_from_none_and_near_to_none() -> None:
    features, labels = problem(20, 3)
    features[4] = 0
    votes = leave_one_out_votes(features, labels, 4, 3, 0.07)
    np.testing.assert_allclose(votes[4], np.bincount(np.delete(labels, 4), minlength=4) / 19, atol=1e-6)
