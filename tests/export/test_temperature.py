"""A temperature in the exported file: graph, metadata, gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from scipy.special import softmax
from torch import nn

from tlcore.errors import GateError, UserError
from tlcore.export.gate import check_metadata
from tlcore.export.inference_graph import InferenceGraph
from tlcore.export.metadata import FileMetadata, read_properties, write_properties
from tlcore.export.session import FileSession
from tlcore.protocols import ExportJob
from tlcore.training.network import Network
from tlcore.values import Preprocess
from tlcore_exporters.onnx import Onnx

RULE = Preprocess(height=32, width=32)
CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    made = Network(timm.create_model("test_resnet", num_classes=0), 96, len(CLASSES))
    nn.init.normal_(made.head.weight, std=0.5)
    return made.eval()


def logits(network: Network, pixels: np.ndarray) -> np.ndarray:
    scaled = (pixels / 255.0 - np.array(RULE.mean)) / np.array(RULE.std)
    with torch.inference_mode():
        return network(torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float()).double().numpy()


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_the_file_divides_the_logits_and_says_by_what(
    network: Network, tmp_path: Path, temperature: float
) -> None:
    job = ExportJob(network, RULE, CLASSES, {}, tmp_path, temperature=temperature)
    session = FileSession(tmp_path / Onnx().export(job).path)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    expected = softmax(logits(network, pixels) / temperature, axis=1)
    np.testing.assert_allclose(session.run(pixels), expected, atol=1e-5)
    assert (session.run(pixels).argmax(1) == logits(network, pixels).argmax(1)).all()
    assert session.metadata.temperature == temperature
    check_metadata(session.metadata, RULE, CLASSES, temperature, where="model.onnx")


@pytest.mark.slow
def test_at_temperature_one_nothing_is_divided(network: Network, tmp_path: Path) -> None:
    job = ExportJob(network, RULE, CLASSES, {}, tmp_path)
    assert InferenceGraph(network, RULE).temperature == job.temperature == 1
    kinds = [node.op_type for node in onnx.load(tmp_path / Onnx().export(job).path).graph.node]
    assert kinds[-1] == "Softmax" and kinds[-2] in {"Gemm", "Add"}


def test_a_file_calibrated_otherwise_than_the_model_fails_the_gate() -> None:
    found = FileMetadata(classes=CLASSES, preprocess=RULE, temperature=2.0)
    with pytest.raises(GateError, match="temperature is 1.5 in the model and 2 in the file"):
        check_metadata(found, RULE, CLASSES, 1.5, where="model.onnx")


def test_files_of_earlier_versions_have_temperature_one() -> None:
    properties = write_properties(FileMetadata(classes=CLASSES, preprocess=RULE, temperature=1.25))
    assert read_properties(properties, "model.onnx").temperature == 1.25
    del properties["tlcore.temperature"]
    assert read_properties(properties, "model.onnx").temperature == 1


@pytest.mark.parametrize("said", ["0", "-1", "warm"])
def test_a_temperature_that_is_none_is_refused(said: str) -> None:
    properties = write_properties(FileMetadata(classes=CLASSES, preprocess=RULE)) | {
        "tlcore.temperature": said
    }
    with pytest.raises(UserError, match="cannot be read"):
        read_properties(properties, "model.onnx")
