"""A small network on images whose brightness is their class: what tuners are tried on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from tlcore.protocols import TrainTask, Tuner
from tlcore.training.job import Measured, TrainJob
from tlcore.training.network import Network, make_network
from tlcore.training.plan import Batch, Setup, View
from tlcore.training.predict import predict
from tlcore.training.streams import StreamData
from tlcore.values import Preprocess, Task

PREPROCESS = Preprocess(height=32, width=32, crop_pct=1.0)
CLASSES = ("dark", "middle", "bright")


def bright_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, 32, 32, 3] and their classes int64 [n]."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    level = (60 + 60 * labels)[:, None, None, None]
    return np.clip(level + rng.normal(0, 25, (count, 32, 32, 3)), 0, 255).astype(np.uint8), labels


def labels_of(classes: np.ndarray, kind: Task) -> np.ndarray:
    """The brightness as a number around a thousand, float [n], or as three tags that say at least how bright, [n, 3]."""
    if kind == "regression":
        return 1000.0 + 50 * classes
    return classes if kind == "classification" else (classes[:, None] >= np.arange(3)).astype(np.float64)


def small_network(name: str = "test_resnet", kind: Task = "classification") -> Network:
    torch.manual_seed(0)
    arguments = {"img_size": 32} if "vit" in name else {}
    backbone = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    outputs = 1 if kind == "regression" else len(CLASSES)
    network = make_network(backbone, outputs, preprocess=PREPROCESS, task=kind)
    if kind == "regression":
        network.output_shift.fill_(1050.0)
        network.output_scale.fill_(50 * np.sqrt(2 / 3))
    return network


def job(
    tuner: Tuner, scratch: Path, *, network: Network | None = None, count: int = 24, kind: Task = "classification",
    **parts: Any,
) -> TrainJob:  # fmt: skip
    """A training of `tuner` on `count` images; validation on twelve others, by accuracy or by the correlation of
    answers and labels."""
    torch.set_num_threads(1)
    pixels, classes = bright_images(count, 1)
    held_out, truth = bright_images(12, 2)
    network = network or small_network(kind=kind)

    def measure(seen: Network) -> Measured:
        _, answers = predict(seen, held_out, np.arange(12), PREPROCESS)
        assert np.isfinite(answers).all()
        if kind != "classification":
            value = float(np.corrcoef(answers.ravel(), labels_of(truth, kind).ravel())[0, 1])
            return Measured((value,), {"validation_correlation": value})
        accuracy = float((answers.argmax(1) == truth).mean())
        loss = float(-np.log(answers[np.arange(12), truth] + 1e-12).mean())
        return Measured((accuracy, -loss), {"validation_accuracy": accuracy, "validation_loss": loss})

    labels = labels_of(classes, kind)
    counts = () if kind == "regression" else tuple(np.bincount(classes, minlength=3).tolist())
    if kind == "multi-label":
        counts = tuple(labels.sum(0).astype(int).tolist())
    names = ("brightness",) if kind == "regression" else CLASSES
    task = TrainTask(
        names, network.feature_dim, count, task=kind, counts=counts, target_std=float(labels.std())
    )
    return TrainJob(
        network=network, preprocess=PREPROCESS, task=task, plan=tuner.plan(task), measure=measure, scratch=scratch,
        streams={"source": StreamData(pixels, np.arange(count), labels)}, **{"save_seconds": 1e9, **parts},
    )  # fmt: skip


def setting(
    features: np.ndarray, labels: np.ndarray, *, width: int = 6, classes: int = 3, seed: int = 0, **known: Any
) -> tuple[Network, Setup, Batch]:
    """A network whose backbone is one linear layer, and all images as one batch."""
    torch.manual_seed(seed)
    network = Network(torch.nn.Linear(features.shape[1], width), width, classes)
    inputs = torch.from_numpy(np.asarray(features, np.float32))
    task = TrainTask(tuple(map(str, range(classes))), width, len(features))

    def look(stream: str) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            seen = network.embed(inputs)
            return seen.float().numpy(), network.head(seen).softmax(1).float().numpy()

    view = View(inputs, torch.from_numpy(np.asarray(labels, np.int64)), torch.arange(len(features)))
    return network, Setup(network, task, look, labels=np.asarray(labels), **known), Batch(view, None, 0.0, 0)
