"""Gaussian heads against scikit-learn's discriminant analysis and a loop that leaves each image out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tlcore.errors import UserError
from tlcore.training.gaussian import _Shared
from tlcore.training.head_inputs import labelled
from tlcore.training.heads import gda_head, prototype_head
from tlcore.training.plan import HeadProblem


def problem(n: int, d: int, k: int, seed: int = 0) -> HeadProblem:
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, k, n))
    labels[: 2 * k] = np.repeat(np.arange(k), 2)
    features = (rng.normal(size=(n, d)) * rng.uniform(0.3, 2, d) + rng.normal(size=(k, d))[labels]).astype(
        np.float32
    )
    return HeadProblem(features, labels, tuple(f"c{index}" for index in range(k)), seed)


def centred(logits: np.ndarray) -> np.ndarray:
    return np.asarray(logits - logits.mean(1, keepdims=True))


@pytest.mark.parametrize(("n", "d", "k"), [(60, 5, 3), (20, 40, 3), (30, 12, 2)])
def test_with_its_shrinkage_it_is_scikit_learns_discriminant_analysis(n: int, d: int, k: int) -> None:
    """The distances carry a scale of their own; the prior does not."""
    given = problem(n, d, k)
    solved = gda_head(given, shrinkages=13)
    x = given.features.astype(float)
    x = (x - x.mean(0)) / np.sqrt(x.var(0).mean())
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=solved.notes["shrinkage"]).fit(
        x, given.labels
    )
    logits = model.decision_function(x)
    if k == 2:
        logits = np.stack([-logits, logits], axis=1) / 2
    prior = np.log(np.bincount(given.labels) / n)
    expected = solved.notes["scale"] * (centred(logits) - centred(prior[None])) + prior
    got = given.features @ solved.tensors["weight"].T + solved.tensors["bias"]
    np.testing.assert_allclose(centred(got), centred(expected), atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("n", "d", "ratio"), [(30, 4, 0.1), (30, 4, 100.0), (16, 40, 1.0), (16, 40, 0.01)])
def test_leaving_out_in_closed_form_equals_a_loop(n: int, d: int, ratio: float) -> None:
    given = problem(n, d, 3)
    known = labelled(given, "test")
    x = given.features.astype(float)
    x = (x - x.mean(0)) / np.sqrt(x.var(0).mean())
    means = np.stack([x[given.labels == c].mean(0) for c in range(3)])
    apart = x - means[given.labels]
    added = ratio * np.trace(apart.T @ apart) / d * np.eye(d)
    expected = np.zeros((n, 3))
    for i in range(n):
        rest = np.delete(np.arange(n), i)
        means = np.stack([x[rest][given.labels[rest] == c].mean(0) for c in range(3)])
        within = x[rest] - means[given.labels[rest]]
        covariance = (within.T @ within + added) / n / (1 + ratio)
        expected[i] = [-(x[i] - m) @ np.linalg.solve(covariance, x[i] - m) / 2 for m in means]
    np.testing.assert_allclose(_Shared.of(known).left_out(ratio), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (20, 40)])
def test_mahalanobis_is_the_nearest_mean_by_ledoit_and_wolfs_covariance(n: int, d: int) -> None:
    given = problem(n, d, 3)
    solved = prototype_head(given, metric="mahalanobis")
    x = given.features.astype(float)
    x = (x - x.mean(0)) / np.sqrt(x.var(0).mean())
    means = np.stack([x[given.labels == c].mean(0) for c in range(3)])
    covariance, share = ledoit_wolf(x - means[given.labels], assume_centered=True)
    assert solved.notes["shrinkage"] == pytest.approx(share)
    apart = x[:, None] - means
    distance = np.einsum("nkd,de,nke->nk", apart, np.linalg.inv(covariance), apart)
    got = given.features @ solved.tensors["weight"].T + solved.tensors["bias"]
    np.testing.assert_allclose(
        centred(got), centred(-solved.notes["scale"] * distance / 2), atol=1e-3 * distance.max()
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 20), st.integers(0, 999), st.booleans())
def test_every_few_shot_set_gives_a_finite_head_that_names_no_absent_class(
    k: int, shots: int, d: int, seed: int, prototype: bool
) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(k), shots)
    features = rng.normal(size=(k * shots, d)).astype(np.float32)
    given = HeadProblem(features, labels, (*(f"c{c}" for c in range(k)), "absent"), seed)
    solved = prototype_head(given, metric="mahalanobis") if prototype else gda_head(given, shrinkages=7)
    assert all(np.isfinite(value).all() for value in solved.tensors.values())
    logits = 100 * rng.normal(size=(200, d)) @ solved.tensors["weight"].T + solved.tensors["bias"]
    assert (logits.argmax(1) < k).all()


def test_one_image_a_class_is_answered_by_the_nearest_image() -> None:
    given = HeadProblem(np.eye(3, 5, dtype=np.float32), np.arange(3), ("a", "b", "c"), 0)
    for solved in (gda_head(given, shrinkages=5), prototype_head(given, metric="mahalanobis")):
        logits = given.features @ solved.tensors["weight"].T + solved.tensors["bias"]
        assert (logits.argmax(1) == np.arange(3)).all()


def test_equal_images_within_each_class_are_no_division_by_zero() -> None:
    given = HeadProblem(
        np.repeat(np.eye(2, 4, dtype=np.float32), 3, axis=0), np.repeat([0, 1], 3), ("a", "b"), 0
    )
    for solved in (gda_head(given, shrinkages=5), prototype_head(given, metric="mahalanobis")):
        logits = given.features @ solved.tensors["weight"].T + solved.tensors["bias"]
        assert np.isfinite(logits).all() and (logits.argmax(1) == given.labels).all()


def test_one_class_or_features_that_do_not_vary_are_errors() -> None:
    given = problem(12, 4, 2)
    with pytest.raises(UserError, match="at least two classes"):
        gda_head(replace(given, labels=np.zeros(12, np.int64)), shrinkages=3)
    with pytest.raises(UserError, match="are the same"):
        gda_head(replace(given, features=np.ones((12, 4), np.float32)), shrinkages=3)
