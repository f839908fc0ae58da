from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from tlcore.errors import PluginError
from tlcore.protocols import TrainTask
from tlcore.training.job import Measured, TrainJob
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Bottleneck, Phase, View
from tlcore.training.streams import StreamData
from tlcore.values import Preprocess
from tlcore_adapters.mk_mmd import MkMmd, MkMmdObjective

TASK = TrainTask(("a", "b"), 6, 40, 40)


def batch_of(source: np.ndarray, target: np.ndarray, labels: np.ndarray) -> Batch:
    return Batch(
        View(torch.from_numpy(source), torch.from_numpy(labels), torch.arange(len(source))),
        View(torch.from_numpy(target), None, torch.arange(len(target))),
        0.0,
        0,
    )


def independent_mmd(source: np.ndarray, target: np.ndarray) -> float:
    both, n = np.concatenate([source, target]), len(source)
    squared = cdist(both, both, "sqeuclidean")
    v = squared.sum() / (len(both) * (len(both) - 1))
    kernel = sum(np.exp(-squared / (2 * 2.0**k * v)) for k in range(-3, 2))

    def off_diagonal(block: np.ndarray) -> float:
        return float(block[~np.eye(len(block), dtype=bool)].mean())

    return off_diagonal(kernel[:n, :n]) + off_diagonal(kernel[n:, n:]) - 2 * float(np.mean(kernel[:n, n:]))


def test_the_objective_is_cross_entropy_plus_the_weighted_discrepancy_of_the_heads_inputs() -> None:
    rng = np.random.default_rng(0)
    source, target, labels = rng.normal(size=(12, 6)), rng.normal(2, 3, size=(9, 6)), np.arange(12) % 4
    network = Network(torch.nn.Linear(6, 6), 6, 4).double()
    losses = MkMmdObjective(3.0).loss(network, batch_of(source, target, labels))
    base, bias = (value.detach().numpy() for value in (network.backbone.weight, network.backbone.bias))
    weight, shift = (value.detach().numpy() for value in (network.head.weight, network.head.bias))
    features = source @ base.T + bias
    logits = features @ weight.T + shift
    entropy = float((np.log(np.exp(logits).sum(1)) - logits[np.arange(12), labels]).mean())
    gap = independent_mmd(features, target @ base.T + bias)
    assert losses["source"].item() == pytest.approx(entropy, rel=1e-6)
    assert losses["mmd"].item() == pytest.approx(gap, rel=1e-5)
    assert losses["total"].item() == pytest.approx(entropy + 3 * gap, rel=1e-5)


def shifted_domains(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two classes in 6 dimensions; the target is moved along a direction that means nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(40, dtype=np.int64) % 2
    centre = np.where(labels[:, None] == 0, -1.0, 1.0) * np.array([2, 0, 0, 0, 0, 0])
    source = centre + rng.normal(0, 0.5, (40, 6))
    target = centre + rng.normal(0, 0.5, (40, 6)) + np.array([0, 3, 0, 0, 0, 0])
    return source.astype(np.float32), target.astype(np.float32), labels


def gap_after_training(weight: float, folder: Path) -> float:
    torch.set_num_threads(1)
    source, target, labels = shifted_domains()
    network = Network(torch.nn.Identity(), 6, 2)
    pixels = np.zeros((40, 8, 8, 3), dtype=np.uint8)
    plan = MkMmd(train="head", steps=60, checkpoints=1, bottleneck=8, dropout=0, weight=weight, lr=0.03).plan(
        TASK
    )
    run_plan(
        TrainJob(
            network=network,
            preprocess=Preprocess(height=8, width=8),
            task=TASK,
            plan=plan,
            streams={
                "source": StreamData(pixels, np.arange(40), labels),
                "target": StreamData(pixels, np.arange(40), None),
            },
            measure=lambda _: Measured((0.0,), {}),
            scratch=folder,
            start_counts=False,
            features={"source": source, "target": target},
        )
    )
    with torch.no_grad():
        return independent_mmd(*(network.features(torch.from_numpy(x)).numpy() for x in (source, target)))


def test_training_brings_the_domains_together(tmp_path: Path) -> None:
    assert gap_after_training(1.0, tmp_path / "with") < 0.5 * gap_after_training(0.0, tmp_path / "without")


def test_a_single_image_of_a_domain_is_named_as_too_few() -> None:
    network = Network(torch.nn.Identity(), 3, 2).double()
    with pytest.raises(PluginError, match="at least two images of each domain"):
        MkMmdObjective(1.0).loss(
            network, batch_of(np.zeros((1, 3)), np.zeros((4, 3)), np.zeros(1, dtype=np.int64))
        )


def test_the_plan_has_the_references_rate_and_a_bottleneck_on_cached_features() -> None:
    plan = MkMmd(train="head").plan(TASK)
    (phase,) = plan.phases
    assert isinstance(phase, Phase) and plan.bottleneck == Bottleneck(width=256, dropout=0.5)
    assert (phase.inputs, phase.streams) == ("features", ("source", "target"))
    assert {group.parameters: group.lr for group in phase.moves[0].groups} == {
        "bottleneck": 3e-3,
        "head": 3e-3,
    }


def test_the_whole_network_moves_where_it_is_affordable() -> None:
    plan = MkMmd().plan(TASK)
    (phase,) = plan.phases
    assert isinstance(phase, Phase) and plan.bottleneck is None
    assert [group.parameters for group in phase.moves[0].groups] == ["backbone", "head"]
