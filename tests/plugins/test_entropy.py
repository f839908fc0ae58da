from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tlcore.errors import UserError
from tlcore.protocols import ValidatorOutputs
from tlcore_validators.entropy import NegatedEntropy


def outputs(p: np.ndarray) -> ValidatorOutputs:
    none = np.zeros((0, 2), np.float32)
    return ValidatorOutputs(p, p[:0], np.zeros(0, np.int64), np.zeros((len(p), 2), np.float32), none)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(2, 8), st.integers(0, 999), st.floats(0, 20))
def test_the_score_is_scipys_entropy_negated_and_within_its_bounds(
    n: int, k: int, seed: int, scale: float
) -> None:
    p = np.exp(scale * np.random.default_rng(seed).normal(size=(n, k)))
    p /= p.sum(axis=1, keepdims=True)
    score = NegatedEntropy().score(outputs(p))
    assert score == pytest.approx(-np.mean([stats.entropy(row) for row in p]), abs=1e-9)
    lowest, highest = NegatedEntropy().bounds(outputs(p))
    assert lowest - 1e-9 <= score <= highest + 1e-9


def test_both_bounds_are_reached() -> None:
    assert NegatedEntropy().score(outputs(np.eye(3))) == 0 == NegatedEntropy().bounds(outputs(np.eye(3)))[1]
    assert NegatedEntropy().score(outputs(np.full((4, 3), 1 / 3))) == pytest.approx(-math.log(3))
    assert NegatedEntropy().bounds(outputs(np.eye(3)))[0] == pytest.approx(-math.log(3))


def test_it_is_blind_to_a_collapse_as_its_summary_says() -> None:
    collapsed = np.tile([1.0, 0, 0], (5, 1))
    assert NegatedEntropy().score(outputs(collapsed)) == NegatedEntropy().score(outputs(np.eye(3)))


def test_without_an_image_there_is_an_error_that_says_so() -> None:
    with pytest.raises(UserError, match=r"\[images, classes\]"):
        NegatedEntropy().score(outputs(np.zeros((0, 3))))
