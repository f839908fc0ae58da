from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from tests.plugins.tuned import job, small_network
from tlcore.errors import PluginError
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore_tuners.lora import Lora, LowRank, adapted_layers

ARCHITECTURES = ["test_vit", "test_resnet", "test_convnext"]
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def filled(network: Network) -> Network:
    """Adapters of random values: at the start they change nothing."""
    torch.manual_seed(1)
    with torch.no_grad():
        network.head.weight.normal_()
        for name, value in network.named_parameters():
            if ".lora_B." in name:
                value.normal_(std=0.05)
    return network.eval()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_merged_network_answers_as_the_adapted_one_and_is_shaped_as_before(name: str) -> None:
    network = small_network(name)
    shapes = [(key, value.shape) for key, value in network.state_dict().items()]
    change = LowRank(4, 8.0, 0.5, "all")
    change.apply(network)
    with torch.no_grad():
        adapted = filled(network)(IMAGES)
        change.merge(network)
        merged = network(IMAGES)
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-4)
    assert [(key, value.shape) for key, value in network.state_dict().items()] == shapes
    assert not hasattr(network.backbone, "peft_config")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_before_any_step_nothing_has_changed(name: str) -> None:
    plain, adapted = small_network(name).eval(), small_network(name).eval()
    LowRank(2, 1.0, 0.2, "all").apply(adapted)
    with torch.no_grad():
        assert torch.equal(plain.eval().features(IMAGES), adapted.eval().features(IMAGES))


def test_a_merged_matrix_is_the_old_one_plus_the_scaled_product() -> None:
    network = small_network("test_vit")
    layer = network.backbone.blocks[0].attn.qkv
    old = layer.weight.detach().numpy().copy()
    change = LowRank(3, 6.0, 0.0, "attention")
    change.apply(network)
    filled(network)
    wrapped = network.backbone.blocks[0].attn.qkv
    a, b = (part["default"].weight.detach().numpy() for part in (wrapped.lora_A, wrapped.lora_B))
    assert a.shape == (3, 64) and b.shape == (192, 3)
    change.merge(network)
    np.testing.assert_allclose(
        network.backbone.blocks[0].attn.qkv.weight.detach(), old + 2 * b @ a, atol=1e-5
    )


def test_targets_name_what_gets_an_adapter() -> None:
    vit = timm.create_model("test_vit", pretrained=False, num_classes=0)
    attention, linear, every = (adapted_layers(vit, which) for which in ("attention", "linear", "all"))
    assert set(attention) < set(linear) < set(every)
    assert all(".attn." in name for name in attention) and "patch_embed.proj" in every


def test_depthwise_and_weight_standardised_convolutions_are_left_alone() -> None:
    convnext = timm.create_model("test_convnext", pretrained=False, num_classes=0)
    assert not any("conv_dw" in name for name in adapted_layers(convnext, "all"))
    nfnet = timm.create_model("test_nfnet", pretrained=False, num_classes=0)
    kinds = {type(nfnet.get_submodule(name)) for name in adapted_layers(nfnet, "all")}
    assert kinds == {torch.nn.Conv2d}


def test_a_network_without_such_layers_is_refused_with_the_way_out() -> None:
    with pytest.raises(PluginError, match=r'no layer for an adapter on "attention"[\s\S]*targets = all'):
        LowRank(2, 1.0, 0.0, "attention").apply(small_network())


def test_adapters_that_are_not_finite_are_not_folded_in() -> None:
    network = small_network()
    change = LowRank(2, 1.0, 0.0, "all")
    change.apply(network)
    with torch.no_grad():
        network.backbone.layer1[0].conv1.lora_B["default"].weight.fill_(float("nan"))
    with pytest.raises(PluginError, match="layer1.0.conv1 cannot be folded in"):
        change.merge(network)


def weights_after(tmp_path: Path, *, killed_after: int | None = None) -> dict[str, torch.Tensor]:
    network = small_network()
    work = job(Lora(epochs=2, lr=0.01), tmp_path, network=network, save_seconds=0.0, start_counts=False)

    class Killed(Exception):
        pass

    def progress(done: int, total: int, text: str) -> None:
        if "tune" in text and done == killed_after:
            raise Killed

    if killed_after is not None:
        with pytest.raises(Killed):
            run_plan(replace(work, progress=progress))
        network = small_network()
        work = job(Lora(epochs=2, lr=0.01), tmp_path, network=network, save_seconds=0.0, start_counts=False)
    assert (run_plan(work).resumed_from_step is not None) == (killed_after is not None)
    return network.state_dict()


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, resumed = weights_after(tmp_path / "a"), weights_after(tmp_path / "b", killed_after=3)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    start = small_network().state_dict()
    assert whole.keys() == start.keys()
    moved = {name for name, value in whole.items() if not torch.equal(value, start[name])}
    assert "backbone.layer4.0.downsample.1.weight" in moved
    assert not any(".bn" in name for name in moved)
