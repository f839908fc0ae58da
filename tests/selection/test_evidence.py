"""The two ways to the evidence, with eigenvectors and without, against each other and against a dense scan."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from threadpoolctl import threadpool_limits

from tlcore.errors import UserError
from tlcore.selection import evidence as module
from tlcore.selection.evidence import log_evidence, spectrum


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(limits=1):
        yield


def _problem(
    n: int, d: int, k: int = 3, *, signal: float = 0.3, decay: float = 0.05, seed: int = 0
) -> tuple[NDArray, NDArray]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % k
    features = (draw.normal(size=(k, d)) * signal)[labels] + draw.normal(size=(n, d))
    return features * np.geomspace(1, decay, d), np.eye(k)[labels]


def _statistics(features: NDArray, targets: NDArray) -> tuple[NDArray, NDArray, NDArray, int]:
    return features.T @ features, features.T @ targets, (targets**2).sum(0), len(features)


@pytest.mark.parametrize("signal", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize(("n", "d", "decay"), [(900, 300, 0.05), (700, 260, 1e-3), (400, 300, 0.3)])
def test_without_eigenvectors_the_evidence_is_the_same(n: int, d: int, decay: float, signal: float) -> None:
    given = _statistics(*_problem(n, d, signal=signal, decay=decay))
    quick, sure = module._without_eigenvectors(*given), module._with_eigenvectors(*given)
    assert quick is not None and quick.rank == sure.rank
    np.testing.assert_allclose(quick.per_row, sure.per_row, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(quick.no_signal, sure.no_signal)
    finite = ~sure.no_signal
    np.testing.assert_allclose(quick.ratio[finite], sure.ratio[finite], rtol=1e-5)
    np.testing.assert_array_equal(log_evidence(*given).per_row, quick.per_row)


def test_dead_and_repeated_features_do_not_stop_the_quick_way() -> None:
    features, targets = _problem(900, 200)
    wide = np.column_stack([features, np.zeros((900, 40)), features[:, :60]])
    quick = module._without_eigenvectors(*_statistics(wide, targets))
    sure = module._with_eigenvectors(*_statistics(wide, targets))
    assert quick is not None and quick.rank == sure.rank == 200
    np.testing.assert_allclose(quick.per_row, sure.per_row, rtol=1e-10)


def test_where_the_quick_way_lacks_digits_the_sure_one_is_taken() -> None:
    features, targets = _problem(600, 297)
    explained = np.column_stack([features, targets])  # the labels lie in the column space
    given = _statistics(explained, targets)
    assert module._without_eigenvectors(*given) is None
    found = log_evidence(*given)
    assert found.interpolates.all() and np.isfinite(found.per_row).all()


@pytest.mark.parametrize(("n", "d"), [(800, 280), (60, 300), (300, 40)])
def test_the_maximum_is_that_of_a_dense_scan(n: int, d: int) -> None:
    features, targets = _problem(n, d, k=2, signal=0.4)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    found = log_evidence(*_statistics(features, targets))
    for k in range(2):
        energy, size = (left.T @ targets[:, k]) ** 2, float(targets[:, k].sum())

        def negative(u: float, energy: NDArray = energy, size: float = size) -> float:
            t = np.exp(u)
            rest = 0.0 if d >= n else max(size - energy.sum(), 0.0)
            left_over = rest + (energy * t / (singular**2 + t)).sum()
            inside = np.log(2 * np.pi * np.e * left_over / n) * n / 2 + np.log1p(singular**2 / t).sum() / 2
            return float(inside / n)

        scan = np.linspace(-12, 16, 1500)
        top = scan[np.argmin([negative(u) for u in scan])]
        best = minimize_scalar(negative, bounds=(top - 0.03, top + 0.03), method="bounded")
        assert found.per_row[k] == pytest.approx(-best.fun, abs=1e-8)


@pytest.mark.parametrize(("n", "d"), [(30, 200), (80, 100), (200, 30)])
def test_the_spectrum_is_that_of_the_features(n: int, d: int) -> None:
    features, targets = _problem(n, d)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    sigma, along = spectrum(features.T @ features, features.T @ targets, n)
    np.testing.assert_allclose(sigma, singular[::-1] ** 2, rtol=1e-8)
    np.testing.assert_allclose(
        along**2, (singular[:, None] * (left.T @ targets))[::-1] ** 2, rtol=1e-6, atol=1e-9
    )


def test_what_has_no_evidence_is_a_clear_error() -> None:
    features, targets = _problem(600, 300)
    gram, cross, squares, rows = _statistics(features, targets)
    with pytest.raises(UserError, match="at least 2 degrees of freedom"):
        log_evidence(gram, cross, squares, 1)
    with pytest.raises(UserError, match="a target is constant"):
        log_evidence(gram, cross, np.array([1.0, 0.0, 1.0]), rows)
    with pytest.raises(UserError, match="carry no variance"):
        log_evidence(0 * gram, 0 * cross, squares, rows)
