from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.turned import accuracy_after
from tlcore.errors import PluginError
from tlcore.protocols import TrainTask
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Phase, Setup, View
from tlcore.training.reversal import reversal_strength
from tlcore_adapters.mdd import Mdd, MddObjective, margin_disparity


def log_softmax(z: np.ndarray) -> np.ndarray:
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


def independent_disparity(
    source: np.ndarray, source_aux: np.ndarray, target: np.ndarray, target_aux: np.ndarray, margin: float
) -> float:
    agreed = np.mean([-log_softmax(a[None])[0, s.argmax()] for s, a in zip(source, source_aux, strict=True)])
    apart = np.mean(
        [
            np.log(min(1 - np.exp(log_softmax(a[None])[0, t.argmax()]) + 1e-6, 1))
            for t, a in zip(target, target_aux, strict=True)
        ]
    )
    return float(apart - margin * agreed)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(2, 5), st.floats(0.5, 6), st.integers(0, 10_000))
def test_the_disparity_equals_numpy(n: int, m: int, classes: int, margin: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    four = [rng.normal(0, 2, size=(rows, classes)) for rows in (n, n, m, m)]
    got = margin_disparity(*(torch.from_numpy(z) for z in four), margin).item()
    assert got == pytest.approx(independent_disparity(*four, margin), rel=1e-9)
    assert got <= 0


def test_it_is_largest_for_a_head_that_agrees_on_the_source_and_disagrees_on_the_target() -> None:
    sure = 30 * torch.eye(3)
    other = sure.roll(1, dims=1)
    best = margin_disparity(sure, sure, sure, other, 4.0).item()
    assert best == pytest.approx(0, abs=1e-5)
    assert margin_disparity(sure, sure, sure, sure, 4.0).item() < best
    assert margin_disparity(sure, other, sure, other, 4.0).item() < best


def test_full_agreement_on_the_target_is_bounded_with_a_gradient_that_vanishes() -> None:
    sure = 200 * torch.eye(3)
    auxiliary = sure.clone().requires_grad_()
    value = margin_disparity(sure, sure, sure, auxiliary, 1.0)
    value.backward()
    assert value.item() == pytest.approx(np.log(1e-6), rel=1e-4)
    assert auxiliary.grad is not None and torch.equal(auxiliary.grad, torch.zeros(3, 3))


def test_a_single_class_is_refused() -> None:
    one = torch.zeros(2, 1)
    with pytest.raises(PluginError, match="at least two classes"):
        margin_disparity(one, one, one, one, 4.0)


def setting(progress: float, hidden: int | None = 7) -> tuple[Network, MddObjective, Batch]:
    torch.manual_seed(1)
    rng = np.random.default_rng(0)
    source, target, labels = rng.normal(size=(8, 5)), rng.normal(1, 1, size=(6, 5)), np.arange(8) % 3
    network = Network(torch.nn.Linear(5, 5, bias=False), 5, 3).double()
    objective = MddObjective(0.5, 4.0, hidden, 0.1)
    task = TrainTask(("a", "b", "c"), 5, 8, 6)
    own = objective.setup(Setup(network, task, lambda stream: (source, source))).double().eval()  # type: ignore[arg-type, return-value]
    with torch.no_grad():  # the small initial weights would make slopes too small to compare
        for value in own.parameters():
            value.normal_()
    batch = Batch(
        View(torch.from_numpy(source), torch.from_numpy(labels), torch.arange(8)),
        View(torch.from_numpy(target), None, torch.arange(6)),
        progress,
        0,
    )
    return network, objective, batch


def numpy_losses(network: Network, objective: MddObjective, batch: Batch) -> tuple[float, float]:
    assert objective.auxiliary is not None and batch.source is not None and batch.target is not None
    state = {name: value.detach().numpy() for name, value in objective.auxiliary.named_parameters()}
    base = network.backbone.weight.detach().numpy()
    head, bias = network.head.weight.detach().numpy(), network.head.bias.detach().numpy()

    def both(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        f = x @ base.T
        auxiliary = f @ state["0.weight"].T + state["0.bias"]
        if "3.weight" in state:
            auxiliary = np.maximum(auxiliary, 0) @ state["3.weight"].T + state["3.bias"]
        return f @ head.T + bias, auxiliary

    source, target = both(batch.source.inputs.numpy()), both(batch.target.inputs.numpy())
    labels = batch.source.labels
    assert labels is not None
    supervised = -log_softmax(source[0])[np.arange(len(labels)), labels.numpy()].mean()
    return float(supervised), independent_disparity(*source, *target, objective.margin)


@pytest.mark.parametrize("hidden", [None, 7])
def test_the_objective_equals_numpy(hidden: int | None) -> None:
    network, objective, batch = setting(0.4, hidden)
    losses = objective.loss(network, batch)
    supervised, disparity = numpy_losses(network, objective, batch)
    assert losses["source"].item() == pytest.approx(supervised, rel=1e-9)
    assert losses["disparity"].item() == pytest.approx(disparity, rel=1e-9)
    assert losses["total"].item() == pytest.approx(supervised - 0.5 * disparity, rel=1e-9)


def test_the_auxiliary_head_climbs_the_disparity_that_the_features_descend_and_the_head_ignores() -> None:
    """Finite differences of the NumPy losses: a tenth at most of the disparity's slope reaches the backbone."""
    network, objective, batch = setting(0.4)
    objective.loss(network, batch)["total"].backward()
    assert objective.auxiliary is not None
    strength, step = reversal_strength(0.4, peak=0.1), 1e-6
    assert 0 < strength < 0.1
    auxiliary = objective.auxiliary.get_parameter("0.weight")
    for values, share in ((network.backbone.weight, 0.5 * strength), (auxiliary, -0.5)):
        for index in [(0, 0), (2, 3), (4, 1)]:
            slopes = []
            for sign in (1, -1):
                with torch.no_grad():
                    values[index] += sign * step
                slopes.append(numpy_losses(network, objective, batch))
                with torch.no_grad():
                    values[index] -= sign * step
            supervised, disparity = ((slopes[0][part] - slopes[1][part]) / (2 * step) for part in (0, 1))
            assert values.grad is not None
            expected = supervised + share * disparity
            assert values.grad[index].item() == pytest.approx(expected, rel=1e-4, abs=1e-7)
    alone = network.head.weight.grad.clone()
    network.zero_grad()
    objective.weight = 0.0
    objective.loss(network, batch)["total"].backward()
    assert torch.allclose(alone, network.head.weight.grad)


def test_without_a_target_stream_it_says_what_it_needs() -> None:
    network, objective, batch = setting(0.0)
    with pytest.raises(PluginError, match="MDD needs a labelled source stream and a target stream"):
        objective.loss(network, Batch(batch.source, None, 0.0, 0))


@pytest.mark.slow
def test_it_follows_classes_that_have_turned_where_source_training_does_not(tmp_path: Path) -> None:
    options = {"train": "head", "bottleneck": 16, "dropout": 0, "steps": 200, "checkpoints": 1}
    accuracy = {}
    for weight in (0.0, 1.0):
        adapter = Mdd(**options, weight=weight, batch_size=16, lr=0.01)  # type: ignore[arg-type]
        accuracy[weight] = accuracy_after(adapter, tmp_path / str(weight))
    assert accuracy[0.0] < 0.95 and accuracy[1.0] > 0.98


def test_the_plan_has_the_reference_rate_for_head_and_auxiliary_head() -> None:
    task = TrainTask(("a", "b"), 4, 10, 10, gmacs=4.1)  # a large network
    (phase,) = Mdd(train="all", steps=30, checkpoints=3).plan(task).phases
    assert isinstance(phase, Phase)
    groups = {group.parameters: group.lr for group in phase.moves[0].groups}
    assert groups == {"backbone": pytest.approx(0.0004), "head": 0.004, "objective": 0.004}
