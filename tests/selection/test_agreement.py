"""Weighted tau against SciPy; regret by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import weightedtau

from tlcore.errors import UserError
from tlcore.selection.agreement import agreement, random_regret, regret


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_weighted_tau_is_that_of_scipy_with_ties(pairs: list[tuple[int, int]]) -> None:
    scores, achieved = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    wanted = float(weightedtau(scores, achieved).statistic)
    found = agreement(scores, achieved).weighted_tau
    if np.isnan(wanted):
        assert found is None
    else:
        assert found == pytest.approx(wanted, abs=1e-12)


def test_regret_is_what_choosing_the_highest_score_costs() -> None:
    assert agreement([3, 2, 1], [0.8, 0.9, 0.7]).regret == pytest.approx(0.1)
    assert agreement([1, 2, 3], [0.7, 0.8, 0.9]).regret == 0
    assert agreement([3, 3, 1], [0.8, 0.9, 0.7]).regret == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("scores", "achieved"), [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, np.nan], [0.1, 0.2])]
)
def test_values_that_cannot_be_compared_are_refused(scores: list[float], achieved: list[float]) -> None:
    with pytest.raises(UserError, match="two or more candidates"):
        agreement(scores, achieved)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=6), st.integers(1, 6))
def test_regret_at_k_is_the_mean_over_all_ways_to_break_ties(pairs: list[tuple[int, int]], k: int) -> None:
    k = min(k, len(pairs))
    scores, achieved = [float(s) for s, _ in pairs], [float(a) for _, a in pairs]
    found = []
    for order in itertools.permutations(range(len(pairs))):
        if all(scores[i] >= scores[j] for i, j in itertools.pairwise(order)):
            found.append(max(achieved) - max(achieved[i] for i in order[:k]))
    assert regret(scores, achieved, k) == pytest.approx(sum(found) / len(found), abs=1e-12)


@given(st.lists(st.integers(0, 9).map(float), min_size=1, max_size=6), st.integers(1, 6))
def test_the_regret_of_chance_is_the_mean_over_all_orders(achieved: list[float], k: int) -> None:
    k = min(k, len(achieved))
    found = [max(achieved) - max(order[:k]) for order in itertools.permutations(achieved)]
    assert random_regret(achieved, k) == pytest.approx(sum(found) / len(found), abs=1e-12)


def test_agreement_holds_the_regrets_at_one_and_three_and_those_of_chance() -> None:
    found = agreement([4, 3, 2, 1], [0.6, 0.7, 0.8, 0.9])
    assert found.regret == pytest.approx(0.3) and found.regret_at_3 == pytest.approx(0.1)
    assert found.random_regret == pytest.approx(0.15) and found.random_regret_at_3 == pytest.approx(0.025)
    two = agreement([2, 1], [0.6, 0.7])
    assert two.regret_at_3 is None and two.random_regret_at_3 is None


@pytest.mark.parametrize("k", [0, 4, -1])
def test_regret_at_more_candidates_than_there_are_is_refused(k: int) -> None:
    with pytest.raises(UserError, match="needs at least"):
        regret([1.0, 2.0, 3.0], [0.1, 0.2, 0.3], k)
    with pytest.raises(UserError, match="two or more"):
        regret([], [], 1)


def test_the_expected_weighted_tau_of_a_random_order_is_zero() -> None:
    """What the documentation of `Agreement` says of chance."""
    achieved = [0.1, 0.5, 0.6, 0.9]
    taus = [
        agreement(list(order), achieved).weighted_tau
        for order in itertools.permutations([1.0, 2.0, 3.0, 4.0])
    ]
    assert sum(tau for tau in taus if tau is not None) == pytest.approx(0.0, abs=1e-12)
