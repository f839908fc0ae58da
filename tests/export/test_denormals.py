from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from tlcore.features.extract import extract
from tlcore.values import Preprocess


@pytest.mark.slow
def test_the_smallest_numbers_are_numbers_after_onnx_runtime_has_run() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with one thread the caller's own computes
    try:
        network = timm.create_model("test_resnet", pretrained=False, num_classes=0).eval()
        pixels = np.zeros((4, 32, 32, 3), np.uint8)
        found = extract(network, pixels, Preprocess(height=32, width=32), head=False, engine="onnxruntime")
    finally:
        torch.set_num_threads(threads)
    assert found.engine == "onnxruntime"
    assert np.float64(2.0**-1073) * 0.5 == 2.0**-1074 > 0
