from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax

from tlcore.errors import PluginError
from tlcore.protocols import TrainTask
from tlcore.training.job import Measured, TrainJob
from tlcore.training.kernels import joint_mmd, mk_mmd
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Phase, View
from tlcore.training.predict import predict_features
from tlcore.training.streams import StreamData
from tlcore.values import Preprocess
from tlcore_adapters.jan import Jan, JanObjective

TASK = TrainTask(("a", "b"), 6, 60, 60)


def independent_joint_mmd(
    features: np.ndarray, probabilities: np.ndarray, n: int, width: float, mean: float | None = None
) -> float:
    """Loops over pairs; widths v/4, v/2, v, 2v, 4v of the mean squared distance v."""
    squared = cdist(features, features, "sqeuclidean")
    v = squared.sum() / (len(features) * (len(features) - 1)) if mean is None else mean
    classes = np.exp(-cdist(probabilities, probabilities, "sqeuclidean") / width)
    sums = {"ss": 0.0, "tt": 0.0, "st": 0.0}
    m = len(features) - n
    for i in range(n + m):
        for j in range(n + m):
            kernel = sum(np.exp(-squared[i, j] / (v * 2.0**k)) for k in range(-2, 3)) * classes[i, j]
            if i == j:
                continue
            if i < n and j < n:
                sums["ss"] += kernel / (n * (n - 1))
            elif i >= n and j >= n:
                sums["tt"] += kernel / (m * (m - 1))
            elif i < n:
                sums["st"] += kernel / (n * m)
    return sums["ss"] + sums["tt"] - 2 * sums["st"]


def setting() -> tuple[Network, Batch, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    source, target, labels = rng.normal(size=(8, 5)), rng.normal(1, 2, size=(6, 5)), np.arange(8) % 3
    network = Network(torch.nn.Identity(), 5, 3).double()
    batch = Batch(
        View(torch.from_numpy(source), torch.from_numpy(labels), torch.arange(8)),
        View(torch.from_numpy(target), None, torch.arange(6)),
        0.0,
        0,
    )
    return network, batch, source, target, labels


@pytest.mark.parametrize("width", [1.68, 0.5])
def test_the_objective_equals_numpy(width: float) -> None:
    network, batch, source, target, labels = setting()
    losses = JanObjective(2.0, width).loss(network, batch)
    weight, bias = (value.detach().numpy() for value in (network.head.weight, network.head.bias))
    both = np.concatenate([source, target])
    logits = both @ weight.T + bias
    entropy = -log_softmax(logits[:8], axis=1)[np.arange(8), labels].mean()
    gap = independent_joint_mmd(both, softmax(logits, axis=1), 8, width)
    assert losses["source"].item() == pytest.approx(entropy, rel=1e-6)
    assert losses["joint_mmd"].item() == pytest.approx(gap, rel=1e-5)
    assert losses["total"].item() == pytest.approx(entropy + 2 * gap, rel=1e-5)


def test_the_heads_gradient_of_the_discrepancy_equals_finite_differences() -> None:
    """The head moves the probabilities alone; the features' kernel stays."""
    network, batch, source, target, labels = setting()
    losses = JanObjective(1.0, 1.68).loss(network, batch)
    losses["total"].backward()
    weight, bias = (value.detach().numpy().copy() for value in (network.head.weight, network.head.bias))
    both = np.concatenate([source, target])

    def value(w: np.ndarray) -> float:
        logits = both @ w.T + bias
        entropy = -log_softmax(logits[:8], axis=1)[np.arange(8), labels].mean()
        return float(entropy) + independent_joint_mmd(both, softmax(logits, axis=1), 8, 1.68)

    assert network.head.weight.grad is not None
    for index in [(0, 0), (1, 3), (2, 4)]:
        nudged = [weight.copy(), weight.copy()]
        nudged[0][index] += 1e-5
        nudged[1][index] -= 1e-5
        slope = (value(nudged[0]) - value(nudged[1])) / 2e-5
        assert network.head.weight.grad[index].item() == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_the_same_features_with_exchanged_predictions_are_apart() -> None:
    """What MK-MMD cannot see: both domains have the same features, their classes are exchanged."""
    rng = np.random.default_rng(1)
    classes = np.arange(20) % 2
    features = torch.from_numpy(rng.normal(0, 0.1, (20, 2)) + 3 * classes[:, None])
    p = torch.from_numpy(np.eye(2)[classes])
    assert mk_mmd(features, features).item() < 0
    joint = joint_mmd((features, p), (features, 1 - p), 1.68).item()
    assert joint > 1 > 0 > joint_mmd((features, p), (features, p), 1.68).item()


@pytest.mark.slow
def test_adaptation_undoes_a_shift_that_hides_the_classes(tmp_path: Path) -> None:
    """One feature tells the classes apart best and has moved on the target; another, weaker one has not."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    labels = np.arange(60, dtype=np.int64) % 2
    centre = np.outer(np.where(labels == 0, -1.0, 1.0), [2, 0.7, 0, 0, 0, 0])
    source = (centre + rng.normal(0, 0.5, (60, 6))).astype(np.float32)
    target = (centre + rng.normal(0, 0.5, (60, 6)) + np.array([5, 0, 0, 0, 0, 0])).astype(np.float32)
    pixels = np.zeros((60, 8, 8, 3), dtype=np.uint8)

    def accuracy(weight: float, folder: str) -> float:
        torch.manual_seed(0)
        network = Network(torch.nn.Identity(), 6, 2)
        options: dict[str, Any] = {"steps": 100, "checkpoints": 1, "bottleneck": 16, "dropout": 0, "lr": 0.03}
        run_plan(
            TrainJob(
                network=network,
                preprocess=Preprocess(height=8, width=8),
                task=TASK,
                plan=Jan(train="head", **options, weight=weight).plan(TASK),
                streams={
                    "source": StreamData(pixels, np.arange(60), labels),
                    "target": StreamData(pixels, np.arange(60), None),
                },
                measure=lambda _: Measured((0.0,), {}),
                scratch=tmp_path / folder,
                start_counts=False,
                features={"source": source, "target": target},
            )
        )
        return float((predict_features(network, target)[1].argmax(1) == labels).mean())

    assert accuracy(1.0, "with") > accuracy(0.0, "without") + 0.2


def test_a_batch_without_target_images_is_named() -> None:
    network, batch, *_ = setting()
    with pytest.raises(PluginError, match="JAN needs a labelled source stream and a target stream"):
        JanObjective(1.0, 1.68).loss(network, Batch(batch.source, None, 0.0, 0))


def test_the_plan_uses_both_streams_and_the_references_rate() -> None:
    (phase,) = Jan(train="last", stages=2).plan(TASK).phases
    assert isinstance(phase, Phase)
    assert [(group.parameters, pytest.approx(group.lr)) for group in phase.moves[0].groups] == [
        ("last:2", 3e-4),
        ("head", 3e-3),
    ]
    assert phase.streams == ("source", "target")
