from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy
from torch import nn

from tlcore.errors import PluginError, UserError
from tlcore.protocols import TrainTask
from tlcore.training.job import Measured, TrainJob
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.objectives import mean_entropy
from tlcore.training.plan import Batch, Phase, Setup, View
from tlcore.training.streams import StreamData
from tlcore.values import Preprocess
from tlcore_adapters.tent import Tent, TentObjective, averaging

TASK = TrainTask(("a", "b", "c"), 4, 20, 20)


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 10_000))
def test_the_loss_is_the_mean_entropy_in_nats(n: int, k: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 4, (n, k))
    expected = scipy_entropy(np.exp(logits), axis=1).mean()
    assert mean_entropy(torch.from_numpy(logits)).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_gradient_equals_finite_differences() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (3, 4))
    moving = torch.from_numpy(logits).requires_grad_()
    mean_entropy(moving).backward()
    assert moving.grad is not None
    for index in np.ndindex(*logits.shape):
        values = []
        for sign in (1, -1):
            nudged = logits.copy()
            nudged[index] += sign * 1e-6
            values.append(scipy_entropy(np.exp(nudged), axis=1).mean())
        assert moving.grad[index].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_certain_predictions_of_any_size_have_a_finite_loss_and_gradient() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    loss = mean_entropy(logits)
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and torch.isfinite(logits.grad).all()


def test_running_statistics_are_the_mean_over_the_first_batches_and_the_source_is_gone() -> None:
    layer = nn.BatchNorm1d(2, momentum=0.1)
    layer.running_mean.fill_(1000.0)  # type: ignore[union-attr]
    batches = np.random.default_rng(0).normal(3, 2, (5, 8, 2)).astype(np.float32)
    for step, batch in enumerate(batches):
        with averaging(layer, step):
            layer(torch.from_numpy(batch))
    assert layer.running_mean is not None and layer.running_var is not None
    np.testing.assert_allclose(layer.running_mean.numpy(), batches.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(layer.running_var.numpy(), batches.var(1, ddof=1).mean(0), rtol=1e-4)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_each_layer_has_its_own_momentum_again_even_after_an_error(momentum: float | None) -> None:
    layer = nn.BatchNorm1d(2, momentum=momentum)
    with pytest.raises(ValueError, match="Expected more than 1"), averaging(layer, 3):
        assert layer.momentum == 0.25
        layer(torch.zeros(1, 2))
    assert layer.momentum == momentum


def test_after_many_batches_torchs_own_average_goes_on() -> None:
    layer = nn.BatchNorm1d(2, momentum=0.1)
    with averaging(layer, 99):
        assert layer.momentum == 0.1


def network_of(norm: nn.Module) -> Network:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(backbone, 4, 3)


def job_of(
    network: Network, folder: Path, progress: Callable[[int, int, str], None] = lambda done, total, text: None,
    images: int = 20, **options: int,
) -> TrainJob:  # fmt: skip
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (images, 8, 8, 3), dtype=np.uint8)
    return TrainJob(
        network=network,
        preprocess=Preprocess(height=8, width=8),
        task=TASK,
        plan=Tent(batch_size=6, **options).plan(TASK),
        streams={"target": StreamData(pixels, np.arange(images), None)},
        measure=lambda _: Measured((0.0,), {}),
        scratch=folder,
        start_counts=False,
        save_seconds=0.0,
        progress=progress,
    )


@pytest.mark.slow
@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4)])
def test_nothing_but_scales_and_shifts_of_norm_layers_moves(norm: nn.Module, tmp_path: Path) -> None:
    job = job_of(network_of(norm), tmp_path)
    before = {name: value.clone() for name, value in job.network.named_parameters()}
    run_plan(job)
    moved = {name for name, value in job.network.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"backbone.1.weight", "backbone.1.bias"}


@pytest.mark.slow
def test_certainty_grows_on_the_target(tmp_path: Path) -> None:
    losses = [
        line.losses["total"]
        for line in run_plan(
            job_of(network_of(nn.BatchNorm2d(4)), tmp_path, steps=100, checkpoints=2)
        ).history
    ]
    assert losses[1] < losses[0]


def test_by_default_each_target_image_is_seen_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    job = job_of(
        network_of(nn.BatchNorm2d(4)), tmp_path, lambda done, total, text: seen.append((done, total))
    )
    run_plan(job)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]  # 20 images, batches of 6 at most


class Killed(Exception):
    pass


def test_a_killed_pass_ends_with_the_network_of_an_unbroken_one(tmp_path: Path) -> None:
    def kill(done: int, total: int, text: str) -> None:
        if done == 2:
            raise Killed

    whole = job_of(network_of(nn.BatchNorm2d(4)), tmp_path / "whole")
    run_plan(whole)
    with pytest.raises(Killed):
        run_plan(job_of(network_of(nn.BatchNorm2d(4)), tmp_path / "broken", kill))
    again = job_of(network_of(nn.BatchNorm2d(4)), tmp_path / "broken")
    run_plan(again)
    wanted = whole.network.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in again.network.state_dict().items())


@pytest.mark.parametrize("norm", [nn.Identity(), nn.BatchNorm2d(4, affine=False)])
def test_a_network_without_norm_layers_is_refused_with_the_remedy(norm: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no normalisation layer") as caught:
        run_plan(job_of(network_of(norm), tmp_path))
    assert "choose an adapter" in caught.value.hint


def test_a_single_target_image_is_named_as_too_few(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="at least two images"):
        run_plan(job_of(network_of(nn.BatchNorm2d(4)), tmp_path, images=1))


def test_a_batch_without_target_images_is_named() -> None:
    network = network_of(nn.BatchNorm2d(4))
    objective = TentObjective()
    objective.setup(Setup(network, TASK, lambda stream: (np.zeros((1, 1)), np.zeros((1, 1)))))  # type: ignore[arg-type, return-value]
    view = View(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    with pytest.raises(PluginError, match="needs a target stream"):
        objective.loss(network, Batch(view, None, 0.0, 0))


def test_the_plan_is_adam_over_norm_layers_on_the_target_alone() -> None:
    (phase,) = Tent().plan(TASK).phases
    assert isinstance(phase, Phase)
    (group,) = phase.moves[0].groups
    assert (group.parameters, group.lr, group.weight_decay) == ("norm", 1e-3, 0)
    assert (phase.streams, phase.optimizer, phase.schedule) == (("target",), "adamw", "constant")
    assert (phase.epochs, phase.steps_per_epoch, phase.augment) == (1, None, "none")
    (longer,) = Tent(steps=30, checkpoints=3).plan(TASK).phases
    assert isinstance(longer, Phase) and (longer.epochs, longer.steps_per_epoch) == (3, 10)


def test_what_it_cannot_train_is_refused() -> None:
    with pytest.raises(UserError, match='cannot train = "head"'):
        Tent(train="head").plan(TASK)
    with pytest.raises(UserError, match="no label that could train one"):
        Tent(bottleneck=16).plan(TASK)
