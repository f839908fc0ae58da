from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from tests.plugins.tuned import bright_images, job, small_network
from tlcore.errors import PluginError
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Setup, View
from tlcore_tuners.delta import (
    Delta,
    DeltaObjective,
    behaviour_gap,
    by_position,
    channel_attention,
    last_maps,
    recorded,
    removal_increase,
)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000))
def test_the_gap_is_the_weighted_squared_change_of_the_channels(n: int, p: int, c: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    now, then, attention = rng.normal(size=(n, p, c)), rng.normal(size=(n, p, c)), rng.dirichlet(np.ones(c))
    by_hand = 0.0
    for image in range(n):
        for channel in range(c):
            distance = np.linalg.norm(now[image, :, channel] - then[image, :, channel]) ** 2
            by_hand += 0.5 * c * attention[channel] * distance / p
    got = behaviour_gap(*(torch.from_numpy(x) for x in (now, then, attention))).item()
    assert got == pytest.approx(by_hand / n, rel=1e-9)


def test_no_change_is_no_gap_and_the_start_gets_no_gradient() -> None:
    start = torch.randn(2, 3, 4, requires_grad=True)
    now = start.detach().clone().requires_grad_()
    gap = behaviour_gap(now, start, torch.full((4,), 0.25))
    gap.backward()
    assert gap.item() == 0 and start.grad is None and now.grad is not None and not now.grad.any()


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_attention_is_a_softmax_of_standardised_increases(increases: list[float]) -> None:
    values = np.asarray(increases)
    got = channel_attention(torch.from_numpy(values)).numpy()
    assert got.sum() == pytest.approx(1) and (got > 0).all()
    if values.std() > 1e-6:
        np.testing.assert_allclose(got, softmax((values - values.mean()) / values.std() / 5), rtol=1e-6)


def test_channels_that_are_all_alike_weigh_the_same() -> None:
    assert channel_attention(torch.full((4,), 0.3)).tolist() == pytest.approx([0.25] * 4)


def test_increases_are_the_loss_s_slope_as_a_channel_is_turned_down() -> None:
    torch.manual_seed(0)
    network = small_network("test_resnet").eval().requires_grad_(False)
    network.head.weight.normal_()
    layers = last_maps(network.backbone, 1)
    images, labels = torch.randn(3, 3, 64, 64), torch.tensor([0, 1, 2])

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits.double(), labels)

    with recorded(network.backbone, layers, leaves=True) as maps:
        (found,) = removal_increase(loss(network(images)), maps, layers)
    module, change = network.backbone.get_submodule(layers[0][0]), 1e-3
    for channel in (0, 7, 50):
        values = []
        for sign in (-1, 1):
            factor = torch.ones(1, 96, 1, 1)
            factor[0, channel] += sign * change
            handle = module.register_forward_hook(lambda m, i, out, by=factor: out * by)
            values.append(loss(network(images)).item())
            handle.remove()
        slope = (values[1] - values[0]) / (2 * change)
        assert found[channel].item() == pytest.approx(-slope, abs=2e-4)


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (2, 3, 4, 5), (2, 12, 5), (2, 5)])
def test_maps_of_every_layout_have_channels_last(shape: tuple[int, ...]) -> None:
    x = torch.arange(np.prod(shape), dtype=torch.float32).reshape(shape)
    got = by_position(x, 5, "stage")
    assert got.shape[0] == 2 and got.shape[2] == 5 and got.numel() == x.numel()
    channel = x[:, 2] if len(shape) == 4 and shape[1] == 5 else x[..., 2]
    assert torch.equal(got[:, :, 2].flatten(), channel.flatten())


@pytest.mark.parametrize("output", [torch.zeros(2, 4, 3, 3), (torch.zeros(2, 5),)], ids=["channels", "tuple"])
def test_what_is_no_map_is_refused(output: object) -> None:
    with pytest.raises(PluginError, match="stage gives no feature map of 5 channels"):
        by_position(output, 5, "stage")


def test_a_network_that_does_not_tell_its_maps_is_refused() -> None:
    with pytest.raises(PluginError, match=r"does not say what its feature maps are[\s\S]*l2-sp"):
        last_maps(torch.nn.Linear(2, 2), 1)


def made(name: str, attention: bool = True) -> tuple[DeltaObjective, Network, torch.nn.Module, Batch]:
    network = small_network(name)
    torch.nn.init.normal_(network.head.weight)
    objective = DeltaObjective(0.0, False, 1.0, 0.0, 2, attention)
    own = objective.setup(Setup(network, job(Delta(), Path(), network=network).task, lambda stream: None))  # type: ignore[arg-type, return-value]
    pixels, labels = bright_images(6, 3)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    return (
        objective,
        network,
        own,
        Batch(View(images, torch.from_numpy(labels), torch.arange(6)), None, 0.0, 0),
    )


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_there_is_no_gap_at_the_start_and_one_after_a_change(name: str) -> None:
    objective, network, _, batch = made(name)
    network.eval()
    assert objective.loss(network, batch)["gap"].item() == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        for value in network.backbone.parameters():
            value.mul_(1.1)
    losses = objective.loss(network, batch)
    losses["total"].backward()
    assert losses["gap"].item() > 0
    assert all(torch.isfinite(value.grad).all() for value in network.parameters() if value.grad is not None)


def test_the_gap_is_the_relative_squared_change_of_each_map() -> None:
    objective, network, own, batch = made("test_resnet", attention=False)
    network.eval()
    with torch.no_grad():
        network.backbone.layer3[0].downsample[2].weight.add_(torch.rand(192))
    maps = []
    for one in (network, own.get_submodule("start")):
        with torch.no_grad(), recorded(one.get_submodule("backbone"), objective.layers) as seen:
            one.eval()(batch.source.inputs)
        maps.append([each.numpy().astype(np.float64) for each in seen])
    by_hand = sum(((a - b) ** 2).sum() / (b**2).sum() for a, b in zip(*maps, strict=True))
    assert by_hand > 0
    assert objective.loss(network, batch)["gap"].item() == pytest.approx(by_hand, rel=1e-3)


def test_attention_is_learned_from_the_first_batches_alone() -> None:
    objective, network, own, batch = made("test_resnet")
    for _ in range(12):
        objective.loss(network, batch)
    assert own.get_buffer("batches").item() == 10
    learned = own.get_buffer("increase1").clone()
    assert learned.std() > 0
    objective.loss(network, batch)
    assert torch.equal(own.get_buffer("increase1"), learned)


def test_without_attention_every_channel_counts_the_same() -> None:
    objective, network, own, batch = made("test_resnet", attention=False)
    objective.loss(network, batch)
    assert own.get_buffer("batches").item() == 0 and not own.get_buffer("increase0").any()


@pytest.mark.slow
def test_a_killed_training_keeps_the_first_weights_as_its_start(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def progress(done: int, total: int, text: str) -> None:
        if done == 3 and total > 3:
            raise Killed

    ends = []
    for killed in (False, True):
        network, folder = small_network(), tmp_path / str(killed)
        work = job(Delta(epochs=2, lr=1e-3), folder, network=network, save_seconds=0.0, start_counts=False)
        if killed:
            with pytest.raises(Killed):
                run_plan(replace(work, progress=progress))
            work = replace(work, network=small_network())
        run_plan(work)
        ends.append(work.network.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
