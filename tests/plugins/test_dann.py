from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlcore.errors import PluginError
from tlcore.protocols import TrainTask
from tlcore.training.discriminator import domain_loss
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Setup, View
from tlcore.training.reversal import reversal_strength, reverse_gradient
from tlcore_adapters.dann import DannObjective


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 10_000))
def test_the_domain_loss_equals_numpy(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(0, 3, (n, 1)), rng.normal(0, 3, (m, 1))
    p, q = 1 / (1 + np.exp(-source)), 1 / (1 + np.exp(-target))
    expected = (-np.log(p).mean() - np.log(1 - q).mean()) / 2
    assert domain_loss(torch.from_numpy(source), torch.from_numpy(target)).item() == pytest.approx(
        expected, rel=1e-9
    )


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.1, 10), st.integers(0, 10_000))
def test_weights_count_within_their_domain_and_leave_it_one_half(
    n: int, m: int, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(0, 3, (n, 1)), rng.normal(0, 3, (m, 1))
    v, w = rng.uniform(1, 2, n), rng.uniform(1, 2, m)
    halves = (
        np.average(np.log1p(np.exp(-source[:, 0])), weights=v),
        np.average(np.log1p(np.exp(target[:, 0])), weights=w),
    )
    values = (torch.from_numpy(x) for x in (source, target, scale * v, w))
    assert domain_loss(*values).item() == pytest.approx(sum(halves) / 2, rel=1e-9)


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 1.0])
def test_the_reversal_strength_follows_the_published_schedule(progress: float) -> None:
    assert reversal_strength(progress) == pytest.approx(2 / (1 + np.exp(-10 * progress)) - 1)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_gradient_reversal_against_finite_differences(strength: float) -> None:
    """Below the reversal gradients are those of -strength * f; above it, those of f."""
    torch.manual_seed(0)
    lower, upper = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    x = torch.randn(3, dtype=torch.float64)

    def value(low: torch.Tensor, up: torch.Tensor) -> float:
        return float(torch.tanh(low @ x) @ up)

    low, up = lower.clone().requires_grad_(), upper.clone().requires_grad_()
    (reverse_gradient(torch.tanh(low @ x), strength) @ up).backward()
    step = 1e-6
    for index in np.ndindex(*lower.shape):
        moved = [lower.clone(), lower.clone()]
        moved[0][index] += step
        moved[1][index] -= step
        slope = (value(moved[0], upper) - value(moved[1], upper)) / (2 * step)
        assert low.grad is not None
        assert low.grad[index].item() == pytest.approx(-strength * slope, rel=1e-6, abs=1e-9)
    for place in range(4):
        moved = [upper.clone(), upper.clone()]
        moved[0][place] += step
        moved[1][place] -= step
        slope = (value(lower, moved[0]) - value(lower, moved[1])) / (2 * step)
        assert up.grad is not None and up.grad[place].item() == pytest.approx(slope, rel=1e-6, abs=1e-9)


def setting(progress: float) -> tuple[Network, DannObjective, Batch, np.ndarray, np.ndarray, np.ndarray]:
    torch.manual_seed(1)
    rng = np.random.default_rng(0)
    source, target, labels = rng.normal(size=(8, 5)), rng.normal(1, 1, size=(6, 5)), np.arange(8) % 3
    network = Network(torch.nn.Linear(5, 5, bias=False), 5, 3).double()
    objective = DannObjective(hidden=7, weight=0.5)
    task = TrainTask(("a", "b", "c"), 5, 8, 6)
    objective.setup(Setup(network, task, lambda stream: (source, source))).double()  # type: ignore[arg-type, return-value]
    batch = Batch(
        View(torch.from_numpy(source), torch.from_numpy(labels), torch.arange(8)),
        View(torch.from_numpy(target), None, torch.arange(6)),
        progress,
        0,
    )
    return network, objective, batch, source, target, labels


def numpy_loss(
    network: Network, objective: DannObjective, source: np.ndarray, target: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    base = network.backbone.weight.detach().numpy()
    weight, bias = network.head.weight.detach().numpy(), network.head.bias.detach().numpy()
    assert objective.discriminator is not None
    state = {name: value.detach().numpy() for name, value in objective.discriminator.named_parameters()}

    def discriminate(x: np.ndarray) -> np.ndarray:
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * state[
            "0.weight"
        ] + state["0.bias"]
        x = np.maximum(x @ state["1.weight"].T + state["1.bias"], 0)
        x = np.maximum(x @ state["3.weight"].T + state["3.bias"], 0)
        return 1 / (1 + np.exp(-(x @ state["5.weight"].T + state["5.bias"])))

    features = source @ base.T
    logits = features @ weight.T + bias
    entropy = (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]).mean()
    domain = (-np.log(discriminate(features)).mean() - np.log(1 - discriminate(target @ base.T)).mean()) / 2
    return float(entropy), float(domain)


def test_the_objective_equals_numpy() -> None:
    network, objective, batch, source, target, labels = setting(0.4)
    losses = objective.loss(network, batch)
    entropy, domain = numpy_loss(network, objective, source, target, labels)
    assert losses["source"].item() == pytest.approx(entropy, rel=1e-9)
    assert losses["domain"].item() == pytest.approx(domain, rel=1e-9)
    assert losses["total"].item() == pytest.approx(entropy + 0.5 * domain, rel=1e-9)


def test_the_features_climb_the_domain_loss_that_the_discriminator_descends() -> None:
    """Backbone gradient = d(entropy) - strength * weight * d(domain), by finite differences of the NumPy losses."""
    network, objective, batch, source, target, labels = setting(0.4)
    objective.loss(network, batch)["total"].backward()
    strength, step = reversal_strength(0.4), 1e-6
    base = network.backbone.weight
    for index in [(0, 0), (2, 3), (4, 1)]:
        slopes = []
        for sign in (1, -1):
            with torch.no_grad():
                base[index] += sign * step
            slopes.append(numpy_loss(network, objective, source, target, labels))
            with torch.no_grad():
                base[index] -= sign * step
        entropy, domain = ((slopes[0][part] - slopes[1][part]) / (2 * step) for part in (0, 1))
        assert base.grad is not None
        assert base.grad[index].item() == pytest.approx(entropy - strength * 0.5 * domain, rel=1e-4, abs=1e-8)


def test_without_a_target_stream_it_says_what_it_needs() -> None:
    network, objective, batch, *_ = setting(0.0)
    with pytest.raises(PluginError, match="needs a labelled source stream and a target stream"):
        objective.loss(network, Batch(batch.source, None, 0.0, 0))
