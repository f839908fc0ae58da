"""Features and answers of a network, without augmentation and without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from tlcore.features.normalisation import normalise
from tlcore.training.network import Network
from tlcore.training.outputs import outputs
from tlcore.values import Preprocess

__all__ = ["embed", "predict", "predict_features"]


def embed(
    network: Network,
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    preprocess: Preprocess,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    out: NDArray[np.float32] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """The backbone's pooled features float32 [n, backbone_dim] of the given rows, in their order, into `out`.

    The network is put in eval mode and left as it was.
    """
    features = np.empty((len(rows), network.backbone_dim), np.float32) if out is None else out
    with _looking(network):
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            batch = torch.from_numpy(np.ascontiguousarray(pixels[part])).to(device)
            values = network.embed(normalise(batch, preprocess))
            features[start : start + len(part)] = values.float().cpu().numpy()
            on_progress(start + len(part), len(rows))
    return features


def predict_features(
    network: Network, embedded: NDArray[np.float32], *, device: torch.device | str = "cpu"
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The head's inputs float32 [n, d] and the network's answers float32 [n, K] from the backbone's features."""
    features = np.empty((len(embedded), network.feature_dim), np.float32)
    answers = np.empty((len(embedded), network.head.out_features), np.float32)
    with _looking(network):
        for start in range(0, len(embedded), 4096):
            part = np.ascontiguousarray(embedded[start : start + 4096], dtype=np.float32)
            values = network.bottleneck(torch.from_numpy(part).to(device))
            features[start : start + len(part)] = values.float().cpu().numpy()
            answers[start : start + len(part)] = outputs(network.logits(values), network.task).cpu().numpy()
    return features, answers


@contextmanager
def _looking(network: Network) -> Iterator[None]:
    was_training = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in was_training:
            module.training = training


def predict(
    network: Network,
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    preprocess: Preprocess,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The head's inputs float32 [n, d] and the network's answers float32 [n, K] of the given rows, in their order.

    Answers are probabilities of classes or tags, or numbers in the unit of the labels (`tlcore.training.outputs`). The
    network is put in eval mode and left as it was.
    """
    features = np.empty((len(rows), network.feature_dim), np.float32)
    answers = np.empty((len(rows), network.head.out_features), np.float32)
    with _looking(network):
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            batch = torch.from_numpy(np.ascontiguousarray(pixels[part])).to(device)
            values = network.features(normalise(batch, preprocess))
            features[start : start + len(part)] = values.float().cpu().numpy()
            answers[start : start + len(part)] = outputs(network.logits(values), network.task).cpu().numpy()
    return features, answers
