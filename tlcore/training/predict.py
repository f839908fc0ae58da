"""Features and probabilities of a network, without augmentation and without gradients."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tlcore.features.normalisation import normalise
from tlcore.training.network import Network
from tlcore.values import Preprocess

__all__ = ["predict"]


def predict(
    network: Network,
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    preprocess: Preprocess,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features float32 [n, d] and softmax probabilities float32 [n, K] of the given rows, in their order.

    The network is put in eval mode and left as it was.
    """
    was_training = network.training
    network.eval()
    features = np.empty((len(rows), network.feature_dim), np.float32)
    probabilities = np.empty((len(rows), network.head.out_features), np.float32)
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            batch = torch.from_numpy(np.ascontiguousarray(pixels[part])).to(device)
            values = network.features(normalise(batch, preprocess))
            features[start : start + len(part)] = values.float().cpu().numpy()
            probabilities[start : start + len(part)] = (
                torch.softmax(network.head(values).float(), 1).cpu().numpy()
            )
    network.train(was_training)
    return features, probabilities
