"""Ridge heads against scikit-learn, a loop that leaves each image out, and the same from sums alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss

from tlcore.errors import UserError
from tlcore.features.moments import Moments
from tlcore.features.regression import RegressionMoments
from tlcore.training.heads import ridge_head, ridge_weights
from tlcore.training.plan import HeadProblem


def problem(n: int, d: int, k: int, seed: int = 0) -> HeadProblem:
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % k
    features = (rng.normal(size=(n, d)) + 1.5 * rng.normal(size=(k, d))[labels] + 5).astype(np.float32)
    return HeadProblem(features, labels, tuple(f"c{index}" for index in range(k)), seed)


def scaled(given: HeadProblem) -> np.ndarray:
    x = given.features.astype(float)
    return np.asarray((x - x.mean(0)) / np.sqrt(x.var(0).mean()))


def left_out(x: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """Each image foretold by scikit-learn's ridge regression of the others."""
    found = []
    for i in range(len(x)):
        rest = np.delete(np.arange(len(x)), i)
        found.append(Ridge(alpha=penalty).fit(x[rest], targets[rest]).predict(x[i : i + 1])[0])
    return np.asarray(found)


@pytest.mark.parametrize(("n", "d", "k"), [(40, 6, 3), (18, 30, 2), (12, 12, 4)])
def test_penalty_and_scale_are_those_of_a_loop_that_leaves_each_image_out(n: int, d: int, k: int) -> None:
    given = problem(n, d, k)
    solved, x, targets = ridge_head(given, penalties=9), scaled(given), np.eye(k)[given.labels]
    top = np.linalg.svd(x, compute_uv=False)[0] ** 2
    grid = top * np.logspace(-6, 2, 9)
    best = min(grid, key=lambda t: float(((targets - left_out(x, targets, t)) ** 2).sum()))
    assert solved.notes["penalty"] == pytest.approx(best)
    outputs = left_out(x, targets, best)

    def loss(scale: float) -> float:
        raised = np.exp(scale * outputs - (scale * outputs).max(1, keepdims=True))
        return float(log_loss(given.labels, raised / raised.sum(1, keepdims=True)))

    found = minimize_scalar(loss, bounds=(1e-3, solved.notes["scale"] * 3), method="bounded")
    assert solved.notes["log_loss"] == pytest.approx(loss(solved.notes["scale"]), rel=1e-6)
    assert solved.notes["log_loss"] <= found.fun * (1 + 1e-4)
    model = Ridge(alpha=best).fit(x, targets)
    expected = solved.notes["scale"] * model.predict(x)
    got = given.features @ solved.tensors["weight"].T + solved.tensors["bias"]
    np.testing.assert_allclose(
        got, expected - expected.mean(1, keepdims=True), atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.parametrize(("n", "d"), [(40, 6), (15, 30)])
def test_the_weights_need_only_sums_over_images(n: int, d: int) -> None:
    given = problem(n, d, 3)
    solved = ridge_head(given, penalties=20)
    weight, bias = ridge_weights(Moments.of(given.features, given.labels, 3), solved.notes["penalty"])
    weight, bias = weight * solved.notes["scale"], bias * solved.notes["scale"]
    np.testing.assert_allclose(
        solved.tensors["weight"], weight - weight.mean(0), atol=1e-6 * np.abs(weight).max()
    )
    np.testing.assert_allclose(solved.tensors["bias"], bias - bias.mean(), atol=1e-6 * np.abs(bias).max())


@pytest.mark.parametrize(("n", "d"), [(40, 6), (15, 30)])
def test_numbers_are_foretold_in_their_unit(n: int, d: int) -> None:
    given = problem(n, d, 2)
    rng = np.random.default_rng(1)
    y = 1000 + 50 * given.features.astype(float) @ rng.normal(size=d) + rng.normal(size=n)
    given = replace(given, labels=y, classes=("height",), task="regression")
    solved, x = ridge_head(given, penalties=15), scaled(given)
    penalty = solved.notes["penalty"]
    error = y - left_out(x, y, penalty)
    assert solved.notes["r2"] == pytest.approx(1 - (error**2).sum() / ((y - y.mean()) ** 2).sum(), abs=1e-6)
    got = given.features @ solved.tensors["weight"].T + solved.tensors["bias"]
    np.testing.assert_allclose(got[:, 0], Ridge(alpha=penalty).fit(x, y).predict(x), atol=0.05)
    weight, bias = ridge_weights(RegressionMoments.of(given.features, y), penalty)
    np.testing.assert_allclose(solved.tensors["weight"], weight, atol=1e-6 * np.abs(weight).max())
    np.testing.assert_allclose(solved.tensors["bias"], bias, rtol=1e-6)


def test_tags_are_foretold_one_by_one_with_a_scale_in_common() -> None:
    given = problem(60, 8, 3)
    tags = np.stack([given.labels == 0, given.labels != 1, np.zeros(60), np.ones(60)], axis=1).astype(float)
    given = replace(given, labels=tags, classes=("a", "b", "never", "always"), task="multi-label")
    solved = ridge_head(given, penalties=15)
    logits = given.features @ solved.tensors["weight"].T + solved.tensors["bias"]
    assert ((logits > 0) == tags.astype(bool)).mean() > 0.95
    assert (logits[:, 2] < -20).all() and (logits[:, 3] > 3).all()
    x, penalty = scaled(given), solved.notes["penalty"]
    outputs = left_out(x, tags[:, :2], penalty) - tags[:, :2].mean(0)
    slope = Ridge(alpha=penalty).fit(x, tags[:, :2]).predict(x) - tags[:, :2].mean(0)
    offset = logits[:, :2] - solved.notes["scale"] * slope
    np.testing.assert_allclose(offset, np.broadcast_to(offset[0], offset.shape), atol=1e-3)
    chances = 1 / (1 + np.exp(-(solved.notes["scale"] * outputs + offset[0])))
    assert solved.notes["log_loss"] == pytest.approx(log_loss(tags[:, :2].ravel(), chances.ravel()), rel=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 20), st.integers(0, 999))
def test_every_few_shot_set_gives_a_finite_head_that_names_no_absent_class(
    k: int, shots: int, d: int, seed: int
) -> None:
    given = problem(k * shots, d, k, seed)
    given = replace(given, classes=(*given.classes, "absent"))
    solved = ridge_head(given, penalties=8)
    assert all(np.isfinite(value).all() for value in solved.tensors.values())
    x = 100 * np.random.default_rng(seed).normal(size=(200, d))
    logits = x @ solved.tensors["weight"].T + solved.tensors["bias"]
    assert (logits.argmax(1) < k).all()


def test_moving_and_scaling_the_features_changes_no_prediction() -> None:
    given = problem(40, 12, 4)
    moved = replace(given, features=given.features * 1000 + 50)
    logits = []
    for p in (given, moved):
        solved = ridge_head(p, penalties=10)
        logits.append(p.features.astype(float) @ solved.tensors["weight"].T + solved.tensors["bias"])
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-2 * np.abs(logits[0]).max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(9, np.int64)}, "at least two classes"),
        ({"features": np.ones((9, 4), np.float32)}, "are the same"),
        ({"features": np.full((9, 4), np.nan, np.float32)}, "not finite"),
        ({"labels": np.full(9, 3.0), "task": "regression"}, "labels of all training images are the same"),
        ({"labels": np.full(9, np.inf), "task": "regression"}, "not finite"),
        ({"labels": np.ones((9, 2)), "task": "multi-label"}, "labels of all training images are the same"),
    ],
)
def test_what_cannot_be_fitted_is_an_error(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ridge_head(replace(problem(9, 4, 3), **change), penalties=5)  # type: ignore[arg-type]
