from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from torch import nn

from tlcore.errors import PluginError, UserError
from tlcore.protocols import TrainTask
from tlcore.training.job import Measured, TrainJob
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Phase, View
from tlcore.training.streams import StreamData
from tlcore.values import Preprocess
from tlcore_adapters.fixmatch import FixMatch, FixMatchObjective, consistency

TASK = TrainTask(("dark", "bright"), 4, 24, 24)


@given(st.integers(1, 20), st.integers(2, 6), st.floats(0.3, 0.99), st.integers(0, 10_000))
def test_consistency_equals_a_loop_over_images(m: int, k: int, threshold: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weak, strong = rng.normal(0, 3, (m, k)), rng.normal(0, 2, (m, k))
    expected, sure = 0.0, 0
    for q, logits in zip(softmax(weak, axis=1), strong, strict=True):
        if q.max() >= threshold:
            expected -= log_softmax(logits)[q.argmax()]
            sure += 1
    loss, share = consistency(torch.from_numpy(weak), torch.from_numpy(strong), threshold)
    assert loss.item() == pytest.approx(expected / m, rel=1e-9, abs=1e-12)
    assert share.item() == pytest.approx(sure / m)


def test_no_gradient_goes_through_the_weak_view() -> None:
    weak, strong = (
        torch.randn(4, 3, requires_grad=True),
        torch.zeros(4, 3, requires_grad=True),
    )
    consistency(weak, strong, 0.0)[0].backward()
    assert weak.grad is None
    assert strong.grad is not None and strong.grad.abs().sum() > 0


def test_a_batch_without_a_confident_image_costs_nothing() -> None:
    strong = torch.randn(4, 3, requires_grad=True)
    loss, share = consistency(torch.zeros(4, 3), strong, 0.9)
    loss.backward()
    assert (loss.item(), share.item()) == (0, 0)
    assert strong.grad is not None and (strong.grad == 0).all()


def test_a_single_class_is_always_confident_and_costs_nothing() -> None:
    loss, share = consistency(torch.randn(3, 1), torch.randn(3, 1), 1.0)
    assert (loss.item(), share.item()) == (0, 1)


def views() -> tuple[Network, Batch, list[np.ndarray], np.ndarray]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    source, weak, strong = (rng.normal(0, 3, (n, 5)) for n in (6, 4, 4))
    labels = np.arange(6) % 3
    network = Network(nn.Linear(5, 5), 5, 3).double()
    batch = Batch(
        View(torch.from_numpy(source), torch.from_numpy(labels), torch.arange(6)),
        View(torch.from_numpy(weak), None, torch.arange(4), torch.from_numpy(strong)),
        0.0,
        0,
    )
    return network, batch, [source, weak, strong], labels


def test_the_objective_is_source_cross_entropy_plus_weighted_consistency() -> None:
    network, batch, (source, weak, strong), labels = views()
    losses = FixMatchObjective(0.5, 0.6).loss(network, batch)
    base, shift = (value.detach().numpy() for value in (network.backbone.weight, network.backbone.bias))
    weight, bias = (value.detach().numpy() for value in (network.head.weight, network.head.bias))

    def logits(x: np.ndarray) -> np.ndarray:
        return (x @ base.T + shift) @ weight.T + bias

    supervised = -log_softmax(logits(source), axis=1)[np.arange(6), labels].mean()
    q = softmax(logits(weak), axis=1)
    terms = -log_softmax(logits(strong), axis=1)[np.arange(4), q.argmax(1)] * (q.max(1) >= 0.6)
    assert 0 < (q.max(1) >= 0.6).mean() < 1, "the case must have both kinds of images"
    assert losses["total"].item() == pytest.approx(supervised + 0.5 * terms.mean(), rel=1e-9)
    assert losses["pseudo"].item() == pytest.approx(terms.mean(), rel=1e-9)
    assert losses["confident"].item() == pytest.approx((q.max(1) >= 0.6).mean())


def test_without_a_strong_view_it_says_what_it_needs() -> None:
    network, batch, *_ = views()
    assert batch.target is not None
    plain = View(batch.target.inputs, None, batch.target.index)
    with pytest.raises(PluginError, match="two views"):
        FixMatchObjective(1.0, 0.9).loss(network, Batch(batch.source, plain, 0.0, 0))


def test_cached_features_cannot_be_asked_for() -> None:
    with pytest.raises(UserError, match='cannot train = "head"'):
        FixMatch(train="head").plan(TASK)


def test_a_costly_network_has_its_last_stage_trained_with_strong_views() -> None:
    (phase,) = FixMatch().plan(TrainTask(("a", "b"), 4, 24, 24, gmacs=1e6)).phases
    assert isinstance(phase, Phase)
    assert phase.strong_view and phase.inputs == "images"
    assert [group.parameters for group in phase.moves[0].groups] == ["last:1", "head"]


@pytest.mark.slow
def test_it_learns_from_both_domains_through_the_loop(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    labels = np.arange(24, dtype=np.int64) % 2

    def images(offset: int) -> np.ndarray:
        level = (60 + 110 * labels + offset)[:, None, None, None]
        return np.clip(level + rng.normal(0, 10, (24, 16, 16, 3)), 0, 255).astype(np.uint8)

    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    job = TrainJob(
        network=Network(backbone, 4, 2),
        preprocess=Preprocess(height=16, width=16),
        task=TASK,
        plan=FixMatch(steps=60, checkpoints=3, batch_size=12, lr=0.05, backbone_lr=1.0).plan(TASK),
        streams={
            "source": StreamData(images(0), np.arange(24), labels),
            "target": StreamData(images(25), np.arange(24), None),
        },
        measure=lambda _: Measured((0.0,), {}),
        scratch=tmp_path,
        start_counts=False,
    )
    history = run_plan(job).history
    assert history[-1].losses["source"] < history[0].losses["source"]
    assert history[-1].losses["confident"] > history[0].losses["confident"]
