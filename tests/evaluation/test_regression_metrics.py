from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tlcore.errors import GateError, UserError
from tlcore.evaluation.comparison import sentence
from tlcore.evaluation.regression_metrics import MISTAKES, compare_numbers, measure_numbers, r_squared
from tlcore.values import NumberMetrics


def measured(outputs: np.ndarray, targets: np.ndarray, **options: int) -> NumberMetrics:
    names = [f"i{k}" for k in range(len(targets))]
    return measure_numbers(outputs, targets, sample_ids=names, uris=names, **options)


def noisy(n: int, noise: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = 40 + 10 * rng.normal(size=n)
    return truth + 10 * noise * rng.normal(size=n), truth


def test_the_measures_are_those_of_plain_arithmetic() -> None:
    outputs, truth = noisy(80)
    found = measured(outputs[:, None], truth)
    error = outputs - truth
    assert found.mean_absolute_error == pytest.approx(np.abs(error).sum() / 80)
    assert found.root_mean_squared_error == pytest.approx((error @ error / 80) ** 0.5)
    assert found.r2 == pytest.approx(1 - error @ error / ((truth - truth.mean()) ** 2).sum())
    assert (found.mean, found.deviation) == (pytest.approx(truth.mean()), pytest.approx(truth.std()))


def test_intervals_are_those_of_a_bootstrap_written_out() -> None:
    outputs, truth = noisy(60)
    found = measured(outputs, truth, replicates=4000)
    mine = stats.bootstrap(
        (np.abs(outputs - truth),), np.mean, method="percentile", n_resamples=4000, random_state=1
    ).confidence_interval
    assert found.mean_absolute_error_ci.low == pytest.approx(mine.low, rel=0.03)
    assert found.mean_absolute_error_ci.high == pytest.approx(mine.high, rel=0.03)
    theirs = stats.bootstrap(
        (truth, outputs), r_squared_rows, paired=True, vectorized=False, method="percentile", n_resamples=2000,
        random_state=1,
    ).confidence_interval  # fmt: skip
    assert found.r2_ci.low == pytest.approx(theirs.low, abs=0.02)
    assert found.r2_ci.high == pytest.approx(theirs.high, abs=0.02)


def r_squared_rows(truth: np.ndarray, outputs: np.ndarray) -> float:
    return float(1 - ((truth - outputs) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 12), scale=st.sampled_from([1e-6, 1.0, 1e6]), seed=st.integers(0, 99))
def test_every_number_is_finite_and_inside_its_interval(n: int, scale: float, seed: int) -> None:
    outputs, truth = noisy(n, seed=seed)
    found = measured(outputs * scale, truth * scale, replicates=100)
    for name in ("mean_absolute_error", "root_mean_squared_error"):
        interval = getattr(found, f"{name}_ci")
        assert np.isfinite([interval.low, interval.high, getattr(found, name)]).all()
        assert 0 <= interval.low <= interval.high
    assert np.isfinite([found.r2, found.r2_ci.low, found.r2_ci.high]).all()


def test_a_constant_truth_has_no_share_of_variance_and_says_so() -> None:
    found = measured(np.array([1.0, 2.0, 3.0]), np.full(3, 2.0))
    assert (found.r2, found.r2_ci.low, found.r2_ci.high) == (0, 0, 0)
    assert "same number" in found.warnings[0]
    assert r_squared(np.full(3, 2.0), np.full(3, 2.0)) == 1
    assert r_squared(np.array([2.0]), np.array([2.5])) == 0


def test_the_worst_answers_come_first_and_exact_ones_never() -> None:
    truth = np.arange(40.0)
    outputs = truth.copy()
    outputs[[3, 7]] += [2.0, -5.0]
    found = measured(outputs, truth).mistakes
    assert [(m.sample_id, m.label, m.predicted) for m in found] == [("i7", 7.0, 2.0), ("i3", 3.0, 5.0)]
    assert len(measured(truth + 1, truth).mistakes) == MISTAKES


def test_answers_that_are_not_finite_and_missing_labels_are_named() -> None:
    with pytest.raises(GateError, match="i1"):
        measured(np.array([1.0, np.nan]), np.ones(2))
    with pytest.raises(UserError, match="i0"):
        measured(np.ones(2), np.array([np.nan, 1.0]))
    with pytest.raises(UserError, match="no labelled image"):
        measured(np.empty(0), np.empty(0))
    with pytest.raises(UserError, match="targets"):
        measured(np.ones(3), np.ones(2))


def test_a_smaller_error_is_better_and_said_in_the_unit_of_the_labels() -> None:
    outputs, truth = noisy(100, noise=0.2)
    mean = np.full(100, truth.mean())
    found = compare_numbers(outputs, mean, truth, "mean")
    gain = np.abs(mean - truth) - np.abs(outputs - truth)
    assert found.accuracy == pytest.approx(np.abs(mean - truth).mean())
    assert found.difference == pytest.approx(gain.mean())
    assert found.better and found.difference_ci.low < gain.mean() < found.difference_ci.high
    assert sentence(found).startswith(f"better by {gain.mean():.3g} of mean absolute error (95 % interval")
    back = compare_numbers(mean, outputs, truth, "network")
    assert not back.better and sentence(back).startswith("worse by")
    with pytest.raises(UserError, match="pair"):
        compare_numbers(outputs, mean[:5], truth, "mean")
