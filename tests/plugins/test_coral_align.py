from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import fractional_matrix_power
from sklearn.preprocessing import StandardScaler

from tlcore.errors import PluginError, UserError
from tlcore.protocols import TrainTask
from tlcore.training.heads import logistic_head
from tlcore.training.plan import HeadFit, HeadProblem
from tlcore_adapters.coral_align import CoralAlign, aligned_head, covariance_power, noise_edge, recolour

STRETCH = np.diag([1.0, 0.1, 8, 1]) + 0.5


def problem(n: int = 120, m: int = 100, d: int = 4, seed: int = 0) -> tuple[HeadProblem, np.ndarray]:
    """Three classes; the target's features are a stretched and shifted mix of what they were on the source."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(3, d))
    truth = np.arange(m) % 3
    source = rng.normal(size=(n, d)) + centres[np.arange(n) % 3]
    target = rng.normal(size=(m, d)) + centres[truth]
    if d == 4:
        target = target @ STRETCH + 20
    made = HeadProblem(
        source.astype(np.float32), np.arange(n) % 3, ("a", "b", "c"), 0, target.astype(np.float32)
    )
    return made, truth


@settings(deadline=None)
@given(st.integers(2, 15), st.integers(1, 8), st.sampled_from([-0.5, 0.5, 1.0]), st.integers(0, 999))
def test_powers_of_the_covariance_equal_scipy_also_with_fewer_images_than_features(
    n: int, d: int, power: float, seed: int
) -> None:
    rows = np.random.default_rng(seed).normal(3, 2, size=(n, d))
    ridged = np.cov(rows, rowvar=False).reshape(d, d) + 0.7 * np.eye(d)
    np.testing.assert_allclose(
        covariance_power(rows, 0.7, power), fractional_matrix_power(ridged, power), atol=1e-8
    )


def test_recolouring_equals_the_published_algorithm() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(50, 5)), rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5))
    source, target = source - source.mean(0), target - target.mean(0)
    own, other = np.cov(source.T) + np.eye(5), np.cov(target.T) + np.eye(5)
    expected = source @ fractional_matrix_power(own, -0.5) @ fractional_matrix_power(other, 0.5)
    np.testing.assert_allclose(recolour(source, target, 1.0), expected, atol=1e-9)


def test_with_hardly_a_ridge_the_recoloured_source_has_the_targets_covariance() -> None:
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(60, 4)), rng.normal(size=(70, 4)) @ STRETCH
    got = recolour(source - source.mean(0), target - target.mean(0), 1e-9)
    np.testing.assert_allclose(np.cov(got.T), np.cov(target.T), rtol=1e-5, atol=1e-5)


def test_the_noise_edge_is_the_largest_variance_of_noise_and_one_for_many_images() -> None:
    noise = np.random.default_rng(0).normal(size=(200, 400))
    assert np.linalg.eigvalsh(np.cov(noise.T))[-1] == pytest.approx(noise_edge(200, 400), rel=0.05)
    assert noise_edge(10**9, 400) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("n", "d"), [(120, 4), (30, 50)])
def test_the_head_on_raw_features_is_the_head_on_aligned_ones(n: int, d: int) -> None:
    given, _ = problem(n=n, m=n, d=d)
    assert given.target is not None
    weight, bias, _ = aligned_head(given, ridge=1.0, penalties=3, folds=3)
    source, target = (StandardScaler().fit_transform(x.astype(float)) for x in (given.features, given.target))
    own, other = (np.cov(x.T) + np.eye(d) for x in (source, target))
    aligned = np.real(source @ fractional_matrix_power(own, -0.5) @ fractional_matrix_power(other, 0.5))
    expected = logistic_head(replace(given, features=aligned.astype(np.float32)), penalties=3, folds=3)
    np.testing.assert_allclose(
        given.target @ weight.T + bias, target @ expected[0].T + expected[1], atol=5e-3
    )


def test_a_stretch_and_a_shift_that_mislead_source_only_mislead_it_no_more() -> None:
    given, truth = problem()
    assert given.target is not None
    plain = logistic_head(given, penalties=5, folds=3)
    (phase,) = CoralAlign().plan(TrainTask(given.classes, 4, 120, 100)).phases
    assert isinstance(phase, HeadFit)
    weight, bias, notes = phase.fit(given)
    accuracy = [((given.target @ w.T + b).argmax(1) == truth).mean() for w, b in (plain[:2], (weight, bias))]
    assert accuracy[0] < 0.6 and accuracy[1] > 0.9
    assert notes["ridge"] == pytest.approx((1 + (4 / 100) ** 0.5) ** 2)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 99))
def test_between_identical_domains_nothing_changes(seed: int) -> None:
    given, _ = problem(d=6, seed=seed)
    given = replace(given, target=given.features)
    weight, bias, _ = aligned_head(given, ridge=1.0, penalties=3, folds=3)
    plain = logistic_head(given, penalties=3, folds=3)
    np.testing.assert_allclose(
        given.features @ weight.T + bias, given.features @ plain[0].T + plain[1], atol=2e-2
    )


@pytest.mark.parametrize("domain", ["source", "target"])
def test_features_that_do_not_vary_in_one_domain_are_harmless(domain: str) -> None:
    given, _ = problem()
    assert given.target is not None
    (given.features if domain == "source" else given.target)[:, 1] = 5
    weight, bias, _ = aligned_head(given, ridge=None, penalties=2, folds=2)
    assert np.isfinite(weight).all() and np.isfinite(bias).all()
    assert domain == "source" or not weight[:, 1].any()


def test_without_a_target_or_with_one_image_it_says_what_it_needs() -> None:
    given, _ = problem()
    assert given.target is not None
    with pytest.raises(PluginError, match="needs the target's features"):
        aligned_head(replace(given, target=None), ridge=1.0, penalties=2, folds=2)
    with pytest.raises(UserError, match="at least two images of each domain"):
        aligned_head(replace(given, target=given.target[:1]), ridge=1.0, penalties=2, folds=2)
