from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tlcore.training import precision
from tlcore.training.precision import Precision, autocast, choose_precision, has_bf16


class _Net(nn.Module):
    """Two ticks a pass in one precision and one in the other; its bf16 pass can be made wrong."""

    def __init__(self, slow: str = "", wrong: float = 0.0, tilt: float = 1.0) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.slow, self.wrong, self.tilt, self.passes, self.ticks = slow, wrong, tilt, 0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        half = torch.is_autocast_enabled("cpu")
        self.ticks += 2 if self.slow == ("bf16" if half else "fp32") else 1
        made = self.drop(self.norm(self.conv(x))).float().exp().mean()
        return made.detach() + (made - made.detach()) * (self.tilt if half else 1) + self.wrong * half


X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Precision]:
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    torch.set_num_threads(1)

    def choose(net: _Net, name: str = "net", folder: Path | None = tmp_path) -> Precision:
        return choose_precision(
            net,
            lambda: net(X),
            "cpu",
            architecture=name,
            shape=(4, 3, 8, 8),
            folder=folder,
            clock=lambda: net.ticks,
        )

    return choose


def test_the_faster_one_is_taken_when_the_losses_agree(chosen: Callable[..., Precision]) -> None:
    fast, slow = chosen(_Net("fp32"), folder=None), chosen(_Net("bf16"), folder=None)
    assert fast.name == "bf16" and fast.ratio == 0.5
    assert slow.name == "fp32" and slow.ratio == 2 and "2.00 of float32's time" in slow.why


@pytest.mark.parametrize("wrong", [1.0, math.nan, math.inf])
def test_a_loss_that_disagrees_rules_bf16_out(chosen: Callable[..., Precision], wrong: float) -> None:
    found = chosen(_Net("fp32", wrong))
    assert found.name == "fp32" and "loss" in found.why


def test_a_gradient_that_disagrees_rules_bf16_out_where_the_loss_does_not(
    chosen: Callable[..., Precision],
) -> None:
    found = chosen(_Net("fp32", tilt=1.5))
    assert found.name == "fp32" and "gradient" in found.why


def test_measuring_leaves_no_trace(chosen: Callable[..., Precision]) -> None:
    net = _Net().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    random = torch.get_rng_state()
    chosen(net)
    assert net.passes == 8 and torch.equal(torch.get_rng_state(), random)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(module.training for module in net.modules())
    assert all(value.grad is None for value in net.parameters())


def test_a_decision_is_remembered_for_the_same_thing_alone(
    chosen: Callable[..., Precision], tmp_path: Path
) -> None:
    first = chosen(_Net("fp32"))
    again = _Net("bf16")
    found = chosen(again)
    assert (found.name, again.passes) == (first.name, 0) and found.ratio == pytest.approx(
        first.ratio, abs=1e-4
    )
    other = _Net("bf16")
    assert chosen(other, "another").name == "fp32" and other.passes
    assert len(json.loads((tmp_path / "precision.json").read_text())) == 2


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"a": 3}', "null", "\x00"])
def test_a_broken_or_foreign_file_is_measured_over(
    chosen: Callable[..., Precision], tmp_path: Path, text: str
) -> None:
    (tmp_path / "precision.json").write_text(text)
    net = _Net()
    chosen(net)
    assert net.passes == 8
    again = _Net()
    chosen(again)
    assert again.passes == 0


def test_a_broken_entry_is_measured_again(chosen: Callable[..., Precision], tmp_path: Path) -> None:
    chosen(_Net())
    path = tmp_path / "precision.json"
    path.write_text(json.dumps({key: {"name": "fp8"} for key in json.loads(path.read_text())}))
    net = _Net()
    chosen(net)
    assert net.passes == 8


def test_hardware_without_bf16_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _: False)
    net = _Net()
    found = choose_precision(net, lambda: net(X), "cpu", architecture="n", shape=(4,), folder=tmp_path)
    assert found.name == "fp32" and math.isnan(found.ratio) and net.passes == 0
    assert not has_bf16("meta")


@pytest.mark.parametrize(
    ("stride", "kernel", "bias"), [(1, 3, True), (2, 3, False), (2, 5, True), (1, 5, False)]
)
def test_depthwise_layers_give_what_autocast_gives_and_gradients_nearer_to_float32(
    stride: int, kernel: int, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6, bias=bias)
    x = torch.randn(3, 6, 12, 12, requires_grad=True)

    def gradients(how: object) -> tuple[Tensor, list[Tensor]]:
        with how:  # type: ignore[attr-defined]
            out = layer(x)
        return out, list(torch.autograd.grad(out.float().square().sum(), [x, *layer.parameters()]))

    exact, wanted = gradients(torch.autocast("cpu", enabled=False))
    plain, rough = gradients(torch.autocast("cpu", torch.bfloat16))
    ours, found = gradients(autocast("bf16", "cpu"))
    assert ours.dtype == torch.bfloat16 and torch.equal(ours, plain)
    assert exact.dtype == torch.float32
    for have, bf16, want in zip(found, rough, wanted, strict=True):
        assert have.dtype == want.dtype and have.shape == want.shape
        scale = want.abs().max()
        assert (have - want).abs().max() <= 0.02 * scale
        assert (have - want).norm() <= (bf16 - want).norm() * 1.2 + 1e-3 * scale


def test_other_convolutions_are_autocasts_own() -> None:
    layer = nn.Conv2d(6, 12, 3, groups=3)
    x = torch.randn(2, 6, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        plain = layer(x)
    with autocast("bf16", "cpu"):
        ours = layer(x)
    with autocast("fp32", "cpu"):
        assert layer(x).dtype == torch.float32
    assert torch.equal(ours, plain) and type(ours.grad_fn) is type(plain.grad_fn)


def test_frozen_depthwise_weights_get_no_gradient() -> None:
    layer = nn.Conv2d(4, 4, 3, 2, groups=4).requires_grad_(False)
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    with autocast("bf16", "cpu"):
        layer(x).float().sum().backward()
    assert x.grad is not None and layer.weight.grad is None
