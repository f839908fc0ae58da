from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.tuned import job, setting, small_network
from tlcore.errors import PluginError
from tlcore.training.loop import run_plan
from tlcore_tuners.l2_sp import L2Sp, L2SpObjective, starting_point_penalty


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 10_000))
def test_the_penalty_is_half_the_squared_distance_of_all_weights_as_one_vector(
    sizes: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    now, then = ([rng.normal(size=n) for n in sizes] for _ in range(2))
    got = starting_point_penalty(map(torch.from_numpy, now), map(torch.from_numpy, then)).item()
    assert got == pytest.approx(np.linalg.norm(np.concatenate(now) - np.concatenate(then)) ** 2 / 2, rel=1e-9)


def test_its_gradient_is_the_difference_and_zero_at_the_start() -> None:
    start = torch.tensor([1.0, -2.0])
    weight = torch.tensor([1.5, -2.0], requires_grad=True)
    starting_point_penalty([weight], [start]).backward()
    assert weight.grad is not None and weight.grad.tolist() == [0.5, 0.0]


def test_weights_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(PluginError, match="compares 1 weight tensors with 0"):
        starting_point_penalty([torch.ones(1)], [])


def test_the_loss_adds_the_distances_of_backbone_and_head_to_the_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4)), np.arange(7) % 3
    network, setup, batch = setting(x, y)
    objective = L2SpObjective(0.0, False, 0.3, 0.2)
    own = objective.setup(setup)
    start = [value.detach().numpy().copy() for value in network.backbone.parameters()]
    with torch.no_grad():
        for value in network.backbone.parameters():
            value.add_(0.5)
        network.head.weight.mul_(3)
    weight, bias = (value.detach().numpy() for value in network.backbone.parameters())
    head, offset = network.head.weight.detach().numpy(), network.head.bias.detach().numpy()
    logits = (x @ weight.T + bias) @ head.T + offset
    likely = logits[np.arange(7), y] - np.log(np.exp(logits).sum(1))
    distance = sum(((a - b) ** 2).sum() for a, b in zip((weight, bias), start, strict=True))
    expected = -likely.mean() + 0.3 / 2 * distance + 0.2 / 2 * ((head * 2 / 3) ** 2).sum()
    assert objective.loss(network, batch)["total"].item() == pytest.approx(expected, rel=1e-5)
    assert len(own.state_dict()) == 3  # the start survives a kill


@pytest.mark.slow
def test_a_strong_pull_keeps_the_backbone_nearer_to_its_start(tmp_path: Path) -> None:
    distance = {}
    for alpha in (0.0, 10.0):
        network = small_network()
        start = torch.cat([value.detach().flatten().clone() for value in network.backbone.parameters()])
        tuner = L2Sp(alpha=alpha, epochs=3, lr=1e-3)
        run_plan(job(tuner, tmp_path / str(alpha), network=network, start_counts=False))
        now = torch.cat([value.detach().flatten() for value in network.backbone.parameters()])
        distance[alpha] = (now - start).norm().item()
    assert 0 < distance[10.0] < 0.8 * distance[0.0]
