"""Counted work against torch's own counter and by hand, and what the cost model makes of it."""

from __future__ import annotations

import dataclasses
import json

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tlcore.features.engines.choice import ENGINES, lacking, missing, to_try
from tlcore.features.engines.cost import rates_of, seconds
from tlcore.features.engines.hardware import Hardware
from tlcore.features.engines.work import CountWork, Work

PLAIN = Hardware("cpu", "none", onnxruntime=True, compiler=True)
VECTOR = dataclasses.replace(PLAIN, bf16="avx512")
MATRIX = dataclasses.replace(PLAIN, bf16="matrix")
# Counted on mobilenetv2_100 and resnet18 at 224 px.
MOBILE = Work(dense=0.279, depthwise=0.0207, linear=0.0013, norm=0.0067, elementwise=0.0065, operators=204)
RESNET = Work(dense=1.81, norm=0.0025, elementwise=0.0034, operators=89)


def _work(network: nn.Module, images: torch.Tensor) -> Work:
    with torch.no_grad(), CountWork() as counted:
        network.eval()(images)
    return counted.per_image(len(images))


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext", "test_mambaout"]
)
def test_multiply_accumulates_are_half_of_torchs_operations(name: str) -> None:
    arguments = {"img_size": 64} if name == "test_vit" else {}
    network, images = timm.create_model(name, pretrained=False, **arguments).eval(), torch.randn(3, 3, 64, 64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    assert _work(network, images).gmacs == pytest.approx(counter.get_total_flops() / 2 / 3 / 1e9, rel=1e-12)


def test_work_is_told_apart_by_kind() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2, groups=8),
        nn.Flatten(2), nn.Linear(100, 7),
    )  # fmt: skip
    found = _work(network, torch.randn(4, 3, 10, 10))
    assert found.dense == pytest.approx(100 * 8 * 27 / 1e9)
    assert found.depthwise == pytest.approx(100 * 8 * 25 / 1e9)
    assert found.linear == pytest.approx(8 * 100 * 7 / 1e9)
    assert found.norm == pytest.approx(800 / 1e9)
    assert 800 / 1e9 <= found.elementwise < 3000 / 1e9  # the ReLU, and what torch copies on the way
    assert found.attention == 0 and found.attention_matrix == 0


def test_attention_counts_both_products_and_its_matrix() -> None:
    class Attend(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    found = _work(Attend(), torch.randn(2, 3, 20, 16))
    assert found.attention == pytest.approx(2 * 3 * 20 * 20 * 16 / 1e9)
    assert found.attention_matrix == 3 * 20 * 20


def test_estimated_seconds_are_set_up_plus_images_over_threads() -> None:
    rates = rates_of("folded", "none")
    image = rates.dense * 1.81 + rates.elementwise * 0.0034
    wanted = rates.setup + rates.setup_operator * 89 + 1000 * image / 2
    assert seconds("folded", RESNET, 1000, PLAIN) == pytest.approx(wanted)
    assert seconds("eager", RESNET, 1000, PLAIN) > wanted  # batch norms are left


@pytest.mark.parametrize("images", [20, 300, 5000])
def test_bfloat16_is_chosen_where_the_processor_multiplies_it(images: int) -> None:
    for work in (MOBILE, RESNET):
        assert [to_try("auto", work, images, hardware)[0] for hardware in (VECTOR, MATRIX)] == ["bf16"] * 2


def test_exporting_pays_off_only_with_many_images() -> None:
    chosen = [to_try("auto", MOBILE, images, PLAIN)[0] for images in (1, 300, 10**5)]
    assert chosen[1:] == ["folded", "onnxruntime"] and chosen[0] in ("eager", "folded")
    assert to_try("auto", MOBILE, 10**5, dataclasses.replace(PLAIN, onnxruntime=False))[0] == "folded"
    assert to_try("auto", MOBILE, 10**7, VECTOR)[0] == "compiled"


def test_more_threads_make_images_cheaper_and_set_up_not() -> None:
    one, four = (seconds("onnxruntime", MOBILE, 1000, PLAIN, threads=threads) for threads in (1, 4))
    rates = rates_of("onnxruntime", "none")
    setup = rates.setup + rates.setup_operator * MOBILE.operators
    assert one - setup == pytest.approx(4 * (four - setup))


@pytest.mark.parametrize("images", [300, 1500, 2000, 3000, 10_000])
def test_the_choice_does_not_hang_on_the_threads_of_the_process(images: int) -> None:
    """2,000 images of mobilenetv2 lie between what one thread and what four would choose."""
    before, chosen = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            here = Hardware.of("cpu").with_facts({"bf16": "none", "onnxruntime": True, "compiler": True})
            chosen.add(to_try("auto", MOBILE, images, here))
    finally:
        torch.set_num_threads(before)
    assert len(chosen) == 1


@pytest.mark.parametrize(
    ("device", "bf16", "engine"), [("cuda", "matrix", "bf16"), ("mps", "none", "folded")]
)
def test_on_another_device_the_choice_is_bfloat16_or_folded(device: str, bf16: str, engine: str) -> None:
    hardware = Hardware(device, bf16, onnxruntime=True, compiler=True)  # type: ignore[arg-type]
    assert to_try("auto", RESNET, 10**6, hardware)[0] == engine


def test_the_safe_engines_follow_and_none_comes_twice() -> None:
    assert to_try("bf16", RESNET, 1, VECTOR) == ("bf16", "folded", "eager")
    assert to_try("eager", RESNET, 1, VECTOR) == ("eager", "folded")
    assert to_try("folded", RESNET, 1, VECTOR) == ("folded", "eager")


def test_hardware_names_a_reason_for_what_is_missing() -> None:
    here = Hardware.of("cpu")
    assert here.onnxruntime and missing("eager", here) == missing("folded", here) == ""
    assert (missing("bf16", here) == "") == (here.bf16 != "none")
    assert all(isinstance(missing(engine, here), str) for engine in ENGINES)


def test_facts_of_hardware_are_all_that_a_choice_hangs_on() -> None:
    for there in (PLAIN, VECTOR, MATRIX):
        assert PLAIN.with_facts(json.loads(json.dumps(there.facts()))) == there
    assert (
        Hardware("cuda", "none", onnxruntime=False, compiler=False).with_facts(MATRIX.facts()).device
        == "cuda"
    )


def test_what_lacks_bfloat16_lacks_code_compiled_for_it() -> None:
    assert "multiplies no bfloat16" in lacking("compiled", VECTOR, PLAIN)
    assert (
        lacking("compiled", PLAIN, VECTOR)
        == lacking("compiled", PLAIN, PLAIN)
        == lacking("bf16", PLAIN, VECTOR)
        == ""
    )
