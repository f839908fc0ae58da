from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from tests.plugins.tuned import job, setting
from tlcore.errors import PluginError
from tlcore.training.loop import run_plan
from tlcore.training.objectives import Supervised
from tlcore_tuners.bss import Bss, BssObjective, spectral_shrinkage


def independent(features: np.ndarray, count: int) -> float:
    """By the eigenvalues of the smaller Gram matrix."""
    gram = features @ features.T if len(features) <= features.shape[1] else features.T @ features
    values = np.sort(linalg.eigvalsh(gram))
    return float(values[: min(count, len(values) - 1)].clip(0).sum())


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(0, 10_000))
def test_the_shrinkage_equals_the_smallest_eigenvalues_of_the_gram_matrix(
    n: int, d: int, count: int, seed: int
) -> None:
    features = np.random.default_rng(seed).normal(size=(n, d))
    got = spectral_shrinkage(torch.from_numpy(features), count).item()
    assert got == pytest.approx(independent(features, count), rel=1e-7, abs=1e-9)


def test_the_gradient_against_finite_differences() -> None:
    features, change = np.random.default_rng(0).normal(size=(5, 4)), 1e-6
    x = torch.from_numpy(features).requires_grad_()
    spectral_shrinkage(x, 2).backward()
    assert x.grad is not None
    for index in np.ndindex(*features.shape):
        moved = np.zeros_like(features)
        moved[index] = change
        above, below = independent(features + moved, 2), independent(features - moved, 2)
        assert x.grad[index].item() == pytest.approx((above - below) / (2 * change), abs=1e-6)


@pytest.mark.parametrize(
    "features",
    [torch.zeros(4, 3), torch.ones(4, 3), torch.eye(4), torch.ones(1, 3), torch.ones(3, 1)],
    ids=["zero", "constant", "equal singular values", "one image", "one feature"],
)
def test_batches_at_the_edge_give_finite_values_and_gradients(features: torch.Tensor) -> None:
    x = features.clone().requires_grad_()
    value = spectral_shrinkage(x, 1)
    value.backward()
    assert value.item() == pytest.approx(independent(features.numpy(), 1), abs=1e-9)
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_one_image_is_not_pulled_to_zero() -> None:
    assert spectral_shrinkage(torch.full((1, 8), 3.0), 1).item() == 0


def test_features_that_are_not_finite_are_refused_with_the_remedy() -> None:
    with pytest.raises(PluginError, match=r"not finite[\s\S]*smaller learning rate"):
        spectral_shrinkage(torch.full((2, 2), float("nan")), 1)


def test_it_is_the_supervised_loss_plus_the_weighted_shrinkage() -> None:
    x, y = np.random.default_rng(0).normal(size=(7, 4)), np.arange(7) % 3
    network, setup, batch = setting(x, y)
    plain, shrunk = Supervised(0.1), BssObjective(0.1, False, 0.05, 2)
    for objective in (plain, shrunk):
        objective.setup(setup)
    features = setup.predict("source")[0]
    expected = plain.loss(network, batch)["total"].item() + 0.05 * independent(features.astype(float), 2)
    assert shrunk.loss(network, batch)["total"].item() == pytest.approx(expected, rel=1e-5)


def test_training_goes_through(tmp_path: Path) -> None:
    result = run_plan(job(Bss(epochs=1), tmp_path))
    assert {"total", "fit", "shrinkage"} <= result.history[-1].losses.keys()
