from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcore.errors import UserError
from tlcore.protocols import ValidatorOutputs
from tlcore_validators.dev import DeepEmbeddedValidation, dev_risk


def independent(w: np.ndarray, losses: np.ndarray) -> float:
    """eta as the slope of a least-squares line of w l on w, whose value at w = 1 is the risk."""
    slope, offset = np.polyfit(w, w * losses, 1)
    return float(slope + offset)


@settings(deadline=None)
@given(st.integers(3, 60), st.integers(0, 9999))
def test_the_risk_is_the_regression_of_the_weighted_loss_at_weight_one(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, losses = rng.gamma(2, size=n), rng.random(n)
    assert dev_risk(w, losses) == pytest.approx(independent(w, losses), rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(st.floats(0.01, 100), st.integers(1, 20))
def test_a_constant_loss_is_its_own_risk_whatever_the_weights(loss: float, n: int) -> None:
    w = np.random.default_rng(n).gamma(2, size=n)
    risk = dev_risk(w, np.full(n, loss))
    assert risk == pytest.approx(loss if n > 1 else loss * w[0], rel=1e-6)


def test_equal_weights_leave_the_plain_mean() -> None:
    losses = np.array([0.0, 1, 1, 0, 1])
    assert dev_risk(np.ones(5), losses) == pytest.approx(0.6)


def problem(seed: int, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    source = rng.normal(0, 1, (1500, 2))
    return source, (source[:, 1] > 0).astype(np.int64), rng.normal([shift, 0], 1, (1500, 2))


def outputs(p: np.ndarray, labels: np.ndarray, source: np.ndarray, target: np.ndarray) -> ValidatorOutputs:
    return ValidatorOutputs(
        np.full((len(target), 2), 0.5), p, labels, target.astype(np.float32), source.astype(np.float32)
    )


def test_a_model_that_fails_where_the_target_lies_scores_worse_than_one_that_fails_elsewhere() -> None:
    """Both err on half of the source; the target lies to the right, where one errs and the other does not."""
    source, labels, target = problem(0, 1.5)
    right = source[:, 0] > 0
    scores = []
    for fails in (right, ~right):
        p = np.eye(2)[np.where(fails, 1 - labels, labels)] * 0.98 + 0.01
        scores.append(DeepEmbeddedValidation().score(outputs(p, labels, source, target)))
    assert scores[0] < -0.7 and scores[1] > -0.3  # target shares right and left: 0.93 and 0.07


@pytest.mark.parametrize("loss", ["error", "log-loss"])
def test_without_a_shift_the_score_is_about_minus_the_plain_risk(loss: str) -> None:
    source, labels, target = problem(1, 0.0)
    wrong = np.random.default_rng(2).random(len(source)) < 0.2
    p = np.eye(2)[np.where(wrong, 1 - labels, labels)] * 0.8 + 0.1
    plain = wrong.mean() if loss == "error" else -np.log(p[np.arange(len(p)), labels]).mean()
    score = DeepEmbeddedValidation(loss=loss).score(outputs(p, labels, source, target))  # type: ignore[arg-type]
    assert score == pytest.approx(-plain, abs=0.05)


def test_the_score_is_the_same_each_time_and_has_no_bounds() -> None:
    source, labels, target = problem(3, 1.0)
    given = outputs(np.eye(2)[labels] * 0.9 + 0.05, labels, source, target)
    assert DeepEmbeddedValidation().score(given) == DeepEmbeddedValidation().score(given)
    assert DeepEmbeddedValidation().bounds(given) is None


def test_constant_features_and_domains_far_apart_give_a_number() -> None:
    source, labels, target = problem(4, 500.0)
    p = np.eye(2)[labels] * 0.9 + 0.05
    assert np.isfinite(DeepEmbeddedValidation().score(outputs(p, labels, source, target)))
    flat = outputs(p, labels, np.ones_like(source), np.ones_like(target))
    assert DeepEmbeddedValidation().score(flat) == pytest.approx(0)


@pytest.mark.parametrize(("n", "m"), [(0, 5), (1, 5), (5, 1)])
def test_too_few_images_are_an_error_that_says_so(n: int, m: int) -> None:
    source, labels, target = problem(0, 0.0)
    p = np.eye(2)[labels]
    with pytest.raises(UserError, match="labelled source validation images|at least two images"):
        DeepEmbeddedValidation().score(outputs(p[:n], labels[:n], source[:n], target[:m]))
