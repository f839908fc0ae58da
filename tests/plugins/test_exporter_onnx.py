"""The ONNX exporter: real networks, real files, ONNX Runtime against torch."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx as onnx_format
import pytest
import timm
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tlcore.errors import PluginError, UserError
from tlcore.export.gate import TOLERANCE
from tlcore.export.metadata import FileMetadata, write_properties
from tlcore.export.onnx_model import finish
from tlcore.export.session import FileSession
from tlcore.protocols import ExportJob
from tlcore.training.network import Network
from tlcore.values import Exported, Preprocess
from tlcore_exporters import onnx as plugin
from tlcore_exporters.onnx import Onnx

CLASSES = ("ant", "bee & wasp", "Käfer <b>", "ネコ")


def pixels_like(preprocess: Preprocess, count: int, seed: int = 1) -> np.ndarray:
    """Images of soft random gradients: closer to photographs than noise is."""
    draw = np.random.default_rng(seed)
    corners = torch.from_numpy(draw.uniform(0, 255, (count, 3, 3, 3))).float()
    size = (preprocess.height, preprocess.width)
    smooth = nn.functional.interpolate(corners, size=size, mode="bilinear", align_corners=True)
    return smooth.permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


def torch_probabilities(network: nn.Module, pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """The reference, written out: NumPy preprocessing in float64, then the network."""
    scaled = (pixels / 255.0 - np.array(preprocess.mean)) / np.array(preprocess.std)
    dtype = next(network.parameters()).dtype
    batch = torch.from_numpy(scaled.transpose(0, 3, 1, 2)).to(dtype)
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        logits = network(batch).double().numpy()
    network.train(was_training)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def make_job(network: nn.Module, folder: Path, preprocess: Preprocess, **metadata: str) -> ExportJob:
    return ExportJob(
        network=network,  # type: ignore[arg-type]  # the exporter needs no more than a module that gives logits
        preprocess=preprocess,
        classes=CLASSES,
        metadata=metadata,
        folder=folder,
    )


def build(architecture: str, preprocess: Preprocess, **arguments: object) -> nn.Module:
    """A network that tells images apart: random weights, normalisation and logits scaled on images.

    Untouched random networks answer the same for every image or put all probability on one class, and then
    a wrong file would look right. Normalisation keeps most units off their kink at zero: a deep random network
    without that multiplies float32 rounding a hundredfold, by an amount that hangs on the processor.
    """
    torch.manual_seed(0)
    network: Any = timm.create_model(architecture, num_classes=len(CLASSES), **arguments)
    pixels = pixels_like(preprocess, 32, seed=2) / 255.0
    images = torch.from_numpy((pixels - preprocess.mean) / preprocess.std).permute(0, 3, 1, 2).float()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the running statistics become those of the images
            nn.init.ones_(module.bias)
    with torch.no_grad():
        network.train()(images)
        logits = network.eval()(images)
        head = network.get_classifier()
        head.bias.sub_(logits.mean(0))
        head.weight.mul_(2 / logits.std(0).mean())
        head.bias.mul_(2 / logits.std(0).mean())
    return cast(nn.Module, network)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path, Exported, Preprocess]:
    preprocess = Preprocess(height=64, width=48, resize="squash", interpolation="bicubic")
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    network = Network(timm.create_model("test_resnet", num_classes=0), 96, len(CLASSES))
    nn.init.normal_(network.head.weight, std=1.0)
    value = Onnx().export(make_job(network, folder, preprocess, run_id="run-7", strategy="full"))
    return network, folder / value.path, value, preprocess


@pytest.mark.slow
def test_the_file_answers_as_the_network_for_any_batch(
    exported: tuple[nn.Module, Path, Exported, Preprocess],
) -> None:
    network, path, _, preprocess = exported
    pixels = pixels_like(preprocess, 9)
    expected = torch_probabilities(network, pixels, preprocess)
    assert expected.max(axis=1).std() > 1e-3  # the images are told apart
    for count in (0, 1, 2, 7, 9):
        answer = Onnx().predict(path, pixels[:count])
        assert answer.dtype == np.float32
        assert answer.shape == (count, len(CLASSES))
        np.testing.assert_allclose(answer, expected[:count], atol=2e-5)
    np.testing.assert_allclose(Onnx(batch_size=4).predict(path, pixels), expected, atol=2e-5)


@pytest.mark.slow
def test_the_file_says_what_it_is(exported: tuple[nn.Module, Path, Exported, Preprocess]) -> None:
    _, path, value, preprocess = exported
    metadata = FileSession(path).metadata
    assert metadata.classes == CLASSES
    assert metadata.preprocess == preprocess
    assert metadata.run_id == "run-7"
    assert metadata.extra == {"run_id": "run-7", "strategy": "full"}
    properties = {entry.key: entry.value for entry in onnx_format.load(path).metadata_props}
    assert tuple(json.loads(properties["tlcore.classes"])) == CLASSES
    assert properties["tlcore.colour_order"] == "RGB"
    assert properties["strategy"] == "full"
    assert value.path == "model.onnx"
    assert value.bytes == path.stat().st_size
    assert value.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_the_file_is_one_valid_model_of_the_stated_opset(
    exported: tuple[nn.Module, Path, Exported, Preprocess],
) -> None:
    _, path, value, _ = exported
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]
    model = onnx_format.load(path)
    onnx_format.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [value.opset]
    image = model.graph.input[0]
    assert image.type.tensor_type.elem_type == onnx_format.TensorProto.UINT8
    assert [dim.dim_value for dim in image.type.tensor_type.shape.dim] == [0, 64, 48, 3]
    assert not any(entry.external_data for entry in model.graph.initializer)


@pytest.mark.slow
def test_the_file_names_no_path_of_the_machine(
    exported: tuple[nn.Module, Path, Exported, Preprocess],
) -> None:
    _, path, _, _ = exported
    model = onnx_format.load(path)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # random bytes may spell anything
    content = model.SerializeToString()
    places = [Path.cwd(), Path.home(), path.parent, Path(timm.__file__).parent, Path(torch.__file__).parent]
    for place in places:
        assert len(place.parts) == 1 or str(place).encode() not in content
    assert re.search(rb"\.py\b", content) is None
    for part in (*model.graph.node, *model.graph.input, *model.graph.value_info, *model.graph.initializer):
        assert not part.metadata_props
        assert not part.doc_string


@pytest.mark.slow
def test_the_same_network_gives_the_same_bytes_and_is_left_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    preprocess = Preprocess(height=32, width=32)
    network = TinyNetwork().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    one, two = (Onnx().export(make_job(network, tmp_path / name, preprocess)) for name in ("one", "two"))
    assert one == two
    assert (tmp_path / "one" / one.path).read_bytes() == (tmp_path / "two" / two.path).read_bytes()
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr().out == ""  # stdout belongs to the JSON document


class TinyNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.head = nn.Linear(8, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stem(x).relu().mean((2, 3)))
        return logits


class BranchesOnValues(TinyNetwork):
    """A branch that torch.export refuses; the traced side is the one that is always taken."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.mean()) < 1e6 else -x)


class LeavesTorch(TinyNetwork):
    """torch.export cannot follow NumPy, and a tracer takes its result as a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.from_numpy(np.ascontiguousarray(x.detach().numpy()[..., ::-1])))


@pytest.mark.slow
def test_a_network_with_branches_on_values_is_captured_by_tracing_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    preprocess = Preprocess(height=32, width=32)
    network = BranchesOnValues()
    value = Onnx().export(make_job(network, tmp_path, preprocess))
    pixels = pixels_like(preprocess, 5)
    expected = torch_probabilities(network, pixels, preprocess)
    np.testing.assert_allclose(Onnx().predict(tmp_path / value.path, pixels), expected, atol=1e-5)
    assert "capture by torch.export failed" in caplog.text
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_network_that_cannot_be_captured_is_refused_with_both_causes_and_leaves_no_file(
    tmp_path: Path,
) -> None:
    with pytest.raises(PluginError) as caught:
        Onnx().export(make_job(LeavesTorch(), tmp_path, Preprocess(height=32, width=32)))
    assert "torch.export: " in str(caught.value)
    assert "TorchScript: " in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class ThrownOffByRounding(TinyNetwork):
    """Its answers turn with the last bit of the input, so that no comparison means anything."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) * 1e8).sin() * 10


@pytest.mark.slow
def test_a_network_that_rounding_throws_off_is_exported_and_left_to_the_gate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    preprocess = Preprocess(height=32, width=32)
    value = Onnx().export(make_job(ThrownOffByRounding(), tmp_path, preprocess))
    answer = Onnx().predict(tmp_path / value.path, pixels_like(preprocess, 3))
    np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)
    assert "the parity gate decides alone" in caplog.text


@pytest.mark.slow
def test_a_failed_export_keeps_the_file_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"earlier")
    with pytest.raises(PluginError):
        Onnx(opset=23).export(make_job(BranchesOnValues(), tmp_path, Preprocess(height=32, width=32)))
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("model.onnx", b"earlier")]


def test_reserved_metadata_keys_are_the_caller_s_mistake(tmp_path: Path) -> None:
    job = make_job(TinyNetwork(), tmp_path, Preprocess(height=32, width=32), **{"tlcore.classes": "x"})
    with pytest.raises(UserError, match="reserved"):
        Onnx().export(job)


def test_a_network_with_another_number_of_outputs_is_refused(tmp_path: Path) -> None:
    job = make_job(nn.Sequential(TinyNetwork(), nn.Linear(4, 3)), tmp_path, Preprocess(height=32, width=32))
    with pytest.raises(PluginError, match=r"gives \[7, 3\] for 7 images and 4 classes"):
        Onnx().export(job)
    narrow = make_job(
        nn.Sequential(TinyNetwork(), nn.Linear(5, 4)), tmp_path, Preprocess(height=32, width=32)
    )
    with pytest.raises(PluginError, match="fails on images of 32 x 32 pixels"):
        Onnx().export(narrow)


@pytest.mark.slow
def test_pixels_of_another_size_or_type_are_refused(
    exported: tuple[nn.Module, Path, Exported, Preprocess],
) -> None:
    _, path, _, preprocess = exported
    pixels = pixels_like(preprocess, 2)
    wrongs: list[Any] = [pixels[:, :-1], pixels.astype(np.float32), pixels[0]]
    for wrong in wrongs:
        with pytest.raises(UserError, match=r"takes uint8 pixels \[n, 64, 48, 3\]"):
            Onnx().predict(path, wrong)


@pytest.mark.slow
def test_the_opset_is_kept_and_a_half_precision_channels_last_network_is_written_in_float32(
    tmp_path: Path,
) -> None:
    preprocess = Preprocess(height=32, width=32)
    network = TinyNetwork().to(torch.bfloat16).to(memory_format=torch.channels_last)
    value = Onnx(opset=18).export(make_job(network, tmp_path, preprocess))
    pixels = pixels_like(preprocess, 3)
    expected = torch_probabilities(in_float32(network), pixels, preprocess)
    np.testing.assert_allclose(Onnx().predict(tmp_path / value.path, pixels), expected, atol=1e-5)
    assert next(network.parameters()).dtype == torch.bfloat16
    assert value.opset == 18
    assert [entry.version for entry in onnx_format.load(tmp_path / value.path).opset_import] == [18]


@pytest.mark.parametrize("options", [{"opset": 17}, {"opset": 24}, {"batch_size": 0}, {"opsett": 18}])
def test_options_are_bounded_and_unknown_ones_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Onnx(**options)


def in_float32(network: nn.Module) -> nn.Module:
    copy = TinyNetwork()
    copy.load_state_dict({name: tensor.float() for name, tensor in network.state_dict().items()})
    return copy


class PadsAtRunTime(TinyNetwork):
    """TensorFlow SAME padding, computed from the input's size at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = timm.layers.create_conv2d(3, 8, 4, stride=3, padding="same")
        assert isinstance(self.stem, timm.layers.Conv2dSame)


@pytest.mark.slow
def test_same_padding_on_an_uneven_size_is_exported_exactly(tmp_path: Path) -> None:
    check_network(PadsAtRunTime(), tmp_path, Preprocess(height=59, width=74))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "size", "arguments"),
    [
        ("test_resnet", 64, {}),
        ("resnet10t", 64, {}),
        # the depth asks for one block where the family repeats it: an export takes its time per block
        ("mobilenetv2_100", 95, {"pad_type": "same", "depth_multiplier": 0.25}),
        ("mobilenetv3_small_100", 64, {"depth_multiplier": 0.25}),
        ("test_efficientnet", 64, {}),
        ("test_efficientnet", 59, {"pad_type": "same"}),
        ("test_convnext", 64, {}),
        ("test_vit", 160, {}),
    ],
)
def test_every_family_of_networks_is_exported_exactly(
    architecture: str, size: int, arguments: dict[str, object], tmp_path: Path
) -> None:
    preprocess = Preprocess(height=size, width=size)
    check_network(build(architecture, preprocess, **arguments), tmp_path, preprocess)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_vit"])
def test_the_tracer_also_gives_a_dynamic_batch(architecture: str, tmp_path: Path) -> None:
    from tlcore.export.inference_graph import InferenceGraph

    size = 160 if architecture == "test_vit" else 64
    preprocess = Preprocess(height=size, width=size)
    network = build(architecture, preprocess)
    pixels = pixels_like(preprocess, 7)
    model = plugin._by_torchscript(InferenceGraph(network, preprocess), pixels[:2], None)
    metadata = FileMetadata(classes=CLASSES, preprocess=preprocess)
    (tmp_path / "traced.onnx").write_bytes(finish(model, write_properties(metadata)))
    expected = torch_probabilities(network, pixels, preprocess)
    for count in (1, 7):
        answer = FileSession(tmp_path / "traced.onnx").run(pixels[:count])
        np.testing.assert_allclose(answer, expected[:count], atol=1e-4)


def check_network(network: nn.Module, folder: Path, preprocess: Preprocess) -> None:
    value = Onnx().export(make_job(network, folder, preprocess))
    pixels = pixels_like(preprocess, 7)
    expected = torch_probabilities(network, pixels, preprocess)
    exact = torch_probabilities(copy.deepcopy(network).double(), pixels, preprocess)
    assert np.abs(expected - exact).max() < TOLERANCE / 30, "the network itself must not amplify rounding"
    assert expected.std(axis=0).max() > 1e-3, "the images must be told apart"
    assert 0.25 < expected.max(axis=1).mean() < 0.99, "the answers must be neither equal nor saturated"
    for count in (1, 7):
        answer = Onnx().predict(folder / value.path, pixels[:count])
        assert np.abs(answer - expected[:count]).max() <= TOLERANCE / 10


@pytest.mark.shared
@pytest.mark.slow
def test_the_shared_mobilenet_with_same_padding_keeps_its_answers(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shared = Path(os.environ.get("TLCORE_SHARED", Path(__file__).parents[3] / "shared"))
    weights = shared / "data" / "weights" / "mobilenetv2_100.safetensors"
    if not weights.is_file():
        pytest.skip(f"no pretrained weights at TLCORE_SHARED: {weights}")
    network = timm.create_model("mobilenetv2_100", pad_type="same")
    network.load_state_dict(load_file(weights))
    classes = tuple(f"class {index}" for index in range(1000))
    preprocess = Preprocess(height=224, width=224)
    job = ExportJob(
        network=network,
        preprocess=preprocess,
        classes=classes,
        metadata={},
        folder=tmp_path,
    )
    value = Onnx().export(job)
    pixels = pixels_like(preprocess, 7)
    expected = torch_probabilities(network, pixels, preprocess)
    assert np.abs(Onnx().predict(tmp_path / value.path, pixels) - expected).max() <= TOLERANCE / 10
