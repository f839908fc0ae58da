from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from tlcore.errors import UserError
from tlcore.evaluation.domain_gap import (
    class_balance_gap,
    coral_distance,
    density_ratio,
    held_out_domain,
    mmd,
    proxy_a_distance,
)


def domains(n: int, m: int, d: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(m, d))
    target[:, 0] += shift
    return rng.normal(size=(n, d)).astype(np.float32), target.astype(np.float32)


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_the_proxy_distance_is_near_the_bayes_error_of_two_gaussians(shift: float) -> None:
    a, b = domains(900, 600, 3, shift)
    bayes = norm.cdf(-shift / 2)
    got = proxy_a_distance(a, b)
    assert got.error == pytest.approx(bayes, abs=0.03)
    assert got.distance == pytest.approx(2 * (1 - 2 * got.error))


def test_the_held_out_probabilities_agree_with_scikit_learns_cross_validation() -> None:
    a, b = domains(300, 300, 4, 1.0)
    pooled, domain = np.concatenate([a, b]), np.repeat([0, 1], 300)
    expected = cross_val_predict(
        LogisticRegression(C=100), pooled, domain, cv=5, method="predict_proba"
    )[:, 1]  # fmt: skip
    got = np.concatenate(held_out_domain(a, b))
    assert np.abs(got - expected).mean() < 0.05 and np.corrcoef(got, expected)[0, 1] > 0.99


def test_no_image_is_judged_by_a_classifier_that_saw_it() -> None:
    """Random labels in many dimensions: a classifier that had seen its images would tell them apart."""
    a, b = domains(40, 40, 400, 0.0)
    assert proxy_a_distance(a, b).error > 0.3
    assert proxy_a_distance(a, a).error > 0.5  # a copy on the other side misleads; still no distance
    assert proxy_a_distance(a, a).distance == 0


def test_unequal_numbers_of_images_do_not_count_as_a_difference() -> None:
    a, b = domains(600, 60, 5, 0.0)
    assert proxy_a_distance(a, b).distance < 0.3
    assert np.median(density_ratio(a, b)) == pytest.approx(1, abs=0.25)


def test_domains_far_apart_have_the_largest_distance() -> None:
    a, b = domains(50, 50, 10, 1000.0)
    assert proxy_a_distance(a, b) == (2.0, 0.0)


def test_the_density_ratio_is_that_of_two_gaussians() -> None:
    a, b = domains(3000, 3000, 2, 1.0)
    truth = norm.pdf(a[:, 0], 1) / norm.pdf(a[:, 0], 0)
    got = density_ratio(a, b, limit=3000)
    assert np.abs(np.log(got) - np.log(truth)).mean() < 0.15
    assert got.mean() == pytest.approx(1, abs=0.1)


def test_more_images_than_the_limit_are_all_weighed() -> None:
    a, b = domains(700, 500, 2, 1.0)
    got = density_ratio(a, b, limit=100)
    assert got.shape == (700,) and np.corrcoef(np.log(got), a[:, 0])[0, 1] > 0.9


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 12), st.integers(0, 999))
def test_the_coral_distance_equals_an_eigenvalue_computation(n: int, m: int, d: int, seed: int) -> None:
    """||A||_F^2 of a symmetric matrix is the sum of its squared eigenvalues."""
    a, b = domains(n, m, d, 2.0, seed)
    gap = np.cov(a.T.astype(float)).reshape(d, d) - np.cov(b.T.astype(float)).reshape(d, d)
    expected = (np.linalg.eigvalsh(gap) ** 2).sum() / (4 * d * d)
    assert coral_distance(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert coral_distance(a, a + np.float32(1)) == pytest.approx(0, abs=1e-9)


def slow_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """The definition: loops over pairs, one kernel after another."""
    pooled = np.concatenate([a, b]).astype(float)
    median = np.median(cdist(pooled, pooled)[np.triu_indices(len(pooled), 1)])
    total = 0.0
    for factor in (0.25, 0.5, 1, 2, 4):

        def kernel(x: np.ndarray, y: np.ndarray, h: float = factor * median) -> float:
            return float(np.exp(-((x - y) ** 2).sum() / (2 * h * h)))

        within = [
            np.mean([kernel(x, y) for i, x in enumerate(side) for j, y in enumerate(side) if i != j])
            for side in (a.astype(float), b.astype(float))
        ]
        across = np.mean([kernel(x, y) for x in a.astype(float) for y in b.astype(float)])
        total += sum(within) - 2 * across
    return total / 5


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 30), st.integers(0, 999))
def test_mmd_equals_its_definition_also_with_fewer_images_than_features(
    n: int, m: int, d: int, seed: int
) -> None:
    a, b = domains(n, m, d, 1.0, seed)
    assert mmd(a, b, permutations=1).squared == pytest.approx(slow_mmd(a, b), abs=1e-6)


def test_the_permutation_test_is_level_without_a_gap_and_sure_with_one() -> None:
    alike = [mmd(*domains(30, 40, 5, 0.0, seed), permutations=99).p_value for seed in range(60)]
    assert np.mean(np.array(alike) <= 0.1) < 0.25 and 0.35 < np.mean(alike) < 0.65
    assert mmd(*domains(60, 60, 5, 2.0)).p_value == pytest.approx(1 / 201)


def test_scale_changes_neither_mmd_nor_the_proxy_distance() -> None:
    a, b = domains(60, 50, 6, 1.0)
    assert mmd(a * 1e4, b * 1e4).squared == pytest.approx(mmd(a, b).squared, abs=1e-6)
    assert proxy_a_distance(a * 1e4, b * 1e4).error == pytest.approx(proxy_a_distance(a, b).error, abs=0.02)


@settings(deadline=None)
@given(st.integers(2, 8), st.integers(0, 999))
def test_the_class_balance_gap_is_the_largest_gap_over_all_sets_of_classes(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(k)), rng.dirichlet(np.ones(k))
    sets = (np.array([mask >> bit & 1 for bit in range(k)], bool) for mask in range(2**k))
    expected = max(abs(p[chosen].sum() - q[chosen].sum()) for chosen in sets)
    assert class_balance_gap(p, q) == pytest.approx(expected, abs=1e-12)
    assert class_balance_gap(p, q) == pytest.approx(class_balance_gap(30 * q, 7 * p))


def test_the_class_balance_gap_by_hand() -> None:
    assert class_balance_gap([10, 10], [5, 5]) == 0
    assert class_balance_gap([3, 0], [0, 8]) == 1


@pytest.mark.parametrize("shares", [[0.0, 0], [-1, 2], [1, 2, 3], [np.nan, 1]])
def test_shares_that_are_none_are_an_error(shares: list[float]) -> None:
    with pytest.raises(UserError, match="no two class distributions"):
        class_balance_gap([1, 2], shares)


def test_the_same_images_on_both_sides_have_no_gap() -> None:
    a, _ = domains(80, 2, 20, 0.0)
    assert proxy_a_distance(a, a).distance == 0
    assert abs(mmd(a, a).squared) < 0.02 and mmd(a, a).p_value > 0.5
    assert coral_distance(a, a) == 0


def test_constant_features_have_no_gap() -> None:
    a, b = np.full((6, 4), 7, np.float32), np.full((5, 4), 7, np.float32)
    assert proxy_a_distance(a, b) == (0.0, 0.5)
    assert mmd(a, b) == (0.0, 1.0)
    assert coral_distance(a, b) == 0
    assert density_ratio(a, b) == pytest.approx(np.ones(6))


def test_copies_of_a_few_images_have_a_finite_mmd() -> None:
    a, b = np.zeros((9, 3), np.float32), np.zeros((9, 3), np.float32)
    b[0] = 1
    assert np.isfinite(mmd(a, b).squared)


@pytest.mark.parametrize("measure", [proxy_a_distance, coral_distance, mmd, density_ratio])
def test_one_image_of_a_domain_is_an_error_that_says_so(measure: object) -> None:
    a, b = domains(5, 1, 3, 0.0)
    with pytest.raises(UserError, match="at least two images of each"):
        measure(a, b)  # type: ignore[operator]


@pytest.mark.parametrize("measure", [proxy_a_distance, coral_distance, mmd, density_ratio])
def test_features_that_do_not_fit_are_errors_that_say_why(measure: object) -> None:
    a, b = domains(5, 5, 3, 0.0)
    with pytest.raises(UserError, match=r"not \[n, d\] and \[m, d\]"):
        measure(a, b[:, :2])  # type: ignore[operator]
    b[0, 0] = np.nan
    with pytest.raises(UserError, match="the target has features that are not finite"):
        measure(a, b)  # type: ignore[operator]


def test_importing_the_module_brings_in_no_heavy_package() -> None:
    code = "import sys, tlcore.evaluation.domain_gap, tlcore.evaluation.accuracy_estimates as a"
    code += "; print([m for m in ('torch', 'scipy', 'sklearn', 'polars') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
