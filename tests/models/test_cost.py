from __future__ import annotations

import contextlib
import io
import logging
import warnings

import pytest
import timm
import torch
from torch import nn

from tlcore.errors import UserError
from tlcore.export.inference_graph import InferenceGraph
from tlcore.export.onnx_model import finish
from tlcore.models.cost import measure_size, measured_size, size_of, with_size
from tlcore.models.sizes import size_in_table
from tlcore.values import Candidate, Preprocess


def candidate(architecture: str, side: int = 224, **fields: object) -> Candidate:
    how = {"height": side, "width": side}
    return Candidate.model_validate(
        {"name": "n", "source": {}, "architecture": architecture, "preprocess": how} | fields
    )


class Attention(nn.Module):
    """One head of attention over the pixels, with a parameter that is an input of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 6))
        self.project = nn.Linear(6, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = torch.cat([self.project(self.token), x.flatten(2).mT], 1)
        return nn.functional.scaled_dot_product_attention(pixels, pixels, pixels).mean(1)


def test_multiply_accumulates_equal_a_count_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),  # 16x16 x 8 outputs, 3*3*3 each
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, padding=2, groups=8),  # 16x16 x 8 outputs, 5*5 each
        nn.Conv2d(8, 6, 1),  # 16x16 x 6 outputs, 8 each
        Attention(),  # one product of 1x6 with 6x6; 257 tokens: two products of 257 x 257 x 6
    ).to("meta")
    by_hand = 256 * 8 * 27 + 256 * 8 * 25 + 256 * 6 * 8 + 36 + 2 * 257 * 257 * 6
    size = measure_size(network.eval(), 32, 32)
    assert size.gmacs == pytest.approx(by_hand / 1e9, rel=1e-12)
    assert size.params == 8 * 27 + 16 + (8 * 25 + 8) + (6 * 8 + 6) + 6 + 36


@pytest.mark.parametrize(
    ("architecture", "published"),
    # timm's benchmark tables; they count some normalisation and activations too, and the head
    [
        ("resnet18", 1.82),
        ("mobilenetv2_100", 0.31),
        ("vit_tiny_patch16_224", 1.26),
        ("efficientnet_b0", 0.40),
    ],
)
def test_multiply_accumulates_are_those_that_timm_publishes(architecture: str, published: float) -> None:
    gmacs = measured_size(architecture, 224, 224).gmacs
    assert gmacs is not None and 0.95 * published < gmacs <= published


@pytest.mark.parametrize(
    "architecture", ["test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_050"]
)
def test_parameters_are_counted_without_the_head(architecture: str) -> None:
    arguments = {"img_size": 32} if architecture == "test_vit" else {}
    expected = timm.create_model(architecture, num_classes=0, **arguments)
    assert size_of(candidate(architecture, 32)).params == sum(p.numel() for p in expected.parameters())


def test_work_grows_with_the_image_and_parameters_do_not() -> None:
    small, large = measured_size("resnet18", 128, 128), measured_size("resnet18", 256, 256)
    assert small.gmacs is not None and large.gmacs == pytest.approx(4 * small.gmacs, rel=1e-9)
    assert small.params == large.params == size_of(candidate("resnet18")).params


def test_a_network_that_needs_values_is_counted_as_far_as_it_can_be() -> None:
    class Branching(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if bool(x.sum() > 0) else x

    assert measure_size(Branching(8, 8).to("meta"), 8, 8) == (72, None, None)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "side"), [("mobilenetv2_100", 97), ("mobilenetv3_small_050", 224)])
def test_padding_changes_no_size_so_that_the_table_serves_both(architecture: str, side: int) -> None:
    same = measured_size(architecture, side, side, arguments='{"pad_type": "same"}')
    plain = measured_size(architecture, side, side)
    assert same[:2] == plain[:2]


def test_arguments_that_change_the_network_are_measured() -> None:
    plain = size_of(candidate("resnet18"))
    other = size_of(candidate("resnet18", arguments={"stem_type": "deep", "stem_width": 32}))
    assert plain.params == 11_176_512 and other.params > plain.params


def test_a_size_that_the_table_lacks_is_measured() -> None:
    assert size_in_table("resnet18", 96, 160) is None
    oblong = candidate("resnet18", preprocess=Preprocess(height=96, width=160))
    assert size_of(oblong) == measured_size("resnet18", 96, 160)


def test_cost_is_filled_in_and_what_cannot_be_built_is_named() -> None:
    one = with_size(candidate("mobilenetv2_100"))
    assert one.params == 2_223_872 and one.gmacs == pytest.approx(0.2995, abs=1e-4)
    with pytest.raises(UserError, match=r"^n: .*colour"):
        size_of(candidate("resnet18", arguments={"colour": "red"}))
    with pytest.raises(UserError, match="nobody registered"):
        size_of(candidate("mobilenetv1_999"))
    with pytest.raises(UserError, match="no input size"):
        size_of(candidate("resnet18").model_copy(update={"preprocess": None}))


def exported_bytes(architecture: str) -> int:
    """The size of the file as torch writes it, for weights that differ from each other as trained ones do."""
    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=0).eval()
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    _, height, width = network.pretrained_cfg["input_size"]
    graph = InferenceGraph(network, Preprocess(height=height, width=width))
    images = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    batch = ({0: torch.export.Dim("batch")},)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph, (images,), dynamo=True, verbose=False, dynamic_shapes=batch, external_data=False
        )
    assert program is not None
    return len(finish(program.model_proto, {}))


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224", "test_convnext"]
)
def test_the_estimated_file_size_is_that_of_an_export_within_two_percent(architecture: str) -> None:
    side = timm.get_pretrained_cfg(architecture).input_size[1]
    assert size_of(candidate(architecture, side)).onnx_bytes == pytest.approx(
        exported_bytes(architecture), rel=0.02
    )
