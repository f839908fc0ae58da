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
    keep_adaptation,
    predicted_classes,
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


def keep(**changes: float) -> tuple[bool, str]:
    """An adapter that is better in every way, with some numbers changed."""
    numbers = {
        "source_only": 1.0,
        "adapted": 1.2,
        "source_only_source_accuracy": 0.9,
        "adapted_source_accuracy": 0.9,
    }
    options = {"predicted_classes": 10, "source_only_predicted_classes": 10}
    numbers |= {name: value for name, value in changes.items() if name in numbers}
    options |= {name: int(value) for name, value in changes.items() if name in options}
    return keep_adaptation(*numbers.values(), **options, floor=changes.get("floor", 0.05))  # type: ignore[arg-type]


def test_a_better_adapter_is_kept_and_the_sentence_has_the_numbers() -> None:
    kept, why = keep()
    assert kept
    assert (
        why.startswith("Kept") and "1.200" in why and "1.000" in why and "90.0 %" in why and why.endswith(".")
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapted": 1.0}, "1.000 is not above source-only's 1.000"),
        ({"adapted": math.nan}, "is not above"),
        ({"adapted": math.inf}, "is not above"),
        ({"adapted_source_accuracy": 0.84}, "84.0 % is more than 5 points below source-only's 90.0 %"),
        ({"adapted_source_accuracy": math.nan}, "points below"),
        ({"predicted_classes": 9}, "fell onto 9 classes, source-only uses 10"),
    ],
)
def test_each_harm_alone_keeps_the_source_only_model(changes: dict[str, float], said: str) -> None:
    kept, why = keep(**changes)
    assert not kept
    assert said in why


def test_exactly_the_floor_is_still_allowed_and_the_floor_is_an_option() -> None:
    assert keep(adapted_source_accuracy=0.85)[0]
    assert not keep(adapted_source_accuracy=0.85, floor=0.02)[0]
    assert keep(adapted_source_accuracy=0.5, floor=0.5)[0]


def test_all_reasons_are_given_together() -> None:
    _, why = keep(adapted=0.5, adapted_source_accuracy=0.1, predicted_classes=1)
    assert why.count(";") == 2
