from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from tlcore.errors import UserError
from tlcore.evaluation.calibration import (
    COLDEST,
    HOTTEST,
    at_temperature,
    best_temperature,
    fit_temperature,
    logits_of,
    reliability,
    scaled,
)
from tlcore.values import Calibration


def drawn(
    n: int, k: int, seed: int, *, noise: float = 0.4, heat: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels are drawn from their softmax, then divided by `heat`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) / noise
    p = softmax(logits, axis=1)
    labels = np.array([rng.choice(k, p=row) for row in p])
    return logits / heat, labels


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 80), st.integers(2, 5), st.integers(0, 999), st.sampled_from([0.3, 1.0, 4.0]))
def test_at_the_best_temperature_the_mean_logit_of_the_labels_is_the_expected_one(
    n: int, k: int, seed: int, heat: float
) -> None:
    """The derivative of the loss by 1 / T is 0: an equation solved here by bisection."""
    logits, labels = drawn(n, k, seed, heat=heat)
    right = logits.argmax(1) == labels

    def slope(inverse: float) -> float:
        return float(
            (softmax(inverse * logits, axis=1) * logits).sum(1).mean() - logits[np.arange(n), labels].mean()
        )

    got = best_temperature(logits, labels)
    if right.all() or not right.any():
        assert got == 1
    elif slope(1 / HOTTEST) > 0:
        assert got == pytest.approx(HOTTEST, rel=1e-3)
    elif slope(1 / COLDEST) < 0:
        assert got == pytest.approx(COLDEST, rel=1e-3)
    else:
        assert got == pytest.approx(1 / brentq(slope, 1 / HOTTEST, 1 / COLDEST), rel=1e-3)


@pytest.mark.parametrize("heat", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_undone(heat: float) -> None:
    logits, labels = drawn(20_000, 4, 0, noise=0.5, heat=heat)
    assert best_temperature(logits, labels) * heat == pytest.approx(1, rel=0.05)


def test_an_overconfident_network_is_calibrated_and_the_numbers_hold_on_new_images() -> None:
    logits, labels = drawn(600, 5, 1, heat=0.3)
    found = fit_temperature(logits, labels)
    assert found.kept and found.temperature == pytest.approx(1 / 0.3, rel=0.2) and found.images == 600
    assert found.nll_after < found.nll_before and found.error_after < 0.5 * found.error_before
    new, truth = drawn(20_000, 5, 2, heat=0.3)
    loss = -log_softmax(new / found.temperature, axis=1)[np.arange(20_000), truth].mean()
    assert found.nll_after == pytest.approx(loss, abs=0.1)
    assert found.nll_before == pytest.approx(-log_softmax(logits, axis=1)[np.arange(600), labels].mean())


def test_the_numbers_after_are_those_of_each_half_at_the_temperature_of_the_other() -> None:
    """Fitted to the very images it is measured on, the loss is never above this one."""
    for seed in range(20):
        logits, labels = drawn(40, 4, seed)
        found = fit_temperature(logits, labels, seed=seed)
        right = logits.argmax(1) == labels
        if right.all() or not right.any():
            continue
        inside = -log_softmax(logits / best_temperature(logits, labels), axis=1)[np.arange(40), labels].mean()
        assert found.nll_after >= inside - 1e-9


def test_a_calibrated_network_is_often_left_alone_and_says_why() -> None:
    found = [fit_temperature(*drawn(60, 4, seed)) for seed in range(30)]
    left = [one for one in found if not one.kept]
    assert len(left) >= 10
    assert all(one.temperature == 1 and one.nll_after >= one.nll_before for one in left)
    assert any("does not lower the loss" in one.why for one in left)


@settings(deadline=None, max_examples=40)
@given(st.integers(30, 60), st.integers(1, 5), st.integers(0, 999), st.floats(-50, 50))
def test_a_constant_per_image_and_the_order_of_images_do_not_matter_to_the_temperature(
    n: int, k: int, seed: int, shift: float
) -> None:
    logits, labels = drawn(n, k, seed, heat=0.5)
    order = np.random.default_rng(seed).permutation(n)
    one, other = fit_temperature(logits, labels), fit_temperature((logits + shift)[order], labels[order])
    assert one.nll_before == pytest.approx(other.nll_before, rel=1e-6, abs=1e-9)
    if one.kept and other.kept:
        assert one.temperature == pytest.approx(other.temperature, rel=1e-3)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(2, 6), st.integers(0, 999), st.floats(0.1, 10))
def test_probabilities_at_a_temperature_are_those_of_scaled_logits_and_keep_the_first_class(
    n: int, k: int, seed: int, heat: float
) -> None:
    logits = np.random.default_rng(seed).normal(size=(n, k))
    p = softmax(logits, axis=1)
    got = at_temperature(p, heat)
    np.testing.assert_allclose(np.log(got), log_softmax(logits / heat, axis=1), atol=1e-9)
    assert (got.argmax(1) == p.argmax(1)).all()


def test_at_temperature_one_the_same_array_comes_back() -> None:
    p = softmax(np.random.default_rng(0).normal(size=(3, 2)), axis=1).astype(np.float32)
    assert scaled(p, 1.0) is p and scaled(p, 2.0).dtype == np.float32


def test_certain_probabilities_with_zeros_in_them_stay_probabilities() -> None:
    got = at_temperature(np.array([[1.0, 0, 0], [0, 0.5, 0.5]]), 2.0)
    assert np.isfinite(got).all() and got.sum(1) == pytest.approx([1, 1])
    assert np.isfinite(best_temperature(logits_of(np.eye(3)), np.array([0, 1, 1])))
    with np.errstate(divide="ignore"):
        logs = np.log(np.tile(np.eye(2), (20, 1)))
    found = fit_temperature(logs, np.tile([0, 1, 1, 0], 10))
    assert np.isfinite([found.nll_before, found.nll_after, found.error_before, found.error_after]).all()


@pytest.mark.parametrize(
    ("logits", "labels", "why"),
    [
        (np.zeros((0, 3)), [], "0 images are too few"),
        (np.eye(3), [0, 1, 2], "3 images are too few"),
        (np.ones((40, 1)), [0] * 40, "every image is answered rightly"),
        (np.tile([[0.0, 1.0]], (40, 1)), [1] * 40, "every image is answered rightly"),
        (np.tile([[0.0, 1.0]], (40, 1)), [0] * 40, "no image is answered rightly"),
    ],
)
def test_images_that_tell_no_temperature_leave_it_at_one(
    logits: np.ndarray, labels: list[int], why: str
) -> None:
    found = fit_temperature(logits, np.array(labels, np.int64))
    assert (found.kept, found.temperature) == (False, 1) and why in found.why
    assert (found.nll_after, found.error_after) == (found.nll_before, found.error_before)
    assert Calibration.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("logits", "labels", "what"),
    [
        (np.zeros((2, 3)), [0], "logits are"),
        (np.zeros((2, 0)), [0, 0], "logits are"),
        (np.zeros((2, 3)), [0, 3], "outside 0 … 2"),
        (np.full((2, 3), np.nan), [0, 1], "not finite"),
        (np.full((2, 3), np.inf), [0, 1], "not finite"),
        (np.full((2, 3), -np.inf), [0, 1], "not finite"),
    ],
)
def test_what_is_no_logit_or_label_is_named(logits: np.ndarray, labels: list[int], what: str) -> None:
    with pytest.raises(UserError, match=what):
        fit_temperature(logits, np.array(labels, np.int64))


def test_reliability_by_hand() -> None:
    p = np.array([[0.95, 0.05], [0.97, 0.03], [0.45, 0.55], [0.42, 0.58]])
    found = reliability(p, np.array([0, 1, 1, 1]))
    assert [(b.images, b.accuracy) for b in found.bins] == [(2, 1.0), (2, 0.5)]
    assert [b.confidence for b in found.bins] == pytest.approx([0.565, 0.96])
    assert found.log_loss == pytest.approx(-np.log([0.95, 0.03, 0.55, 0.58]).mean())
    assert found.calibration_error == pytest.approx((0.92 + 0.87) / 4)
