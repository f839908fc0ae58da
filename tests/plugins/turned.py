"""Two domains whose classes lie on a circle, turned in the target: what adapters are to follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tlcore.protocols import Adapter, TrainTask
from tlcore.training.job import Measured, TrainJob
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.predict import predict_features
from tlcore.training.streams import StreamData
from tlcore.values import Preprocess


def turned_blobs(seed: int, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Three classes on a circle, turned: at 60 degrees each lies between two of the source."""
    rng = np.random.default_rng(seed)
    labels = np.arange(96) % 3
    angle = np.deg2rad(120 * labels + degrees)
    points = rng.normal(0, 0.5, size=(96, 8))
    points[:, :2] += 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points.astype(np.float32), labels


def accuracy_after(adapter: Adapter, scratch: Path) -> float:
    """Target accuracy of a network that the adapter trained on blobs and on the same turned by 45 degrees."""
    (source, labels), (target, truth) = turned_blobs(1, 0), turned_blobs(2, 45)
    unseen, rows = np.zeros((96, 1, 1, 3), np.uint8), np.arange(96)
    task = TrainTask(("a", "b", "c"), 8, 96, 96)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Network(torch.nn.Identity(), 8, 3)
    run_plan(
        TrainJob(
            network=network, preprocess=Preprocess(height=32, width=32, crop_pct=1.0), task=task, plan=adapter.plan(task),
            streams={"source": StreamData(unseen, rows, labels), "target": StreamData(unseen, rows, None)},
            measure=lambda seen: Measured((), {}), scratch=scratch, start_counts=False,
            features={"source": source, "target": target},
        )
    )  # fmt: skip
    return float((predict_features(network, target)[1].argmax(1) == truth).mean())
