from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from tlcore.protocols import TrainTask
from tlcore.training.plan import HeadFit, HeadProblem, Solved
from tlcore_tuners.knn import KNearestNeighbours


def fitted(tuner: KNearestNeighbours, shots: int) -> tuple[Solved, np.ndarray]:
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


@pytest.mark.parametrize("tuner", [KNearestNeighbours(), KNearestNeighbours(neighbours=3)])
@pytest.mark.parametrize("shots", [1, 5])
def test_a_few_images_a_class_make_a_head_that_knows_them_and_names_no_absent_class(
    tuner: KNearestNeighbours, shots: int
) -> None:
    from torch import from_numpy, nn

    from tlcore.training.network import Network

    solved, features = fitted(tuner, shots)
    network = Network(nn.Identity(), 12, 4)
    network.set_head(solved, fit=tuner.card.name)
    answers = network(from_numpy(features)).argmax(1).numpy()
    assert (answers == np.repeat([0, 1, 3], shots)).mean() >= 0.8
    far = 1000 * np.random.default_rng(1).normal(size=(100, 12)).astype(np.float32)
    assert 2 not in network(from_numpy(far)).argmax(1).numpy()


def test_the_card_says_what_it_needs_and_promises() -> None:
    assert KNearestNeighbours.card.name == "knn" and KNearestNeighbours.card.traits == {"target-labels"}


def test_options_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValidationError):
        KNearestNeighbours.model_validate({next(iter(KNearestNeighbours.model_fields)): 0})
