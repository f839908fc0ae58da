from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from tlcore.protocols import TrainTask
from tlcore.training.job import Measured, TrainJob
from tlcore.training.network import Network, make_network
from tlcore.training.plan import TrainPlan
from tlcore.training.predict import predict
from tlcore.training.streams import StreamData
from tlcore.values import Preprocess

PREPROCESS = Preprocess(height=32, width=32, crop_pct=1.0)
CLASSES = ("dark", "middle", "bright")


def separable_images(count: int, seed: int, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise images whose mean brightness is the class; `offset` shifts a whole domain."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    level = (60 + 60 * labels + offset)[:, None, None, None]
    pixels = np.clip(level + rng.normal(0, 25, (count, 32, 32, 3)), 0, 255).astype(np.uint8)
    return pixels, labels


def tiny_network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    backbone = timm.create_model("test_resnet", pretrained=False, num_classes=0)
    return make_network(backbone, len(CLASSES), preprocess=PREPROCESS)


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., TrainJob]:
    def make(
        plan: TrainPlan, *, count: int = 24, target: int = 0, scratch: str = "scratch", **parts: Any
    ) -> TrainJob:
        torch.set_num_threads(1)
        pixels, labels = separable_images(count, 1)
        held_out, truth = separable_images(12, 2)
        streams: dict[Any, StreamData] = {"source": StreamData(pixels, np.arange(count), labels)}
        if target:
            moved, _ = separable_images(target, 3, offset=30)
            streams["target"] = StreamData(moved, np.arange(target), None)

        def measure(network: Network) -> Measured:
            _, probabilities = predict(network, held_out, np.arange(12), PREPROCESS)
            accuracy = float((probabilities.argmax(1) == truth).mean())
            nll = float(-np.log(probabilities[np.arange(12), truth] + 1e-12).mean())
            return Measured((accuracy, -nll), {"validation_accuracy": accuracy})

        task = TrainTask(CLASSES, 1, count, target)
        parts = {"network": tiny_network(), "measure": measure, "save_seconds": 0.0, **parts}
        return TrainJob(
            preprocess=PREPROCESS,
            task=task,
            plan=plan,
            streams=streams,
            scratch=tmp_path / scratch,
            **parts,
        )

    return make
