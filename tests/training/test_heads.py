from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from tlcore.errors import PluginError, UserError
from tlcore.training.heads import Standard, logistic_head
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


@pytest.mark.parametrize(("n", "d", "k"), [(30, 5, 3), (20, 40, 2)])
def test_a_weight_counts_like_as_many_copies_of_the_image(n: int, d: int, k: int) -> None:
    given = problem(n, d, k)
    copies = np.random.default_rng(0).integers(0, 4, n)
    copies[:k] = 2
    repeated = HeadProblem(
        np.repeat(given.features, copies, axis=0), np.repeat(given.labels, copies), given.classes, 0
    )
    left = logistic_head(given, penalties=1, folds=2, weights=copies)
    right = logistic_head(repeated, penalties=1, folds=2)
    np.testing.assert_allclose(
        given.features @ left[0].T + left[1], given.features @ right[0].T + right[1], atol=2e-2
    )


def test_equal_weights_change_nothing() -> None:
    given = problem(40, 6, 4)
    plain = logistic_head(given, penalties=4, folds=3)
    weighted = logistic_head(given, penalties=4, folds=3, weights=np.ones(40))
    np.testing.assert_allclose(weighted[0], plain[0], atol=1e-6)
    assert weighted[2]["log_loss"] == pytest.approx(plain[2]["log_loss"])


def test_a_class_whose_images_have_no_weight_is_never_predicted() -> None:
    given = problem(30, 5, 3)
    weight, bias, _ = logistic_head(
        given, penalties=3, folds=3, weights=(given.labels != 1).astype(np.float64)
    )
    assert set((given.features @ weight.T + bias).argmax(1)) == {0, 2}


@pytest.mark.parametrize("weights", [np.ones(8), -np.ones(9), np.full(9, np.nan)])
def test_weights_that_are_none_are_an_error(weights: np.ndarray) -> None:
    with pytest.raises(PluginError, match="the weights of 9 images"):
        logistic_head(problem(9, 4, 3), penalties=3, folds=3, weights=weights)


def test_with_a_common_scale_a_rotation_of_the_features_changes_no_prediction() -> None:
    given = problem(60, 4, 3)
    stretched = given.features * np.array([1, 5, 0.1, 2], np.float32)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    logits = []
    for features in (stretched, (stretched @ rotation).astype(np.float32)):
        weight, bias, _ = logistic_head(
            HeadProblem(features, given.labels, given.classes, 0), penalties=1, folds=2, common_scale=True
        )
        logits.append(features @ weight.T + bias)
    np.testing.assert_allclose(logits[0], logits[1], atol=5e-3)


@pytest.mark.parametrize("common", [False, True])
def test_a_head_unfolds_onto_raw_features_exactly(common: bool) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(3, 5, size=(20, 6)).astype(np.float32)
    features[:, 2] = 4
    standard = Standard.of(features, common=common)
    weight, bias = rng.normal(size=(3, 6)), rng.normal(size=3)
    raw, offset = standard.unfold(weight, bias)
    np.testing.assert_allclose(
        features @ raw.T + offset, standard.apply(features) @ weight.T + bias, atol=1e-9
    )
    assert np.isfinite(raw).all()


def test_features_that_do_not_vary_become_zero() -> None:
    standard = Standard.of(np.full((5, 3), 7.0), common=True)
    assert not standard.apply(np.full((2, 3), 9.0)).any()


@pytest.mark.parametrize(("n", "d", "k"), [(90, 12, 3), (40, 120, 4), (80, 10, 2), (30, 90, 2)])
@pytest.mark.parametrize("common", [False, True])
def test_the_penalty_and_the_optimum_are_scikit_learns(n: int, d: int, k: int, common: bool) -> None:
    """Each fold fitted by scikit-learn to the end, over the whole grid; the search here is rough and ends early."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold

    given = problem(n, d, k, seed=3)
    noise = 3 * np.random.default_rng(4).normal(
        size=(n, d)
    )  # classes overlap: the loss has a least value inside the grid
    given = HeadProblem((given.features + noise).astype(np.float32), given.labels, given.classes, 3)
    x = given.features.astype(float)
    x = (x - x.mean(0)) / (np.sqrt(x.var(0).mean()) if common else x.std(0))
    weight, bias, notes = logistic_head(given, penalties=7, folds=4, common_scale=common)
    losses = {}
    for strength in np.logspace(-4, 2, 7):
        parts = StratifiedKFold(4, shuffle=True, random_state=given.seed).split(x, given.labels)
        losses[strength] = np.mean(
            [
                log_loss(
                    given.labels[test],
                    LogisticRegression(C=strength, tol=1e-8, max_iter=10_000)
                    .fit(x[train], given.labels[train])
                    .predict_proba(x[test]),
                )
                for train, test in parts
            ]
        )
    chosen = min(losses, key=lambda strength: abs(np.log(strength * notes["penalty"])))
    assert losses[chosen] <= min(losses.values()) * 1.02
    assert notes["log_loss"] == pytest.approx(losses[chosen], rel=0.02, abs=0.01)
    best = LogisticRegression(C=chosen, tol=1e-9, max_iter=10_000).fit(x, given.labels)
    logits = given.features @ weight.T + bias
    raised = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(raised / raised.sum(1, keepdims=True), best.predict_proba(x), atol=5e-4)


def test_the_same_problem_gives_the_same_head_every_time() -> None:
    given = problem(60, 90, 4)
    first, again = (logistic_head(given, penalties=7, folds=4) for _ in range(2))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1]) and first[2] == again[2]


def test_folds_that_do_not_fit_into_memory_at_once_give_the_same_penalty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tlcore.training import logistic

    given = problem(60, 12, 3)
    whole = logistic_head(given, penalties=5, folds=4)
    monkeypatch.setattr(logistic, "AT_ONCE", 200)
    parted = logistic_head(given, penalties=5, folds=4)
    assert parted[2]["penalty"] == whole[2]["penalty"]
    np.testing.assert_allclose(parted[0], whole[0], atol=1e-3)
