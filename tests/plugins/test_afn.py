from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy

from tests.plugins.turned import turned_blobs
from tlcore.errors import PluginError
from tlcore.protocols import TrainTask
from tlcore.training.network import Network
from tlcore.training.objectives import mean_entropy
from tlcore.training.plan import Batch, Bottleneck, Phase, View
from tlcore_adapters.afn import Afn, AfnObjective, norm_step


@given(st.integers(1, 10), st.integers(1, 8), st.floats(0, 5), st.integers(0, 10_000))
def test_the_value_is_the_squared_step_and_the_gradient_a_pull_outwards(
    n: int, d: int, step: float, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(n, d)) + 0.01
    x = torch.from_numpy(values).requires_grad_()
    loss = norm_step(x, step)
    loss.backward()
    assert loss.item() == pytest.approx(step**2, abs=1e-9)
    assert x.grad is not None
    outwards = values / np.linalg.norm(values, axis=1, keepdims=True)
    assert np.allclose(x.grad.numpy(), -2 * step * outwards / n, atol=1e-9)


def test_the_gradient_is_that_of_a_fixed_aim_by_finite_differences() -> None:
    values, change = np.random.default_rng(0).normal(size=(4, 3)), 1e-6
    x = torch.from_numpy(values).requires_grad_()
    norm_step(x, 1.0).backward()
    aim = np.linalg.norm(values, axis=1) + 1.0

    def loss(at: np.ndarray) -> float:
        return float(((np.linalg.norm(at, axis=1) - aim) ** 2).mean())

    assert x.grad is not None
    for index in np.ndindex(*values.shape):
        moved = np.zeros_like(values)
        moved[index] = change
        slope = (loss(values + moved) - loss(values - moved)) / (2 * change)
        assert x.grad[index].item() == pytest.approx(slope, abs=1e-7)


def test_a_zero_vector_stays_where_it_is() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    loss = norm_step(x, 1.0)
    loss.backward()
    assert loss.item() == 1.0
    assert x.grad is not None and torch.equal(x.grad, torch.zeros(2, 3))


@given(st.integers(1, 10), st.integers(1, 6), st.integers(0, 10_000))
def test_the_entropy_equals_scipy(n: int, classes: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, size=(n, classes))
    expected = scipy_entropy(np.exp(logits), axis=1).mean()
    assert mean_entropy(torch.from_numpy(logits)).item() == pytest.approx(expected, abs=1e-9)


def test_the_entropy_of_certain_and_of_single_class_predictions_is_zero_with_finite_gradients() -> None:
    for logits in (torch.tensor([[1e4, -1e4, 0.0]]), torch.zeros(3, 1)):
        z = logits.clone().requires_grad_()
        value = mean_entropy(z)
        value.backward()
        assert value.item() == 0.0
        assert z.grad is not None and torch.isfinite(z.grad).all()


def setting() -> tuple[Network, Batch, np.ndarray, np.ndarray, np.ndarray]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    source, target, labels = rng.normal(size=(9, 6)), rng.normal(1, 2, size=(7, 6)), np.arange(9) % 4
    batch = Batch(
        View(torch.from_numpy(source), torch.from_numpy(labels), torch.arange(9)),
        View(torch.from_numpy(target), None, torch.arange(7)),
        0.0,
        0,
    )
    return Network(torch.nn.Identity(), 6, 4).double(), batch, source, target, labels


def test_the_objective_is_cross_entropy_plus_both_domains_steps_plus_the_target_s_entropy() -> None:
    network, batch, source, target, labels = setting()
    losses = AfnObjective(0.05, 2.0, 0.1).loss(network, batch)
    weight, bias = (value.detach().numpy() for value in (network.head.weight, network.head.bias))
    logits = source @ weight.T + bias
    supervised = (np.log(np.exp(logits).sum(1)) - logits[np.arange(9), labels]).mean()
    uncertain = scipy_entropy(np.exp(target @ weight.T + bias), axis=1).mean()
    assert losses["total"].item() == pytest.approx(supervised + 0.05 * 2 * 2.0**2 + 0.1 * uncertain, rel=1e-9)
    assert losses["source_norm"].item() == pytest.approx(np.linalg.norm(source, axis=1).mean(), rel=1e-9)
    assert losses["target_norm"].item() == pytest.approx(np.linalg.norm(target, axis=1).mean(), rel=1e-9)


def test_without_a_target_stream_it_says_what_it_needs() -> None:
    network, batch, *_ = setting()
    with pytest.raises(PluginError, match="AFN needs a labelled source stream and a target stream"):
        AfnObjective(0.05, 1.0, 0.0).loss(network, Batch(batch.source, None, 0.0, 0))


def test_features_grow_and_classes_that_have_turned_are_followed() -> None:
    (source, labels), (target, truth) = (
        tuple(map(torch.from_numpy, turned_blobs(seed, degrees))) for seed, degrees in ((1, 0), (2, 45))
    )
    accuracy, norm = {}, {}
    for weight in (0.0, 0.05):
        torch.manual_seed(0)
        network = Network(torch.nn.Identity(), 8, 3, Bottleneck(width=16, dropout=0.0))
        optimiser = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
        every = torch.arange(96)
        for step in range(150):
            batch = Batch(View(source, labels, every), View(target, None, every), step / 150, step)
            optimiser.zero_grad()
            AfnObjective(weight, 1.0, 0.0).loss(network, batch)["total"].backward()
            optimiser.step()
        network.eval()
        accuracy[weight] = (network(target).argmax(1) == truth).float().mean().item()
        norm[weight] = network.features(target).norm(dim=1).mean().item()
    assert norm[0.05] > 1.2 * norm[0.0]
    assert accuracy[0.05] > accuracy[0.0] + 0.03


def test_the_plan_needs_no_module_of_its_own_and_says_that_classes_may_be_missing() -> None:
    (phase,) = Afn(steps=30, checkpoints=3).plan(TrainTask(("a", "b"), 4, 10, 10)).phases
    assert isinstance(phase, Phase)
    assert [group.parameters for group in phase.moves[0].groups] == ["backbone", "head"]
    assert "partial" in Afn.card.traits
