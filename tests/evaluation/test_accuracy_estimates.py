from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from tlcore.errors import UserError
from tlcore.evaluation.accuracy_estimates import (
    CANNOT_SEE,
    AccuracyEstimates,
    confidence,
    difference_of_confidences,
    estimate_accuracy,
    negated_entropy,
    thresholded_confidence,
)
from tlcore.protocols import ValidatorOutputs


def outputs(source: np.ndarray, labels: np.ndarray, target: np.ndarray) -> ValidatorOutputs:
    none = np.zeros((0, 2), np.float32)
    return ValidatorOutputs(target, source, labels, none, none)


def calibrated(n: int, k: int, seed: int, noise: float, heat: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities whose labels are drawn from them, then made `heat` times too flat."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) / noise
    p = softmax(logits, axis=1)
    labels = np.array([rng.choice(k, p=row) for row in p])
    return softmax(logits / heat, axis=1), labels


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 9999))
def test_atc_solves_the_papers_equation_where_no_scores_tie(n: int, m: int, seed: int) -> None:
    """A threshold found by trying every one: as many source scores below it as there are errors."""
    rng = np.random.default_rng(seed)
    source, target, right = rng.random(n), rng.random(m), rng.random(n) < 0.7
    errors = int((~right).sum())
    thresholds = [t for t in (*source, np.nextafter(source.max(), 2)) if (source < t).sum() == errors]
    assert thresholded_confidence(source, right, target) == pytest.approx((target >= max(thresholds)).mean())


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 9999), st.integers(1, 4))
def test_atc_of_the_source_itself_is_its_accuracy_even_with_ties(n: int, seed: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    source, right = rng.integers(0, values, n) / values, rng.random(n) < 0.6
    assert thresholded_confidence(source, right, source) == pytest.approx(right.mean())


def test_doc_by_hand_and_cut_to_a_share() -> None:
    right = np.array([True, True, True, False])
    source, target = np.array([0.9, 0.8, 0.9, 0.6]), np.array([0.5, 0.7])
    assert difference_of_confidences(source, right, target) == pytest.approx(0.75 - (0.8 - 0.6))
    assert difference_of_confidences(np.ones(4), ~right, np.zeros(3)) == 0
    assert difference_of_confidences(np.zeros(4), right, np.ones(3)) == 1


def test_the_scores_are_the_maximum_and_the_entropy() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(4), size=9)
    np.testing.assert_allclose(confidence(p), np.sort(p, axis=1)[:, -1])
    np.testing.assert_allclose(negated_entropy(p), (p * np.log(p)).sum(1))
    assert negated_entropy(np.eye(3)).tolist() == [0, 0, 0]


def test_on_a_less_confident_target_that_stays_calibrated_doc_comes_near_the_truth() -> None:
    source, labels = calibrated(3000, 5, 0, 0.3, heat=0.5)
    target, truth = calibrated(3000, 5, 1, 0.7, heat=0.5)
    got = estimate_accuracy(outputs(source, labels, target))
    accuracy = (target.argmax(1) == truth).mean()
    assert (source.argmax(1) == labels).mean() > accuracy + 0.15
    assert got.difference_of_confidences == pytest.approx(accuracy, abs=0.03)
    assert got.temperature == pytest.approx(2, rel=0.1)


def test_where_exactly_the_unsure_answers_are_wrong_atc_is_the_truth() -> None:
    """Two classes: confidence and entropy order the images alike, at every temperature."""
    source, target = (calibrated(2000, 2, seed, noise)[0] for seed, noise in ((0, 0.3), (1, 1.0)))
    labels = np.where(source.max(1) > 0.8, source.argmax(1), source.argmin(1))
    accuracy = (target.max(1) > 0.8).mean()
    got = estimate_accuracy(outputs(source, labels, target))
    assert (source.max(1) > 0.8).mean() > accuracy + 0.2
    assert got.atc_confidence == pytest.approx(accuracy, abs=0.005)
    assert got.atc_entropy == pytest.approx(accuracy, abs=0.005)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 5), st.integers(0, 999))
def test_every_estimate_is_a_share_and_the_range_holds_all_three(n: int, m: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = (rng.dirichlet(np.full(k, 0.3), size=count) for count in (n, m))
    got = estimate_accuracy(outputs(source, rng.integers(0, k, n), target))
    three = (got.atc_confidence, got.atc_entropy, got.difference_of_confidences)
    assert (got.low, got.high) == (min(three), max(three)) and 0 <= got.low <= got.high <= 1
    assert AccuracyEstimates.model_validate_json(got.model_dump_json()) == got


def test_all_right_and_all_wrong_leave_the_confidences_as_they_are() -> None:
    p, _ = calibrated(40, 3, 0, 0.3)
    right = estimate_accuracy(outputs(p, p.argmax(1), p))
    wrong = estimate_accuracy(outputs(p, p.argmin(1), p))
    assert (right.temperature, right.low, right.high) == (1, 1, 1)
    assert (wrong.temperature, wrong.low, wrong.high) == (1, 0, 0)


def test_classes_confused_with_confidence_are_not_seen_as_the_text_says() -> None:
    source, labels = calibrated(500, 3, 0, 0.3)
    target = source[:, [1, 2, 0]]
    got = estimate_accuracy(outputs(source, labels, target))
    assert (target.argmax(1) == labels).mean() < 0.2 < 0.6 < got.low
    assert "confused with confidence" in CANNOT_SEE


@pytest.mark.parametrize(
    ("source", "labels", "target", "what"),
    [
        (np.zeros((0, 3)), [], np.eye(3), "no labelled source validation image"),
        (np.eye(3), [0, 1, 2], np.zeros((0, 3)), "no target image"),
        (np.eye(3), [0, 1], np.eye(3), "for 2 labels"),
        (np.eye(3), [0, 1, 2], np.eye(4), "source and target"),
        (np.eye(3), [0, 1, 3], np.eye(3), "outside 0 … 2"),
        (np.eye(3) * np.nan, [0, 1, 2], np.eye(3), "not finite"),
    ],
)
def test_outputs_that_carry_no_estimate_are_errors_that_say_why(
    source: np.ndarray, labels: list[int], target: np.ndarray, what: str
) -> None:
    with pytest.raises(UserError, match=what):
        estimate_accuracy(outputs(source, np.array(labels, np.int64), target))
