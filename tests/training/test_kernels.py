"""Maximum mean discrepancies against plain NumPy loops over pairs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from tlcore.errors import PluginError
from tlcore.training.kernels import (
    gaussian_kernel,
    joint_mmd,
    mk_mmd,
    multi_kernel,
    squared_distances,
    unbiased_mmd,
)


def pairs_mean(kernel: np.ndarray, rows: range, columns: range) -> float:
    values = [kernel[i, j] for i in rows for j in columns if i != j]
    return float(np.mean(values))


def independent_mmd(kernel: np.ndarray, n: int) -> float:
    first, second = range(n), range(n, len(kernel))
    return (
        pairs_mean(kernel, first, first)
        + pairs_mean(kernel, second, second)
        - 2 * pairs_mean(kernel, first, second)
    )


def independent_kernel(x: np.ndarray, mean: float | None = None) -> np.ndarray:
    squared = cdist(x, x, "sqeuclidean")
    v = squared[~np.eye(len(x), dtype=bool)].mean() if mean is None else mean
    # The authors' form: widths v/4, v/2, v, 2v, 4v.
    return sum(np.exp(-squared / (v * 2.0**power)) for power in range(-2, 3))


@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 6), st.integers(0, 10_000))
def test_mk_mmd_equals_numpy_for_batches_of_different_sizes(n: int, m: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(0, 2, (n, d)), rng.normal(1, 1, (m, d))
    expected = independent_mmd(independent_kernel(np.concatenate([source, target])), n)
    got = mk_mmd(torch.from_numpy(source), torch.from_numpy(target)).item()
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-11)


@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 10_000))
def test_joint_mmd_multiplies_the_kernels_of_features_and_probabilities(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(0, 2, (n, 4)), rng.normal(1, 1, (m, 4))
    p, q = rng.dirichlet(np.ones(3), n), rng.dirichlet(np.ones(3), m)
    both = np.concatenate([p, q])
    kernel = independent_kernel(np.concatenate([source, target])) * np.exp(
        -cdist(both, both, "sqeuclidean") / 1.68
    )
    a, b, c, e = (torch.from_numpy(value) for value in (source, p, target, q))
    assert joint_mmd((a, b), (c, e), 1.68).item() == pytest.approx(
        independent_mmd(kernel, n), rel=1e-9, abs=1e-11
    )


@given(st.floats(1e-3, 1e3), st.floats(-100, 100), st.integers(0, 10_000))
def test_mk_mmd_sees_neither_scale_nor_offset_of_the_features(scale: float, offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = (torch.from_numpy(rng.normal(size=(6, 3))) for _ in range(2))
    moved = mk_mmd(source * scale + offset, target * scale + offset).item()
    assert moved == pytest.approx(mk_mmd(source, target).item(), rel=1e-6, abs=1e-8)


@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 10_000))
def test_source_and_target_may_be_exchanged(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = torch.from_numpy(rng.normal(size=(n, 3))), torch.from_numpy(rng.normal(2, 1, size=(m, 3)))
    assert mk_mmd(a, b).item() == pytest.approx(mk_mmd(b, a).item(), rel=1e-9, abs=1e-12)


def test_two_samples_of_one_distribution_give_nothing_on_average_and_two_distributions_something() -> None:
    rng = np.random.default_rng(0)

    def gap(offset: float) -> float:
        return mk_mmd(
            torch.from_numpy(rng.normal(size=(12, 3))), torch.from_numpy(rng.normal(offset, 1, size=(12, 3)))
        ).item()

    same, apart = np.array([gap(0) for _ in range(400)]), np.array([gap(2) for _ in range(20)])
    assert abs(same.mean()) < 4 * same.std() / 20
    assert same.min() < 0 < apart.min()


def test_the_gradient_equals_finite_differences_at_a_fixed_width() -> None:
    """No gradient goes through the mean distance: the differences hold it still too."""
    rng = np.random.default_rng(3)
    source, target = rng.normal(size=(4, 3)), rng.normal(1, 2, size=(5, 3))
    both = np.concatenate([source, target])
    squared = cdist(both, both, "sqeuclidean")
    width = float(squared.sum() / (len(both) * (len(both) - 1)))
    moving = torch.from_numpy(source).requires_grad_()
    mk_mmd(moving, torch.from_numpy(target)).backward()
    assert moving.grad is not None
    for index in np.ndindex(*source.shape):
        values = []
        for sign in (1, -1):
            nudged = both.copy()
            nudged[index] += sign * 1e-6
            values.append(independent_mmd(independent_kernel(nudged, width), len(source)))
        assert moving.grad[index].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_float32_features_far_from_the_origin_keep_their_distances() -> None:
    x = np.random.default_rng(0).normal(1000, 1, (20, 50)).astype(np.float32)
    expected = cdist(x.astype(np.float64), x.astype(np.float64), "sqeuclidean")
    np.testing.assert_allclose(squared_distances(torch.from_numpy(x)).numpy(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e6])
def test_constant_features_have_no_gap_and_a_finite_gradient(value: float) -> None:
    source, target = torch.full((4, 3), value, requires_grad=True), torch.full((5, 3), value)
    gap = mk_mmd(source, target)
    gap.backward()
    assert gap.item() == pytest.approx(0, abs=1e-5)
    assert source.grad is not None and torch.isfinite(source.grad).all()


@pytest.mark.parametrize(("n", "m"), [(1, 4), (4, 1), (1, 1), (0, 3)])
def test_a_single_image_of_a_domain_has_no_discrepancy(n: int, m: int) -> None:
    with pytest.raises(PluginError, match="at least two images"):
        mk_mmd(torch.randn(n, 3), torch.randn(m, 3))


def test_a_kernel_whose_width_nobody_can_tell_is_refused() -> None:
    with pytest.raises(PluginError, match="at least two images"):
        multi_kernel(torch.zeros(1, 3))


def test_a_gaussian_kernel_has_the_width_that_it_is_given() -> None:
    x = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    np.testing.assert_allclose(
        gaussian_kernel(x, 8.0).numpy(), [[1, np.exp(-0.5)], [np.exp(-0.5), 1]], rtol=1e-12
    )


def test_an_image_is_not_compared_with_itself() -> None:
    kernel = torch.full((5, 5), 0.25) + 100 * torch.eye(5)
    assert unbiased_mmd(kernel, 2).item() == pytest.approx(0, abs=1e-6)


def test_importing_the_module_brings_in_no_torch() -> None:
    code = "import sys, tlcore.training.kernels; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
