from __future__ import annotations

import copy
import re

import pytest
import timm
import torch
from torch import Tensor, nn

from tlcore.errors import PluginError
from tlcore.training.network import make_network
from tlcore.training.parameters import select
from tlcore.training.split import Split, Whole, split
from tlcore.values import Preprocess

NETWORKS = (
    "test_resnet", "test_efficientnet", "test_byobnet", "test_convnext", "test_nfnet", "test_maxvit", "test_mambaout",
    "test_vit", "test_vit2", "test_vit_relpos", "mobilenetv3_small_050", "resnet18",
)  # fmt: skip


def last_stages(name: str, count: int) -> tuple[nn.Module, set[str], Tensor]:
    torch.manual_seed(0)
    backbone = timm.create_model(name, pretrained=False, num_classes=0)
    side = 160 if name.startswith("test_") else 64
    network = make_network(backbone, 3, preprocess=Preprocess(height=side, width=side, crop_pct=1.0))
    moving = {key.removeprefix("backbone.") for key in select(network, None, f"last:{count}")}
    return backbone, moving, torch.randn(2, 3, side, side)


def parts_of(backbone: nn.Module, moving: set[str], example: Tensor) -> Split:
    parts = split(backbone, moving, example)
    assert isinstance(parts, Split), parts
    return parts


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_both_parts_together_are_the_backbone_and_the_rest_holds_exactly_what_moves(name: str) -> None:
    backbone, moving, example = last_stages(name, 1)
    parts = parts_of(backbone, moving, example)
    backbone.eval()
    images = torch.randn(3, *example.shape[1:])
    with torch.no_grad():
        cut = parts.frozen(images)
        torch.testing.assert_close(parts.rest(cut), backbone(images), rtol=1e-5, atol=1e-5)
    assert cut.shape == (3, *parts.shapes[0]) and cut[0].numel() == parts.values
    own = dict(backbone.named_parameters())
    assert {id(value) for value in parts.rest.parameters()} == {id(own[key]) for key in moving}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_gradients_are_those_of_the_whole_network_whose_frozen_part_is_in_eval_mode(name: str) -> None:
    backbone, moving, example = last_stages(name, 1)
    parts = parts_of(backbone, moving, example)
    for key, value in backbone.named_parameters():
        value.requires_grad_(key in moving)
    backbone.train()
    for module in backbone.modules():
        own = list(module.parameters())
        if own and not any(value.requires_grad for value in own):
            module.eval()
    buffers = copy.deepcopy(dict(backbone.named_buffers()))
    backbone(example).square().mean().backward()
    expected = {key: value.grad for key, value in backbone.named_parameters() if key in moving}
    moved = copy.deepcopy(dict(backbone.named_buffers()))
    for key, value in backbone.named_buffers():
        value.copy_(buffers[key])
    backbone.zero_grad()
    parts.rest(parts.frozen(example)).square().mean().backward()
    for key, value in backbone.named_parameters():
        if key in moving:
            torch.testing.assert_close(value.grad, expected[key], rtol=1e-4, atol=1e-6)
        else:
            assert value.grad is None
    for (
        key,
        value,
    ) in backbone.named_buffers():  # batch norm of the rest follows the batch, the frozen one does not
        torch.testing.assert_close(value, moved[key])


def test_a_step_on_the_rest_is_a_step_on_the_backbone() -> None:
    backbone, moving, example = last_stages("test_resnet", 1)
    parts = parts_of(backbone, moving, example)
    before = copy.deepcopy(backbone.state_dict())
    optimizer = torch.optim.SGD(parts.rest.parameters(), lr=1.0)
    parts.rest(parts.frozen(example)).square().mean().backward()
    optimizer.step()
    changed = {key for key, value in backbone.named_parameters() if not torch.equal(value, before[key])}
    assert changed and changed <= moving


def test_modes_are_shared_and_left_alone() -> None:
    backbone, moving, example = last_stages("test_resnet", 1)
    backbone.train()
    backbone.get_submodule("layer4").eval()
    modes = {key: module.training for key, module in backbone.named_modules()}
    state = copy.deepcopy(backbone.state_dict())
    random = torch.get_rng_state()
    parts = parts_of(backbone, moving, example)
    parts.frozen(example)
    assert {key: module.training for key, module in backbone.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert not [key for key in vars(backbone) if key.startswith("_tensor_constant")]
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[key])
    parts.rest.train()
    assert backbone.get_submodule("layer4").training
    backbone.eval()
    assert not any(module.training for module in parts.rest.layers.layer4.modules())


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x))) + x


class _Chain(nn.Module):
    """A stem, a block that is looked into, dropout, an end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.drop, self.end = (
            nn.Linear(48, 6),
            _Block(),
            nn.Dropout(0.5),
            nn.Linear(6, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.drop(self.block(self.stem(x.flatten(1)))))


IMAGES = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def test_a_cut_inside_a_layer_packs_the_tensors_that_cross_it() -> None:
    net = _Chain()
    parts = parts_of(net, {"block.second.weight", "end.bias"}, IMAGES)
    assert parts.shapes == ((6,), (6,)) and parts.frozen(IMAGES).shape == (4, 12) and parts.values == 12
    net.eval()
    torch.testing.assert_close(parts.rest(parts.frozen(IMAGES)), net(IMAGES))


def test_dropout_after_the_cut_follows_the_mode_and_before_it_is_off() -> None:
    net = _Chain()
    rest = parts_of(net, {"block.second.weight"}, IMAGES)
    net.train()
    assert not torch.equal(rest.rest(rest.frozen(IMAGES)), rest.rest(rest.frozen(IMAGES)))
    net.eval()
    assert torch.equal(rest.rest(rest.frozen(IMAGES)), rest.rest(rest.frozen(IMAGES)))
    last = parts_of(net, {"end.weight"}, IMAGES)
    net.train()
    assert torch.equal(last.frozen(IMAGES), last.frozen(IMAGES))


def test_an_example_of_one_image_will_do() -> None:
    assert parts_of(_Chain(), {"end.weight"}, IMAGES[:1]).shapes == ((6,),)


class _Chooses(_Chain):
    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        return self.end(x if x.sum() > 0 else -x)


class _Counts(_Chain):
    """Takes the batch's size for a constant of the network."""

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.stem(x.flatten(1)).reshape(4, 6))


class _Drops(_Chain):
    def forward(self, x: Tensor) -> Tensor:
        return self.end(torch.dropout(self.stem(x.flatten(1)), 0.5, self.training))


class _Looks(_Chain):
    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.stem(x.flatten(1))) + x.mean()


@pytest.mark.parametrize(
    ("network", "moving", "why"),
    [
        (_Chooses, {"end.weight"}, "cannot be followed"),
        (_Counts, {"end.weight"}, "do not fit together"),
        (_Drops, {"end.weight"}, "does something else in training"),
        (_Chain, {"stem.weight"}, "nothing that is frozen comes before"),
        (_Looks, {"end.weight"}, "reads the image"),
        (_Chain, set(), "no parameter"),
    ],
)
def test_what_cannot_be_cut_says_why(network: type[nn.Module], moving: set[str], why: str) -> None:
    found = split(network(), moving, IMAGES)
    assert isinstance(found, Whole) and re.search(why, found.why), found


def test_a_layer_with_control_flow_on_numbers_stays_whole() -> None:
    class Picky(_Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    net = _Chain()
    net.block = Picky()
    parts = parts_of(net, {"block.second.weight"}, IMAGES)
    assert parts.shapes == ((6,),)
    assert "block.first.weight" in {name.removeprefix("layers.") for name, _ in parts.rest.named_parameters()}


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(PluginError, match=r"no parameter head\.weight"):
        split(_Chain(), {"head.weight"}, IMAGES)
