from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tlcore.errors import PluginError
from tlcore.protocols import TrainTask
from tlcore.training.job import Measured, TrainJob
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Phase, Setup, View
from tlcore.training.streams import StreamData
from tlcore.values import Preprocess
from tlcore_adapters.adabn import AdaBn, AdaBnObjective, merge_moments

TASK = TrainTask(("a", "b", "c"), 4, 20, 20)
PREPROCESS = Preprocess(height=8, width=8)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.floats(-1e3, 1e3), st.integers(0, 10_000))
def test_merged_moments_are_those_of_all_values(sizes: list[int], offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(offset, 1, (n, 3, 2, 2)) for n in sizes]
    state = (torch.zeros((), dtype=torch.float64), *(torch.zeros(3, dtype=torch.float64) for _ in range(2)))
    for part in parts:
        state = merge_moments(*state, torch.from_numpy(part))
    whole = np.concatenate(parts)
    count, mean, squares = (value.numpy() for value in state)
    assert count == whole.size / 3
    np.testing.assert_allclose(mean, whole.mean((0, 2, 3)), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(squares / count, whole.var((0, 2, 3)), rtol=1e-7, atol=1e-9)


def network_of(*layers: nn.Module) -> Network:
    torch.manual_seed(0)
    return Network(nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4, 3)


def two_layers() -> Network:
    torch.manual_seed(0)
    return network_of(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
    )


def job_of(
    network: Network, folder: Path, *, images: int = 20, batch_size: int = 6, seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None, pixels: np.ndarray | None = None,
) -> TrainJob:  # fmt: skip
    torch.set_num_threads(1)
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 200, (images, 8, 8, 3), dtype=np.uint8)
    return TrainJob(
        network=network,
        preprocess=PREPROCESS,
        task=TASK,
        plan=AdaBn(batch_size=batch_size).plan(TASK),
        streams={"target": StreamData(pixels, np.arange(images), None)},
        measure=lambda _: Measured((0.0,), {}),
        scratch=folder,
        start_counts=False,
        save_seconds=0.0,
        progress=progress,
        seed=seed,
    )


@pytest.mark.parametrize("batch_size", [2, 6, 64])
def test_the_statistics_are_means_and_variances_of_all_target_images(batch_size: int, tmp_path: Path) -> None:
    """A 1 x 1 convolution before the layer: NumPy can tell what it receives."""
    network = network_of(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    job = job_of(network, tmp_path, batch_size=batch_size)
    run_plan(job)
    x = (job.streams["target"].pixels / 255 - np.array(PREPROCESS.mean)) / np.array(PREPROCESS.std)
    convolution, layer = network.backbone[0], network.backbone[1]  # type: ignore[index]
    weight, bias = convolution.weight.detach().numpy()[:, :, 0, 0], convolution.bias.detach().numpy()
    received = (x @ weight.T + bias).reshape(-1, 4)
    np.testing.assert_allclose(layer.running_mean.numpy(), received.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.running_var.numpy(), received.var(0, ddof=1), rtol=1e-4)


def test_nothing_but_running_statistics_changes(tmp_path: Path) -> None:
    network = two_layers()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    momenta = [m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    run_plan(job_of(network, tmp_path))
    after = network.state_dict()
    changed = {name.rpartition(".")[2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    assert [m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)] == momenta
    assert not any(m._forward_pre_hooks for m in network.modules())


def test_the_source_leaves_no_trace_in_the_statistics(tmp_path: Path) -> None:
    plain, spoilt = two_layers(), two_layers()
    with torch.no_grad():
        spoilt.backbone[1].running_mean.fill_(1e3)  # type: ignore[index]
        spoilt.backbone[5].running_var.fill_(1e6)  # type: ignore[index]
    run_plan(job_of(plain, tmp_path / "plain"))
    run_plan(job_of(spoilt, tmp_path / "spoilt"))
    wanted = plain.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in spoilt.state_dict().items())


def test_the_order_of_the_images_does_not_matter_to_the_first_layer(tmp_path: Path) -> None:
    first, second = two_layers(), two_layers()
    run_plan(job_of(first, tmp_path / "first", seed=0))
    run_plan(job_of(second, tmp_path / "second", seed=1))
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(
            getattr(first.backbone[1], name),  # type: ignore[index]
            getattr(second.backbone[1], name),  # type: ignore[index]
            rtol=1e-5,
            atol=1e-6,
        )


def test_the_order_of_the_batches_does_not_matter_to_any_layer() -> None:
    rng = np.random.default_rng(0)
    batches = [torch.from_numpy(rng.normal(k, 1, (5, 3, 8, 8)).astype(np.float32)) for k in range(4)]

    def statistics(order: list[int]) -> list[torch.Tensor]:
        network, objective = two_layers(), AdaBnObjective()
        objective.setup(Setup(network, TASK, lambda stream: (np.zeros((1, 1)), np.zeros((1, 1)))))  # type: ignore[arg-type, return-value]
        for step, place in enumerate(order):
            view = View(batches[place], None, torch.arange(5))
            objective.loss(network, Batch(None, view, 0.0, step))
        return [value for name, value in network.named_buffers() if "running" in name]

    for one, other in zip(statistics([0, 1, 2, 3]), statistics([2, 3, 1, 0]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed_at", [1, 3])
def test_a_killed_pass_ends_with_the_statistics_of_an_unbroken_one(killed_at: int, tmp_path: Path) -> None:
    def kill(done: int, total: int, text: str) -> None:
        if done == killed_at:
            raise Killed

    whole = job_of(two_layers(), tmp_path / "whole")
    run_plan(whole)
    with pytest.raises(Killed):
        run_plan(job_of(two_layers(), tmp_path / "broken", progress=kill))
    again = job_of(two_layers(), tmp_path / "broken")
    run_plan(again)
    wanted = whole.network.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in again.network.state_dict().items())


def test_images_of_another_contrast_are_predicted_as_before_it_changed(tmp_path: Path) -> None:
    """What AdaBN is for: halved contrast and more light vanish behind batch norm with the target's statistics."""
    network = network_of(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    nn.init.normal_(network.head.weight, std=5)
    first = job_of(network, tmp_path / "one")
    run_plan(first)
    network.eval()

    def logits(pixels: np.ndarray) -> torch.Tensor:
        x = (pixels / 255 - np.array(PREPROCESS.mean)) / np.array(PREPROCESS.std)
        with torch.no_grad():
            return network(torch.from_numpy(x.transpose(0, 3, 1, 2)).float())  # type: ignore[no-any-return]

    pixels = first.streams["target"].pixels
    expected = logits(pixels)
    pale = (pixels // 2 + 120).astype(np.uint8)
    before = (logits(pale) - expected).abs().max().item()
    run_plan(job_of(network, tmp_path / "two", pixels=pale))
    assert (logits(pale) - expected).abs().max().item() < 0.05 * before


def test_constant_images_have_variance_zero_and_finite_predictions(tmp_path: Path) -> None:
    network = two_layers()
    run_plan(job_of(network, tmp_path, pixels=np.full((20, 8, 8, 3), 7, dtype=np.uint8)))
    network.eval()
    assert torch.isfinite(network(torch.zeros(2, 3, 8, 8))).all()


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.BatchNorm2d(4, track_running_stats=False)])
def test_a_network_without_batch_norm_is_refused_with_the_remedy(norm: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no batch-norm layer") as caught:
        run_plan(job_of(network_of(nn.Conv2d(3, 4, 1), norm), tmp_path))
    assert "choose" in caught.value.hint


def test_a_single_target_image_is_named_as_too_few(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="at least two images"):
        run_plan(job_of(two_layers(), tmp_path, images=1))


def test_a_layer_that_no_image_reaches_keeps_its_statistics(tmp_path: Path) -> None:
    network = two_layers()
    network.unused = nn.BatchNorm1d(4)
    network.unused.running_mean.fill_(3.0)  # type: ignore[union-attr]
    run_plan(job_of(network, tmp_path))
    assert (network.unused.running_mean == 3).all()  # type: ignore[union-attr]


def test_the_plan_is_one_pass_over_the_target_without_a_step() -> None:
    (phase,) = AdaBn(batch_size=16).plan(TASK).phases
    assert isinstance(phase, Phase)
    assert phase.moves[0].groups == () and phase.streams == ("target",)
    assert (phase.epochs, phase.steps_per_epoch, phase.batch_size) == (1, None, 16)
    assert (phase.augment, phase.choose, phase.frozen_statistics) == ("none", "last", False)
