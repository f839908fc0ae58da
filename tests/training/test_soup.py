"""Greedy soups against plain NumPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tlcore.errors import PluginError
from tlcore.training.soup import State, greedy_soup, mixed

IMAGES = 60


def weights(seed: int, classes: int = 3) -> dict[str, Tensor]:
    """A linear layer near a good one, and what batch norm counts."""
    rng = np.random.default_rng(seed)
    return {
        "weight": torch.from_numpy(np.eye(classes, 4) + rng.normal(0, 0.6, (classes, 4))).float(),
        "running_var": torch.from_numpy(rng.uniform(0.5, 2, 4)).float(),
        "num_batches_tracked": torch.tensor(seed),
    }


def problem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(99)
    labels = rng.integers(0, 3, IMAGES)
    return np.eye(3, 4)[labels] + rng.normal(0, 0.7, (IMAGES, 4)), labels


def accuracy(state: Mapping[str, Tensor]) -> tuple[float, ...]:
    inputs, labels = problem()
    logits = (inputs / np.sqrt(state["running_var"].numpy().astype(float))) @ state["weight"].numpy().T
    return (float((logits.argmax(1) == labels).mean()),)


def by_hand(states: list[dict[str, Tensor]]) -> tuple[list[int], dict[str, np.ndarray]]:
    """Recipe 1 of the paper, every mean from scratch in float64."""

    def mean(members: list[int]) -> dict[str, np.ndarray]:
        return {
            name: np.mean([states[m][name].numpy().astype(np.float64) for m in members], axis=0)
            for name in ("weight", "running_var")
        }

    def judged(members: list[int]) -> float:
        made = {name: torch.from_numpy(value.astype(np.float32)) for name, value in mean(members).items()}
        return accuracy(made)[0]

    inside: list[int] = []
    for number in range(len(states)):
        if not inside or judged([*inside, number]) >= judged(inside):
            inside.append(number)
    return inside, mean(inside)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_a_greedy_soup_is_that_of_the_paper(count: int, seed: int) -> None:
    states = sorted((weights(seed + i) for i in range(count)), key=lambda s: -accuracy(s)[0])
    soup = greedy_soup(range(count), states.__getitem__, accuracy)
    members, mean = by_hand(states)
    assert list(soup.members) == members
    for name, value in mean.items():
        np.testing.assert_allclose(soup.state[name].numpy(), value, rtol=1e-5, atol=1e-6)
    assert soup.single == accuracy(states[0]) and soup.measured >= soup.single


def test_counts_come_from_the_best_one_and_running_statistics_are_averaged() -> None:
    made = mixed(weights(1), 1, weights(2))
    assert made["num_batches_tracked"] == 1
    expected = (weights(1)["running_var"].numpy() + weights(2)["running_var"].numpy()) / 2
    np.testing.assert_allclose(made["running_var"].numpy(), expected, rtol=1e-6)


def test_the_weights_of_a_member_are_left_as_they_are() -> None:
    states = [weights(1), weights(1)]
    greedy_soup((0, 1), states.__getitem__, lambda state: (1.0,))
    assert all(torch.equal(states[0][name], weights(1)[name]) for name in states[0])


def test_a_training_of_another_shape_is_left_out_by_number() -> None:
    states = {4: weights(1), 2: weights(2, classes=5), 7: {"other": torch.zeros(1)}, 9: weights(1)}
    soup = greedy_soup((4, 2, 7, 9), states.__getitem__, lambda state: (1.0,))
    assert soup.members == (4, 9) and soup.left_out == (2, 7)


def test_what_validation_cannot_measure_is_never_added() -> None:
    states = [weights(1), weights(2)]
    answers = iter([(0.5, -1.0), (float("nan"), -1.0)])
    assert greedy_soup((0, 1), states.__getitem__, lambda state: next(answers)).members == (0,)


def test_the_loss_decides_between_equal_accuracies() -> None:
    states = [weights(1), weights(2)]
    answers = iter([(0.5, -1.0), (0.5, -1.2)])
    assert greedy_soup((0, 1), states.__getitem__, lambda state: next(answers)).members == (0,)


def test_half_precision_keeps_its_type_and_does_not_overflow() -> None:
    half = {"w": torch.full((3,), 60000.0, dtype=torch.float16)}
    made = mixed(half, 1, half)
    assert made["w"].dtype == torch.float16 and torch.equal(made["w"], half["w"])


def test_a_soup_of_networks_runs_in_the_network() -> None:
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(3)]
    for network in networks:
        network(torch.randn(8, 4))
    states: list[State] = [network.state_dict() for network in networks]
    soup = greedy_soup((0, 1, 2), states.__getitem__, lambda state: (1.0,))
    networks[0].load_state_dict(dict(soup.state))
    stacked = np.stack([network[1].running_mean.numpy() for network in networks[1:]])
    assert np.isfinite(stacked).all() and soup.members == (0, 1, 2)


def test_no_training_is_an_error_of_the_caller() -> None:
    with pytest.raises(PluginError, match="at least one"):
        greedy_soup((), lambda number: {}, lambda state: (0.0,))
