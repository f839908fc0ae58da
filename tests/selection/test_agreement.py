"""Weighted tau against SciPy; regret by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import weightedtau

from tlcore.errors import UserError
from tlcore.selection.agreement import agreement


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
