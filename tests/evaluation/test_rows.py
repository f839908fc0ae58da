from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from tlcore.evaluation.rows import per_class, per_domain


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 999))
def test_every_class_row_equals_scikit_learn_and_scipys_wilson(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, guess = rng.integers(0, k, n), rng.integers(0, k, n)
    precision, recall, f1, support = precision_recall_fscore_support(
        y, guess, labels=range(k), zero_division=0.0
    )
    rows = per_class(y, guess, [f"c{i}" for i in range(k)])
    assert [row.name for row in rows] == [f"c{i}" for i in range(k) if support[i]]
    for row in rows:
        c = int(row.name[1:])
        assert (row.images, row.recall, row.f1) == (
            support[c],
            pytest.approx(recall[c]),
            pytest.approx(f1[c]),
        )
        wilson = binomtest(round(recall[c] * support[c]), int(support[c])).proportion_ci(method="wilson")
        assert (row.recall_ci.low, row.recall_ci.high) == pytest.approx(tuple(wilson), abs=1e-9)
        if row.predicted:
            assert row.precision == pytest.approx(precision[c]) and row.precision_ci is not None
        else:
            assert row.precision is None and row.precision_ci is None


def test_domains_keep_their_order_and_each_has_its_own_interval() -> None:
    correct = np.array([True, True, False, True, False])
    art, photo = per_domain(correct, ["art", "photo", "art", "photo", "art"])
    assert (art.domain, art.images, art.accuracy) == ("art", 3, pytest.approx(1 / 3))
    assert (photo.domain, photo.images, photo.accuracy) == ("photo", 2, 1.0)
    assert photo.accuracy_ci.low < 1 == photo.accuracy_ci.high
    assert per_domain(np.zeros(0, bool), []) == ()
