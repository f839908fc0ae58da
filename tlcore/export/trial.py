"""A first trial of a captured file, before the parity gate judges it on real images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tlcore.errors import PluginError
from tlcore.export.gate import TOLERANCE
from tlcore.export.inference_graph import InferenceGraph
from tlcore.export.output_parity import unit_of
from tlcore.export.session import FileSession
from tlcore.values import Preprocess

__all__ = ["Trial", "make_trial", "prove"]

_BATCHES = (1, 7)
_NUDGE = 1e-6
"""Relative change of the input, about the size of float32 rounding in a few layers."""


class Trial(NamedTuple):
    """What a captured file has to answer before it counts.

    images: uint8 [7, height, width, 3]; expected: the network's answers [7, K]; steady: bool [7], images on
    which the network itself is not thrown off by rounding, so that a comparison means something; unit: what
    differences are counted in.
    """

    images: NDArray[np.uint8]
    expected: NDArray[np.float32]
    steady: NDArray[np.bool_]
    unit: float = 1.0


def make_trial(graph: InferenceGraph, rule: Preprocess, classes: int, unit: float = 1.0) -> Trial:
    """Smooth random images and the network's answers: noise drives networks far from what they were made for.

    unit: what a difference of 1 is: 1 for probabilities, the deviation of the labels for numbers.
    """
    corners = np.random.default_rng(0).integers(0, 256, (max(_BATCHES), 4, 4, 3), dtype=np.uint8)
    size = (rule.width, rule.height)
    images = np.stack(
        [np.array(Image.fromarray(corner).resize(size, Image.Resampling.BILINEAR)) for corner in corners]
    )
    try:
        with torch.inference_mode():
            inputs = graph.normalised(torch.from_numpy(images))
            expected: NDArray[np.float32] = graph.answers(inputs).numpy()
            nudged: NDArray[np.float32] = graph.answers(inputs * (1 + _NUDGE)).numpy()
    except Exception as error:  # a network may raise anything on a size that it was not made for
        raise PluginError(
            f"the network fails on images of {rule.height} x {rule.width} pixels: {error}", where="export"
        ) from error
    if expected.shape != (len(images), classes):
        raise PluginError(
            f"the network gives {list(expected.shape)} for {len(images)} images and {classes} classes",
            where="export",
        )
    if graph.task == "regression":
        unit = max(unit, unit_of(expected))
    steady = np.abs(expected - nudged).max(axis=1) <= unit * TOLERANCE / 10
    return Trial(images, expected, steady, unit)


def prove(draft: Path, trial: Trial) -> None:
    """The file must answer a batch of 1 and of 7 as the network does: a batch size or a branch may be baked in."""
    session = FileSession(draft)
    for count in _BATCHES:
        answer = session.run(trial.images[:count], batch_size=count)
        gap = np.abs(answer - trial.expected[:count])[trial.steady[:count]] / trial.unit
        if gap.size and not gap.max() <= TOLERANCE:  # not a number is a failure, too
            raise PluginError(f"differs from the network by {gap.max():.3g} on {count} synthetic images")
