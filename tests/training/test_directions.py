"""Heads of directions: class prototypes by the cosine, and neighbours; against loops and scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from torch import from_numpy, nn

from tlcore.errors import UserError
from tlcore.training.heads import knn_head, prototype_head
from tlcore.training.network import Network
from tlcore.training.plan import HeadProblem, Solved


def problem(n: int, d: int, k: int, seed: int = 0) -> HeadProblem:
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % k
    features = (rng.normal(size=(n, d)) + rng.normal(size=(k, d))[labels] + 5).astype(np.float32)
    return HeadProblem(features, labels, tuple(f"c{index}" for index in range(k)), seed)


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def chances(solved: Solved, features: np.ndarray, classes: int) -> np.ndarray:
    network = Network(nn.Identity(), features.shape[1], classes)
    network.set_head(solved)
    answers: np.ndarray = network(from_numpy(features.astype(np.float32))).softmax(1).detach().numpy()
    return answers


def test_prototypes_are_mean_directions_and_their_scale_is_the_best_for_images_left_out() -> None:
    given = problem(24, 6, 3)
    solved = prototype_head(given, metric="cosine")
    z = unit(given.features - given.features.astype(float).mean(0))
    cosines = np.zeros((24, 3))
    for i in range(24):
        for c in range(3):
            members = [j for j in range(24) if given.labels[j] == c and j != i]
            cosines[i, c] = z[i] @ unit(z[members].mean(0))

    def loss(scale: float) -> float:
        raised = np.exp(scale * cosines)
        return float(log_loss(given.labels, raised / raised.sum(1, keepdims=True)))

    best = minimize_scalar(loss, bounds=(0.01, 100), method="bounded")
    assert solved.notes["log_loss"] == pytest.approx(loss(solved.notes["scale"]), rel=1e-6)
    assert solved.notes["scale"] == pytest.approx(best.x, rel=1e-2)
    prototypes = np.stack([unit(z[given.labels == c].mean(0)) for c in range(3)])
    raised = np.exp(solved.notes["scale"] * z @ prototypes.T)
    np.testing.assert_allclose(
        chances(solved, given.features, 3), raised / raised.sum(1, keepdims=True), atol=1e-4
    )


def test_given_k_and_temperature_it_is_scikit_learns_search() -> None:
    given = problem(40, 6, 3)
    new = np.random.default_rng(5).normal(5, 1.5, size=(30, 6)).astype(np.float32)
    solved = knn_head(given, neighbours=7, temperature=0.2, max_images=100)
    centre = given.features.astype(float).mean(0)
    search = KNeighborsClassifier(7, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.2))
    expected = search.fit(given.features - centre, given.labels).predict_proba(new - centre)
    np.testing.assert_allclose(chances(solved, new, 3), 0.99 * expected + 0.01 / 3, atol=1e-4)


def test_k_and_temperature_have_the_least_log_loss_of_images_left_out() -> None:
    given = problem(30, 5, 3)
    solved = knn_head(given, neighbours=None, temperature=None, max_images=100)
    z = unit(given.features - given.features.astype(float).mean(0))
    losses = {}
    for k in (1, 2, 3, 5, 7, 10, 15, 20):
        for heat in (0.01, 0.02, 0.05, 0.07, 0.1, 0.2, 0.5):
            terms = []
            for i in range(30):
                cosines = z @ z[i]
                cosines[i] = -np.inf
                near = np.argsort(-cosines)[:k]
                weight = np.exp((cosines[near] - 1) / heat)
                share = weight[given.labels[near] == given.labels[i]].sum() / weight.sum()
                terms.append(-np.log(0.99 * share + 0.01 / 3))
            losses[k, heat] = np.mean(terms)
    best = min(losses, key=lambda pair: losses[pair])
    assert (solved.head.neighbours, solved.head.temperature) == best
    assert solved.notes["log_loss"] == pytest.approx(losses[best], rel=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 20), st.integers(0, 999), st.booleans())
def test_every_few_shot_set_gives_a_head_that_names_no_absent_class(
    k: int, shots: int, d: int, seed: int, prototype: bool
) -> None:
    given = problem(k * shots, d, k, seed)
    given = replace(given, classes=("absent", *given.classes), labels=given.labels + 1)
    solved = (
        prototype_head(given, metric="cosine")
        if prototype
        else knn_head(given, neighbours=None, temperature=None, max_images=100)
    )
    new = np.concatenate([100 * np.random.default_rng(seed).normal(size=(50, d)), given.features])
    answers = chances(solved, new, k + 1)
    assert np.isfinite(answers).all() and (answers.argmax(1) > 0).all()


@pytest.mark.parametrize("prototype", [True, False])
def test_one_image_a_class_is_answered_by_the_nearest_direction(prototype: bool) -> None:
    given = HeadProblem(np.eye(3, 5, dtype=np.float32), np.arange(3), ("a", "b", "c"), 0)
    solved = (
        prototype_head(given, metric="cosine")
        if prototype
        else knn_head(given, neighbours=None, temperature=None, max_images=100)
    )
    answers = chances(solved, given.features, 3)
    assert (answers.argmax(1) == np.arange(3)).all() and "log_loss" in solved.notes or not prototype


def test_of_more_images_than_may_be_stored_each_class_keeps_its_share() -> None:
    given = problem(90, 4, 3)
    solved = knn_head(given, neighbours=3, temperature=0.1, max_images=30)
    np.testing.assert_array_equal(solved.tensors["votes"].sum(0), [10, 10, 10])
    assert solved.head.images == 30
    again = knn_head(given, neighbours=3, temperature=0.1, max_images=30)
    np.testing.assert_array_equal(solved.tensors["bank"], again.tensors["bank"])


@pytest.mark.parametrize("neighbours", [1, 1000])
def test_any_number_of_neighbours_is_cut_to_the_images_there_are(neighbours: int) -> None:
    solved = knn_head(problem(6, 4, 3), neighbours=neighbours, temperature=None, max_images=100)
    assert 1 <= solved.head.neighbours <= 6


def test_one_class_or_features_that_do_not_vary_are_errors() -> None:
    given = problem(12, 4, 2)
    for fit in (
        lambda p: prototype_head(p, metric="cosine"),
        lambda p: knn_head(p, neighbours=1, temperature=None, max_images=9),
    ):
        with pytest.raises(UserError, match="at least two classes"):
            fit(replace(given, labels=np.zeros(12, np.int64)))
        with pytest.raises(UserError, match="are the same"):
            fit(replace(given, features=np.ones((12, 4), np.float32)))
