from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlcore.errors import PluginError
from tlcore.protocols import TrainTask
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Phase, View
from tlcore_adapters.coral import Coral, CoralObjective, coral_gap


def independent_gap(source: np.ndarray, target: np.ndarray) -> float:
    d = source.shape[1]
    return float(
        np.linalg.norm(np.cov(source, rowvar=False) - np.cov(target, rowvar=False), "fro") ** 2 / (4 * d * d)
    )


@given(st.integers(2, 30), st.integers(2, 30), st.integers(2, 12), st.integers(0, 10_000))
def test_the_gap_equals_numpy(n: int, m: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(1, 2, (n, d)), rng.normal(-1, 0.5, (m, d))
    got = coral_gap(torch.from_numpy(source), torch.from_numpy(target)).item()
    assert got == pytest.approx(independent_gap(source, target), rel=1e-9, abs=1e-12)


def test_the_gap_does_not_see_a_shift_of_the_mean() -> None:
    values = torch.randn(20, 5, dtype=torch.float64)
    assert coral_gap(values, values + 100).item() == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("layer", ["features", "logits"])
def test_the_objective_is_cross_entropy_plus_the_weighted_gap(layer: str) -> None:
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(12, 6)), rng.normal(2, 3, size=(9, 6))
    labels = np.arange(12) % 4
    network = Network(torch.nn.Identity(), 6, 4).double()
    weight, bias = (value.detach().numpy() for value in (network.head.weight, network.head.bias))
    batch = Batch(
        View(torch.from_numpy(source), torch.from_numpy(labels), torch.arange(12)),
        View(torch.from_numpy(target), None, torch.arange(9)),
        0.0,
        0,
    )
    losses = CoralObjective(3.0, layer).loss(network, batch)  # type: ignore[arg-type]
    logits = source @ weight.T + bias
    log_z = np.log(np.exp(logits).sum(1))
    entropy = float((log_z - logits[np.arange(12), labels]).mean())
    pair = (source, target) if layer == "features" else (logits, target @ weight.T + bias)
    gap = independent_gap(*pair)
    assert losses["total"].item() == pytest.approx(entropy + 3 * gap, rel=1e-5)
    assert losses["source"].item() == pytest.approx(entropy, rel=1e-6)
    assert losses["coral"].item() == pytest.approx(gap, rel=1e-5)


def test_a_single_image_of_a_domain_has_no_covariance() -> None:
    with pytest.raises(PluginError, match="at least two images"):
        coral_gap(torch.zeros(1, 3), torch.zeros(4, 3))


def test_the_plan_uses_both_streams_and_its_options() -> None:
    task = TrainTask(("a", "b"), 4, 10, 10)
    (phase,) = Coral(steps=30, checkpoints=3, batch_size=8, weight=2).plan(task).phases
    assert isinstance(phase, Phase)
    assert (phase.streams, phase.batch_size) == (("source", "target"), 8)
    assert (phase.epochs, phase.steps_per_epoch) == (3, 10)
