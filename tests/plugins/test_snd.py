from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from scipy.spatial.distance import cdist

from tlcore.errors import UserError
from tlcore.protocols import ValidatorOutputs
from tlcore_validators.snd import BLOCK, SoftNeighbourhoodDensity, soft_neighbourhood_density


def outputs(p: np.ndarray) -> ValidatorOutputs:
    none = np.zeros((0, 2), np.float32)
    return ValidatorOutputs(p, p[:0], np.zeros(0, np.int64), np.zeros((len(p), 2), np.float32), none)


def independent(p: np.ndarray, temperature: float) -> float:
    cosine = 1 - cdist(p, p, "cosine")
    rows = [np.delete(row, place) for place, row in enumerate(cosine)]
    return float(np.mean([stats.entropy(special.softmax(row / temperature)) for row in rows]))


@settings(deadline=None)
@given(st.integers(3, 30), st.integers(2, 8), st.integers(0, 999), st.sampled_from([0.05, 0.5, 3.0]))
def test_the_density_equals_scipy_and_stays_within_its_bounds(
    n: int, k: int, seed: int, temperature: float
) -> None:
    p = np.random.default_rng(seed).dirichlet(np.ones(k), size=n)
    validator = SoftNeighbourhoodDensity(temperature=temperature)
    score, bounds = validator.score(outputs(p)), validator.bounds(outputs(p))
    assert score == pytest.approx(independent(p, temperature), abs=1e-9)
    assert bounds[0] - 1e-9 <= score <= bounds[1] + 1e-9


def test_blocks_leave_no_seam() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=BLOCK + 90)
    assert soft_neighbourhood_density(p, 0.05) == pytest.approx(independent(p, 0.05), abs=1e-9)


def test_even_hard_clusters_have_the_entropy_of_their_size() -> None:
    assert soft_neighbourhood_density(np.eye(4)[np.arange(40) % 4], 0.05) == pytest.approx(
        math.log(9), abs=1e-6
    )


def test_tight_neighbourhoods_beat_scattered_ones() -> None:
    rng = np.random.default_rng(0)
    tight, scattered = np.eye(4)[np.arange(80) % 4], rng.dirichlet(np.full(4, 0.4), size=80)
    assert soft_neighbourhood_density(tight, 0.05) > soft_neighbourhood_density(scattered, 0.05)


def test_more_images_than_the_limit_are_compared_on_the_same_part_each_time() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=200)
    validator = SoftNeighbourhoodDensity(limit=50)
    assert validator.score(outputs(p)) == validator.score(outputs(p)) <= math.log(49)
    assert validator.bounds(outputs(p)) == (0, math.log(49))


@pytest.mark.parametrize("n", [1, 2])
def test_an_image_with_at_most_one_neighbour_says_nothing(n: int) -> None:
    assert SoftNeighbourhoodDensity().score(outputs(np.eye(3)[:n])) == 0
    assert SoftNeighbourhoodDensity().bounds(outputs(np.eye(3)[:n])) == (0, 0)


def test_zero_rows_are_like_no_other_and_nan_free() -> None:
    assert math.isfinite(soft_neighbourhood_density(np.vstack([np.zeros((2, 3)), np.eye(3)]), 0.05))


def test_without_an_image_there_is_an_error_that_says_so() -> None:
    with pytest.raises(UserError, match="no target image"):
        SoftNeighbourhoodDensity().score(outputs(np.zeros((0, 3))))
