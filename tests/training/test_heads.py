from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from tlcore.errors import UserError
from tlcore.training.heads import logistic_head
from tlcore.training.plan import HeadProblem


def problem(n: int, d: int, k: int, seed: int = 0) -> HeadProblem:
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % k
    features = (rng.normal(size=(n, d)) + 2 * rng.normal(size=(k, d))[labels] + 5).astype(np.float32)
    return HeadProblem(features, labels, tuple(f"c{index}" for index in range(k)), seed)


@pytest.mark.parametrize(("n", "d", "k"), [(60, 7, 3), (24, 40, 4), (40, 6, 2), (12, 30, 2)])
def test_the_head_minimises_the_penalised_log_loss(n: int, d: int, k: int) -> None:
    """Against SciPy on the plain objective over standardised features, no rotation, no folding."""
    given = problem(n, d, k)
    weight, bias, notes = logistic_head(given, penalties=1, folds=2)
    x = given.features.astype(float)
    standard = (x - x.mean(0)) / x.std(0)
    rows = k if k > 2 else 1

    def objective(flat: np.ndarray) -> float:
        w, b = flat[: rows * d].reshape(rows, d), flat[rows * d :]
        logits = standard @ w.T + b
        if k == 2:
            logits = np.hstack([np.zeros_like(logits), logits])
        top = logits.max(1, keepdims=True)
        log_z = top[:, 0] + np.log(np.exp(logits - top).sum(1))
        return float((log_z - logits[np.arange(n), given.labels]).sum() + (w**2).sum() / 2)

    best = minimize(
        objective,
        np.zeros(rows * (d + 1)),
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10**7, "ftol": 1e-14},
    )
    w, b = best.x[: rows * d].reshape(rows, d), best.x[rows * d :]
    expected = standard @ w.T + b
    if k == 2:
        expected = np.hstack([np.zeros_like(expected), expected])
    got = x @ weight.T + bias
    softmax = [
        np.exp(z - z.max(1, keepdims=True)) / np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)
        for z in (expected, got)
    ]
    np.testing.assert_allclose(softmax[1], softmax[0], atol=5e-3)
    assert notes["penalty"] == 1.0


def test_scaling_and_shifting_the_features_changes_no_prediction() -> None:
    given = problem(40, 12, 4)
    moved = HeadProblem(given.features * 1000 + 50, given.labels, given.classes, given.seed)
    a, b = (logistic_head(p, penalties=5, folds=4) for p in (given, moved))
    left = given.features @ a[0].T + a[1]
    right = moved.features.astype(float) @ b[0].T + b[1]
    np.testing.assert_allclose(
        left - left.mean(1, keepdims=True), right - right.mean(1, keepdims=True), atol=2e-2
    )


def test_constant_features_are_ignored() -> None:
    given = problem(30, 5, 3)
    padded = HeadProblem(
        np.hstack([given.features, np.full((30, 2), 1e4, np.float32)]), given.labels, given.classes, 0
    )
    weight, _, _ = logistic_head(padded, penalties=3, folds=3)
    assert np.all(weight[:, 5:] == 0)


def test_a_class_without_images_is_never_predicted() -> None:
    given = problem(30, 5, 3)
    more = HeadProblem(given.features, given.labels, (*given.classes, "absent"), 0)
    weight, bias, _ = logistic_head(more, penalties=3, folds=3)
    assert weight.shape == (4, 5) and set((given.features @ weight.T + bias).argmax(1)) == {0, 1, 2}


def test_one_image_in_a_class_needs_no_cross_validation() -> None:
    given = problem(9, 4, 3)
    labels = given.labels.copy()
    labels[labels == 2] = 1
    labels[0] = 2
    weight, bias, notes = logistic_head(
        HeadProblem(given.features, labels, given.classes, 0), penalties=5, folds=3
    )
    assert np.isfinite(weight).all() and np.isfinite(bias).all() and "log_loss" not in notes


def test_one_class_is_an_error() -> None:
    given = problem(9, 4, 3)
    with pytest.raises(UserError, match="at least two classes"):
        logistic_head(
            HeadProblem(given.features, np.zeros(9, np.int64), given.classes, 0), penalties=3, folds=3
        )
