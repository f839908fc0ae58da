from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcore.errors import UserError
from tlcore.protocols import ValidatorOutputs
from tlcore_validators.bnm import BatchNuclearNorm, nuclear_share


def outputs(p: np.ndarray) -> ValidatorOutputs:
    none = np.zeros((0, 2), np.float32)
    return ValidatorOutputs(p, p[:0], np.zeros(0, np.int64), np.zeros((len(p), 2), np.float32), none)


def softmax(n: int, k: int, seed: int, scale: float) -> np.ndarray:
    p = np.exp(scale * np.random.default_rng(seed).normal(size=(n, k)))
    return p / p.sum(axis=1, keepdims=True)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(2, 8), st.integers(0, 999), st.floats(0, 20))
def test_the_score_is_the_nuclear_norm_over_its_maximum_and_within_its_bounds(
    n: int, k: int, seed: int, scale: float
) -> None:
    p = softmax(n, k, seed, scale)
    score = BatchNuclearNorm().score(outputs(p))
    assert score == pytest.approx(np.linalg.norm(p, "nuc") / math.sqrt(n * min(n, k)), abs=1e-9)
    lowest, highest = BatchNuclearNorm().bounds(outputs(p))
    assert lowest - 1e-9 <= score <= highest + 1e-9 and lowest < highest == 1


@pytest.mark.parametrize(("n", "k"), [(12, 4), (3, 7), (1, 2), (5, 5)])
def test_both_bounds_are_reached(n: int, k: int) -> None:
    lowest, _ = BatchNuclearNorm().bounds(outputs(np.zeros((n, k))))
    assert nuclear_share(np.full((n, k), 1 / k)) == pytest.approx(lowest)
    assert nuclear_share(np.eye(k)[np.arange(n) % k]) == pytest.approx(1)


def test_collapse_onto_one_class_is_far_from_the_best() -> None:
    assert nuclear_share(np.tile([1.0, 0, 0, 0], (20, 1))) == pytest.approx(1 / 2)


def test_without_an_image_there_is_an_error_that_says_so() -> None:
    with pytest.raises(UserError, match=r"\[images, classes\]"):
        BatchNuclearNorm().score(outputs(np.zeros((0, 3))))
