from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tlcore.errors import GateError, UserError
from tlcore.evaluation.label_free import (
    batch_nuclear_norm,
    diversity,
    entropy,
    information_maximisation,
    predicted_classes,
    top_share,
)


def softmax(n: int, k: int, seed: int, scale: float) -> np.ndarray:
    p = np.exp(scale * np.random.default_rng(seed).normal(size=(n, k)))
    return p / p.sum(axis=1, keepdims=True)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 999), st.floats(0, 20))
def test_entropies_equal_scipy(n: int, k: int, seed: int, scale: float) -> None:
    p = softmax(n, k, seed, scale)
    assert entropy(p) == pytest.approx(np.mean([stats.entropy(row) for row in p]), abs=1e-9)
    assert diversity(p) == pytest.approx(stats.entropy(p.mean(axis=0)), abs=1e-9)
    assert -1e-9 <= information_maximisation(p) <= math.log(k) + 1e-9


@given(st.integers(2, 20), st.integers(2, 6), st.integers(0, 999))
def test_information_maximisation_is_the_mean_divergence_from_the_mean(n: int, k: int, seed: int) -> None:
    p = softmax(n, k, seed, 3)
    mean = p.mean(axis=0)
    assert information_maximisation(p) == pytest.approx(
        np.mean([stats.entropy(row, mean) for row in p]), abs=1e-9
    )


def test_certain_and_diverse_is_best_and_collapse_is_worth_nothing() -> None:
    assert information_maximisation(np.eye(4)) == pytest.approx(math.log(4))
    assert information_maximisation(np.tile([1.0, 0, 0, 0], (4, 1))) == 0
    assert information_maximisation(np.full((4, 4), 0.25)) == pytest.approx(0)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 999))
def test_the_nuclear_norm_is_the_trace_of_the_root_of_the_gram_matrix(n: int, k: int, seed: int) -> None:
    p = softmax(n, k, seed, 2)
    values = np.linalg.eigvalsh(p.T @ p)
    assert batch_nuclear_norm(p) == pytest.approx(np.sqrt(np.clip(values, 0, None)).sum() / n, abs=1e-6)
    assert batch_nuclear_norm(p) <= math.sqrt(min(n, k) / n) + 1e-9


def test_the_nuclear_norm_by_hand() -> None:
    assert batch_nuclear_norm(np.eye(2)) == pytest.approx(1)
    assert batch_nuclear_norm(np.array([[1.0, 0], [1, 0]])) == pytest.approx(math.sqrt(2) / 2)


def test_predicted_classes_counts_the_classes_that_win_somewhere() -> None:
    assert predicted_classes(np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7]])) == 2


@pytest.mark.parametrize("function", [entropy, diversity, information_maximisation, batch_nuclear_norm])
def test_what_is_no_probability_is_refused(function: object) -> None:
    with pytest.raises(GateError, match="image 1 of 2"):
        function(np.array([[0.5, 0.5], [np.nan, 0.5]]))  # type: ignore[operator]
    with pytest.raises(UserError, match=r"\[0, 3\]"):
        function(np.zeros((0, 3)))  # type: ignore[operator]


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 999))
def test_the_top_share_is_that_of_the_most_frequent_prediction(n: int, k: int, seed: int) -> None:
    p = softmax(n, k, seed, 3)
    _, counts = np.unique(p.argmax(axis=1), return_counts=True)
    assert top_share(p) == pytest.approx(counts.max() / n)
