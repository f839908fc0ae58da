"""Backbone, bottleneck and head."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from tlcore.errors import PluginError
from tlcore.training.network import Network, make_network
from tlcore.training.parameters import rest_frozen_stages, select
from tlcore.values import Bottleneck, Preprocess

PREPROCESS = Preprocess(height=32, width=32, crop_pct=1.0)


def network(architecture: str = "test_resnet", bottleneck: Bottleneck | None = None) -> Network:
    torch.manual_seed(0)
    backbone = timm.create_model(architecture, num_classes=0)
    return make_network(backbone, 3, preprocess=PREPROCESS, bottleneck=bottleneck).eval()


def test_a_bottleneck_stands_between_backbone_and_head() -> None:
    made = network(bottleneck=Bottleneck(width=7, dropout=0.1))
    x = torch.randn(5, 3, 32, 32)
    assert (
        made.features(x).shape == (5, 7)
        and made.feature_dim == 7
        and made.backbone_dim == made.embed(x).shape[1]
    )
    linear, norm, _, _ = made.bottleneck
    expected = torch.relu(norm(linear(made.embed(x))))
    assert torch.equal(made.features(x), expected)


def test_without_a_bottleneck_the_features_are_the_backbones() -> None:
    made, x = network(), torch.randn(2, 3, 32, 32)
    assert torch.equal(made.features(x), made.embed(x))
    assert not any(name.startswith("bottleneck") for name in made.state_dict())


def test_on_features_shares_bottleneck_and_head_and_gives_the_same_answers() -> None:
    made, x = network(bottleneck=Bottleneck(width=7)), torch.randn(4, 3, 32, 32)
    rest = made.on_features()
    assert torch.equal(rest(made.embed(x)), made(x))
    assert rest.head is made.head and rest.bottleneck is made.bottleneck


def test_a_renewed_head_follows_the_seed() -> None:
    first, second = network(), network()
    for made in (first, second):
        torch.manual_seed(5)
        made.renew_head(Bottleneck(width=6))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert first.feature_dim == 6 and first.head.out_features == 3


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_the_last_stages_are_the_end_of_the_backbone_and_more_of_them_hold_fewer_ones(
    architecture: str,
) -> None:
    made = (
        network(architecture)
        if architecture != "test_vit"
        else Network(timm.create_model("test_vit", num_classes=0), 64, 3)
    )
    names = list(dict(made.backbone.named_parameters()))
    one, two, many = (set(select(made, None, f"last:{n}")) for n in (1, 2, 99))
    assert one < two <= many == {f"backbone.{name}" for name in names}
    assert f"backbone.{names[0]}" not in two and f"backbone.{names[-1]}" in one
    assert any(value.ndim > 1 for value in select(made, None, "last:1").values())


def test_a_convolution_after_the_pooling_is_no_stage_of_its_own() -> None:
    backbone = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=0)
    made = make_network(backbone, 2, preprocess=Preprocess(height=32, width=32))
    chosen = {".".join(name.split(".")[1:3]) for name in select(made, None, "last:1")}
    assert chosen == {"blocks.5", "conv_head.weight", "conv_head.bias"}


@pytest.mark.parametrize("pattern", ["last:0", "last:x", "last:-1", "last:"])
def test_a_number_of_stages_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(PluginError, match="names no number of stages"):
        select(network(), None, pattern)


def test_a_backbone_that_does_not_say_its_stages_is_named() -> None:
    with pytest.raises(PluginError, match="Linear does not say what its stages are"):
        select(Network(nn.Linear(4, 4), 4, 2), None, "last:1")


def test_frozen_stages_rest_while_later_ones_learn() -> None:
    made = network().train()
    for value in made.parameters():
        value.requires_grad_(False)
    for value in select(made, None, "last:1").values():
        value.requires_grad_(True)
    rest_frozen_stages(made)
    norms = {name: m.training for name, m in made.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms["bn1"] is False and any(norms.values())
    learning = {name.split(".")[1] for name in select(made, None, "last:1")}
    assert {name.split(".")[0] for name, training in norms.items() if training} == learning


def test_statistics_may_move_where_nothing_is_trained() -> None:
    made = network().train()
    for value in made.parameters():
        value.requires_grad_(False)
    rest_frozen_stages(made)
    assert all(module.training for module in made.backbone.modules())
