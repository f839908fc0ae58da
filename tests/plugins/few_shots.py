"""A small problem with an absent class, and what every head on cached features must make of it."""

from __future__ import annotations

import numpy as np
from torch import from_numpy, nn

from tlcore.protocols import TrainTask, Tuner
from tlcore.training.network import Network
from tlcore.training.plan import HeadFit, HeadProblem, Solved


def fitted(tuner: Tuner, shots: int) -> tuple[Solved, np.ndarray]:
    """The head of a small problem of four classes, the third without images; and the features it was fitted to."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], shots)
    features = (rng.normal(size=(len(labels), 12)) + 6 * rng.normal(size=(4, 12))[labels]).astype(np.float32)
    classes = ("a", "b", "absent", "d")
    plan = tuner.plan(TrainTask(classes, 12, len(labels), counts=(shots, shots, 0, shots)))
    (phase,) = plan.phases
    assert isinstance(phase, HeadFit) and plan.keeps_backbone and plan.bottleneck is None
    solved = phase.fit(HeadProblem(features, labels, classes, 0))
    assert isinstance(solved, Solved)
    return solved, features


def check_few_shots(tuner: Tuner, shots: int) -> None:
    """The head knows its images and never names the absent class."""
    solved, features = fitted(tuner, shots)
    network = Network(nn.Identity(), 12, 4)
    network.set_head(solved, fit=tuner.card.name)
    answers = network(from_numpy(features)).argmax(1).numpy()
    assert (answers == np.repeat([0, 1, 3], shots)).mean() >= 0.8
    far = 1000 * np.random.default_rng(1).normal(size=(100, 12)).astype(np.float32)
    assert 2 not in network(from_numpy(far)).argmax(1).numpy()
