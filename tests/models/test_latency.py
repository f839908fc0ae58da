from __future__ import annotations

import onnxruntime
import pytest
import torch
from torch import nn

from tlcore.errors import PluginError
from tlcore.models import latency
from tlcore.models.latency import LEAST_RUNS, RUNS, measure_latency, processor
from tlcore.values import Preprocess

SMALL = Preprocess(height=32, width=32)


def test_the_processor_is_named_with_its_cores() -> None:
    assert processor().endswith(" cores") and len(processor()) > len("1 cores")


def convolutions(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()


@pytest.mark.slow
def test_one_image_is_timed_in_the_graph_that_a_file_holds() -> None:
    found = measure_latency(convolutions(8), SMALL, threads=1, where="tiny")
    assert 0 < found.quartiles.low <= found.milliseconds <= found.quartiles.high
    assert LEAST_RUNS <= found.runs <= RUNS and found.threads == 1 and found.processor == processor()
    session = onnxruntime.InferenceSession(latency._exported(convolutions(8), SMALL))
    (port,) = session.get_inputs()
    assert port.type == "tensor(uint8)" and port.shape[1:] == [32, 32, 3]
    assert found.file_bytes > 4 * (8 * 27 + 8)


@pytest.mark.slow
def test_a_network_that_cannot_be_exported_is_named_with_the_reason() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if bool(x.sum() > 0) else x.amax((2, 3))

    with pytest.raises(PluginError, match=r"^tiny: its latency cannot be measured: .+"):
        measure_latency(Branching().eval(), SMALL, where="tiny")
