"""Heads on cached features of a few images: which images, and a tuner's fit without the stages around it."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tuning_rows import ALL

__all__ = ["draw", "fit_head"]

FOLDS = 5


def draw(labels: NDArray[np.int64], shots: str, seed: int) -> NDArray[np.int64]:
    """Positions, ascending, of so many images of each class; those of fewer shots are among those of more."""
    if shots == ALL:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    found = [rng.permutation(np.flatnonzero(labels == k))[: int(shots)] for k in range(int(labels.max()) + 1)]
    return np.sort(np.concatenate(found))


def fit_head(
    tuner: Any, features: NDArray[np.float32], labels: NDArray[np.int64], classes: tuple[str, ...], seed: int
) -> tuple[Any, str]:
    """A network without backbone whose head the tuner made, and how its epoch was chosen where it has any.

    Heads in closed form have all images. One that takes gradient steps is stopped as the main job would stop it, and then
    trained on all images: where all parts of a cross-validation together like it best; of more than 150 images, where
    one part in five does; with one image a class, where the training images themselves do.
    """
    from tlcore.protocols import TrainTask
    from tlcore.training.folds import FEW, can_part, fold_numbers, pool
    from tlcore.training.plan import HeadFit

    counts = tuple(np.bincount(labels, minlength=len(classes)).tolist())
    task = TrainTask(classes, features.shape[1], len(labels), 0, seed, counts=counts)
    plan = tuner.plan(task)
    fit = functools.partial(_fit, plan, task, features, labels)
    everything, names = np.arange(len(labels)), [str(i) for i in range(len(labels))]
    if all(isinstance(phase, HeadFit) for phase in plan.phases):
        return fit(everything, everything[:0])[0], ""
    if not can_part(labels, names):
        return fit(everything, everything)[0], "stopped by the training images"
    parts = fold_numbers(labels, names, FOLDS, seed)
    if len(labels) > FEW:
        (held_out,) = np.nonzero(parts == 0)
        picked = fit(np.flatnonzero(parts != 0), held_out)[1].picked
        return fit(everything, everything[:0], picked)[0], f"stopped by {len(held_out)} images"
    runs = [
        fit(np.flatnonzero(parts != n), np.flatnonzero(parts == n))[1] for n in range(int(parts.max()) + 1)
    ]
    picked = pool(plan, runs, parts, labels, "classification").picked
    return fit(everything, everything[:0], picked)[0], f"stopped by {len(runs)}-fold cross-validation"


def _fit(
    plan: Any, task: Any, features: NDArray[np.float32], labels: NDArray[np.int64], rows: NDArray[np.int64],
    held_out: NDArray[np.int64], fixed: Any = None,
) -> tuple[Any, Any]:  # fmt: skip
    """The network trained on `rows`, and its looks at the images held out (`FoldRun`)."""
    from dataclasses import replace

    from torch import nn

    from tlcore.training.folds import FoldRun
    from tlcore.training.job import Measured, TrainJob
    from tlcore.training.loop import run_plan
    from tlcore.training.measures import measured
    from tlcore.training.network import Network
    from tlcore.training.predict import predict_features
    from tlcore.training.streams import StreamData
    from tlcore.values import Preprocess

    network = Network(nn.Identity(), features.shape[1], len(task.classes))
    looks: dict[tuple[str, int], NDArray[np.float32]] = {}
    last: list[NDArray[np.float32]] = [np.zeros((0, len(task.classes)), np.float32)]

    def measure(trained: Network) -> Measured:
        if not len(held_out):
            return Measured((0.0,), {})
        last[0] = predict_features(trained, features[held_out])[1]
        return measured(last[0], labels[held_out], "classification")

    counts = tuple(np.bincount(labels[rows], minlength=len(task.classes)).tolist())
    with tempfile.TemporaryDirectory() as scratch:
        result = run_plan(
            TrainJob(
                network=network, preprocess=Preprocess(height=8, width=8), plan=plan,
                task=replace(task, source_train=len(rows), counts=counts),
                streams={"source": StreamData(np.zeros((1, 1, 1, 3), np.uint8), np.arange(len(rows)), labels[rows])},
                measure=measure, scratch=Path(scratch), seed=task.seed, features={"source": features[rows]}, fixed=fixed,
                after_epoch=lambda line: looks.update({(line.phase, line.epoch): last[0]}),
            )
        )  # fmt: skip
    measure(network)
    return network, FoldRun(looks, result.picked, last[0])
