from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.plugins.turned import turned_blobs
from tlcore.errors import PluginError
from tlcore.protocols import TrainTask
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Bottleneck, Phase, View
from tlcore_adapters.mcc import Mcc, MccObjective, class_confusion

LOGITS = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 12), st.integers(1, 6)), elements=st.floats(-8, 8, width=32)
)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def image_weights(p: np.ndarray) -> np.ndarray:
    raw = [1 + np.exp(sum(q * np.log(q) for q in row)) for row in p]
    return len(p) * np.array(raw) / np.sum(raw)


def independent_confusion(p: np.ndarray, weights: np.ndarray) -> float:
    """Equation by equation, entry by entry."""
    images, classes = p.shape
    lost = 0.0
    for j in range(classes):
        row = [sum(weights[i] * p[i, j] * p[i, k] for i in range(images)) for k in range(classes)]
        lost += sum(c / sum(row) for k, c in enumerate(row) if k != j)
    return lost / classes


@given(LOGITS, st.floats(0.5, 4))
def test_the_confusion_equals_the_paper_s_equations(logits: np.ndarray, temperature: float) -> None:
    p = softmax(logits / temperature)
    expected = independent_confusion(p, image_weights(p))
    assert class_confusion(torch.from_numpy(logits), temperature).item() == pytest.approx(expected, abs=1e-9)


@given(LOGITS, st.integers(0, 1000))
def test_neither_the_order_of_images_and_classes_nor_a_constant_in_the_logits_matters(
    logits: np.ndarray, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images, classes = logits.shape
    moved = logits[rng.permutation(images)][:, rng.permutation(classes)] + rng.normal(size=(images, 1))
    one, other = (class_confusion(torch.from_numpy(z), 2.5).item() for z in (logits, moved))
    assert one == pytest.approx(other, abs=1e-9)
    assert -1e-12 <= one <= 1 - 1 / classes + 1e-9


def test_certain_images_have_no_confusion_and_equal_ones_all_of_it() -> None:
    certain = 100 * torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 3, 0]]
    assert class_confusion(certain, 1.0).item() == pytest.approx(0, abs=1e-12)
    assert class_confusion(torch.zeros(5, 4), 2.5).item() == pytest.approx(3 / 4)


def test_the_gradient_is_that_of_fixed_image_weights() -> None:
    rng = np.random.default_rng(0)
    logits, temperature, step = rng.normal(size=(5, 3)), 2.5, 1e-6
    z = torch.from_numpy(logits).requires_grad_()
    class_confusion(z, temperature).backward()
    weights = image_weights(softmax(logits / temperature))
    assert z.grad is not None
    for index in np.ndindex(*logits.shape):
        moved = np.zeros_like(logits)
        moved[index] = step
        above, below = (
            independent_confusion(softmax((logits + sign * moved) / temperature), weights) for sign in (1, -1)
        )
        assert z.grad[index].item() == pytest.approx((above - below) / (2 * step), abs=1e-8)


@pytest.mark.parametrize(
    "logits",
    [
        torch.tensor([[1e4, -1e4, 0.0], [1e4, -2e4, 0.0]]),
        torch.tensor([[90.0, 0.0, -30.0], [80.0, -15.0, 0.0]]),
        torch.zeros(4, 1),
        torch.randn(1, 5, generator=torch.Generator().manual_seed(0)),
        torch.full((3, 4), 1e30),
    ],
    ids=["a class without mass", "a class with hardly any", "one class", "one image", "huge logits"],
)
def test_batches_at_the_edge_give_finite_values_and_gradients(logits: torch.Tensor) -> None:
    z = logits.clone().requires_grad_()
    value = class_confusion(z, 1.0)
    value.backward()
    assert 0 <= value.item() <= 1
    assert z.grad is not None and torch.isfinite(z.grad).all()


def test_the_objective_is_cross_entropy_plus_the_weighted_confusion_of_the_target() -> None:
    rng = np.random.default_rng(0)
    source, target, labels = rng.normal(size=(9, 6)), rng.normal(1, 2, size=(7, 6)), np.arange(9) % 4
    network = Network(torch.nn.Identity(), 6, 4).double()
    batch = Batch(
        View(torch.from_numpy(source), torch.from_numpy(labels), torch.arange(9)),
        View(torch.from_numpy(target), None, torch.arange(7)),
        0.0,
        0,
    )
    losses = MccObjective(3.0, 2.0).loss(network, batch)
    weight, bias = (value.detach().numpy() for value in (network.head.weight, network.head.bias))
    entropy = -np.log(softmax(source @ weight.T + bias)[np.arange(9), labels]).mean()
    p = softmax((target @ weight.T + bias) / 2)
    confusion = independent_confusion(p, image_weights(p))
    assert losses["source"].item() == pytest.approx(entropy, rel=1e-9)
    assert losses["confusion"].item() == pytest.approx(confusion, rel=1e-9)
    assert losses["total"].item() == pytest.approx(entropy + 3 * confusion, rel=1e-9)
    with pytest.raises(PluginError, match="MCC needs a labelled source stream and a target stream"):
        MccObjective(1.0, 2.5).loss(network, Batch(batch.source, None, 0.0, 0))


def test_it_follows_classes_that_have_turned_where_source_training_does_not() -> None:
    (source, labels), (target, truth) = (
        tuple(map(torch.from_numpy, turned_blobs(seed, degrees))) for seed, degrees in ((1, 0), (2, 45))
    )
    accuracy = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        network = Network(torch.nn.Identity(), 8, 3, Bottleneck(width=16, dropout=0.0))
        optimiser = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
        every = torch.arange(96)
        for step in range(150):
            batch = Batch(View(source, labels, every), View(target, None, every), step / 150, step)
            optimiser.zero_grad()
            MccObjective(weight, 2.5).loss(network, batch)["total"].backward()
            optimiser.step()
        accuracy[weight] = (network.eval()(target).argmax(1) == truth).float().mean().item()
    assert accuracy[0.0] < 0.95 and accuracy[1.0] > 0.98


def test_the_plan_has_the_common_rate_and_no_module_of_its_own() -> None:
    task = TrainTask(("a", "b"), 4, 10, 10, gmacs=4.1)  # a large network
    (phase,) = Mcc(train="all", steps=30, checkpoints=3).plan(task).phases
    assert isinstance(phase, Phase)
    groups = {group.parameters: group.lr for group in phase.moves[0].groups}
    assert groups == {"backbone": pytest.approx(0.001), "head": 0.01}
    assert phase.streams == ("source", "target") and "partial" in Mcc.card.traits
