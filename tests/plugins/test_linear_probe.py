from __future__ import annotations

import numpy as np
import pytest

from tlcore.protocols import TrainTask
from tlcore.training.heads import logistic_head
from tlcore.training.plan import HeadFit, HeadProblem, Solved
from tlcore_tuners.linear_probe import LinearProbe


def test_the_plan_is_one_head_fit_without_gradient_steps() -> None:
    (phase,) = LinearProbe().plan(TrainTask(("a", "b"), 8, 40)).phases
    assert isinstance(phase, HeadFit)


@pytest.mark.parametrize("scale", ["common", "each"])
def test_the_options_reach_the_fit(scale: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = (rng.normal(size=(30, 5)) * [1, 5, 0.1, 1, 1] + labels[:, None]).astype(np.float32)
    given = HeadProblem(features, labels, ("a", "b", "c"), 0)
    tuner = LinearProbe.model_validate({"penalties": 3, "folds": 2, "scale": scale})
    (phase,) = tuner.plan(TrainTask(given.classes, 5, 30)).phases
    assert isinstance(phase, HeadFit)
    found = phase.fit(given)
    assert not isinstance(found, Solved)
    expected = logistic_head(given, penalties=3, folds=2, common_scale=scale == "common")
    np.testing.assert_array_equal(found[0], expected[0])
