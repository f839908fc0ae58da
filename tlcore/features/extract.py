"""Features, and the source head's probabilities, of decoded images: one pass of one network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcore.errors import PluginError, UserError
from tlcore.features.folding import folded
from tlcore.features.normalisation import normalise
from tlcore.values import Preprocess

__all__ = ["ExtractedFeatures", "extract"]

FOLD_TOLERANCE = 1e-2
"""|folded - plain| / |plain| per image, at most: a cosine of at least 0.99995, and the same length."""
PROBE = 16
"""Images that go through both networks: enough to see a wrong fold, too few to cost much."""


@dataclass(frozen=True)
class ExtractedFeatures:
    """What one network says of n images.

    Attributes:
        features: float32 [n, D], the input of the classifier layer.
        probabilities: float32 [n, Z], softmax of the source head; None without one.
        folded: batch norms that were folded into convolutions; 0 when the network ran as it is.
    """

    features: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None
    folded: int


def extract(
    network: nn.Module,
    pixels: NDArray[np.uint8],
    preprocess: Preprocess,
    *,
    head: bool,
    rows: NDArray[np.int64] | None = None,
    name: str = "",
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> ExtractedFeatures:
    """Features of `pixels` by a timm network, as it would give them in eval mode.

    Runs a copy (the caller's network is left as it is, its device and mode included) in channels_last with
    batch norms folded. The first images go through both, and where the features of any differ by more than
    `FOLD_TOLERANCE` the network runs unfolded. Features that are no vector (a network without pooling) are
    averaged over their positions.

    Args:
        network: timm network: `forward_features`, `forward_head(maps, pre_logits=True)`, `get_classifier`.
        pixels: uint8 RGB [n, height, width, 3], as `preprocess` sizes them; a memory map is read by batches.
        preprocess: gives the normalisation (x / 255 - mean) / std.
        rows: positions in `pixels` to look at, in this order; None: all.
        head: also compute the source head's probabilities, where the network has a head.
        name: of the candidate, for errors.
        on_progress: called after each batch with images done and images in all.

    Raises:
        UserError: no images, pixels of another shape or type than `preprocess` says, or weights that give
            NaN or infinite features.
        PluginError: the network is no timm network.
    """
    name = name or type(network).__name__
    _check_pixels(pixels, preprocess, name)
    for method in ("forward_features", "forward_head", "get_classifier"):
        if not callable(getattr(network, method, None)):
            raise PluginError(f"the network has no {method}(): it is no timm network", where=name)
    index = np.arange(len(pixels)) if rows is None else rows
    n = len(index)
    if n == 0:
        raise UserError("there are no images to extract features from", where=name)
    features: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    with torch.inference_mode():
        forward, count = _prepared(network, _normalised(pixels[index[:PROBE]], preprocess, device), head)
        for start in range(0, n, batch_size):
            found, likely = forward(
                _normalised(pixels[index[start : start + batch_size]], preprocess, device)
            )
            stop = min(start + batch_size, n)
            if features is None:
                features = np.empty((n, found.shape[1]), dtype=np.float32)
            features[start:stop] = found.float().cpu().numpy()
            wrong = np.flatnonzero(~np.isfinite(features[start:stop]).all(axis=1))
            if wrong.size:
                raise UserError(
                    f"the features are NaN or infinite, first for image {start + int(wrong[0])}",
                    where=name,
                    hint="its weights are damaged or do not fit: load them anew, or leave this model out",
                )
            if likely is not None:
                if probabilities is None:
                    probabilities = np.empty((n, likely.shape[1]), dtype=np.float32)
                probabilities[start:stop] = likely.cpu().numpy()
            if on_progress is not None:
                on_progress(stop, n)
    assert features is not None  # n > 0 was checked
    return ExtractedFeatures(features, probabilities, count)


def _normalised(pixels: NDArray[np.uint8], preprocess: Preprocess, device: str | torch.device) -> Tensor:
    # A copy, since a memory map is read-only and torch cannot say so of a tensor.
    return normalise(torch.from_numpy(np.array(pixels)).to(device), preprocess)


Forward = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def _prepared(network: nn.Module, probe: Tensor, head: bool) -> tuple[Forward, int]:
    """A function from a batch to features and probabilities, and the number of folded batch norms."""
    plain: Any = copy.deepcopy(network).to(probe.device).eval()
    expected = _vectors(plain.forward_head(plain.forward_features(probe), pre_logits=True), plain)
    chosen: Any = plain
    twin: Any
    twin, count = folded(plain, probe[:1])
    if count:
        try:
            found = _vectors(twin.forward_head(twin.forward_features(probe), pre_logits=True), twin)
            apart = torch.linalg.vector_norm(found - expected, dim=1)
            if bool((apart <= FOLD_TOLERANCE * torch.linalg.vector_norm(expected, dim=1)).all()):
                chosen = twin
        except (AttributeError, RuntimeError, TypeError):
            pass  # a network that reaches into its norms by name cannot run without them
    chosen = chosen.to(memory_format=torch.channels_last)
    return _forward(chosen, probe, head), count if chosen is twin else 0


def _forward(network: Any, probe: Tensor, head: bool) -> Forward:
    classifier = network.get_classifier() if head and getattr(network, "num_classes", 0) > 0 else None
    # Most heads end in one linear layer on the features; the others (two heads, a convolution) run whole.
    maps = network.forward_features(probe)
    features = network.forward_head(maps, pre_logits=True)
    linear = isinstance(classifier, nn.Linear) and features.ndim == 2
    if linear:
        linear = torch.allclose(network.get_classifier()(features), network.forward_head(maps), atol=1e-4)

    def forward(batch: Tensor) -> tuple[Tensor, Tensor | None]:
        maps = network.forward_features(batch)
        features = network.forward_head(maps, pre_logits=True)
        if classifier is None:
            return _vectors(features, network), None
        logits = classifier(features) if linear else network.forward_head(maps)
        if logits.ndim != 2:  # without pooling the head answers at every position
            return _vectors(features, network), None
        return _vectors(features, network), torch.softmax(logits.float(), dim=1)

    return forward


def _vectors(features: Tensor, network: Any) -> Tensor:
    """[n, D]: feature maps [n, D, h, w] or [n, h, w, D] and tokens [n, T, D] are averaged over positions."""
    if features.ndim == 2:
        return features
    width = getattr(network, "num_features", None)
    channel = 1 if features.ndim == 4 and features.shape[-1] != width else features.ndim - 1
    return features.mean(dim=[axis for axis in range(1, features.ndim) if axis != channel])


def _check_pixels(pixels: NDArray[np.uint8], preprocess: Preprocess, name: str) -> None:
    size = (preprocess.height, preprocess.width, 3)
    if pixels.ndim != 4 or pixels.shape[1:] != size or pixels.dtype != np.uint8:
        raise UserError(
            f"pixels must be uint8 of shape [n, {size[0]}, {size[1]}, 3], not {pixels.dtype} of {pixels.shape}",
            where=name,
        )
