"""LEEP against loops over images and source classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tlcore.errors import UserError
from tlcore.features.moments import Moments
from tlcore.testing import tiny_evidence
from tlcore_scorers.leep import LEEP, log_expected_prediction


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_definition_says_image_by_image(seed: int) -> None:
    evidence = tiny_evidence(50, 3, seed=seed, skill=0.8)
    theta = np.asarray(evidence.source_probabilities(), dtype=np.float64)
    n, sources = theta.shape
    joint = np.zeros((3, sources))
    for i in range(n):
        joint[evidence.labels[i]] += theta[i] / n
    total = 0.0
    for i in range(n):
        total += np.log(
            sum(joint[evidence.labels[i], z] / joint[:, z].sum() * theta[i, z] for z in range(sources))
        )
    assert LEEP().score(evidence) == pytest.approx(total / n, rel=1e-9)


def test_the_log_is_outside_the_sum() -> None:
    """Two public implementations take no log, or sum logs: by hand, one class is foretold with 3/4 or 1/4."""
    theta = np.array([[0.75, 0.25], [0.25, 0.75]])
    joint = np.array([[0.75, 0.25], [0.25, 0.75]])
    assert log_expected_prediction(theta, np.array([0, 1]), joint) == pytest.approx(np.log(0.625))


def test_source_classes_that_never_occur_change_nothing_and_batches_add_up() -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(9000) % 3
    theta = draw.dirichlet(np.ones(4), size=9000)
    wide = np.column_stack([theta, np.zeros((9000, 2))])
    scores = []
    for mass in (theta, wide):
        moments = Moments.of(np.ones((9000, 1)), labels, 3, mass)
        evidence = replace(tiny_evidence(), moments=moments, labels=labels)
        scores.append(LEEP().score(replace(evidence, source_probabilities=lambda mass=mass: mass)))
    assert scores[0] == pytest.approx(scores[1], rel=1e-12)
    assert scores[0] == pytest.approx(-np.log(3), abs=1e-3)


def test_a_source_that_knows_the_classes_scores_more_up_to_nought() -> None:
    scores = [LEEP().score(tiny_evidence(skill=skill)) for skill in (0.0, 1.0, 3.0, 20.0)]
    assert scores == sorted(scores) and scores[-1] <= 0


def test_a_network_without_a_source_head_is_a_clear_error() -> None:
    evidence = tiny_evidence()
    bare = replace(evidence, moments=Moments.of(evidence.features(), evidence.labels, 3))
    with pytest.raises(UserError, match="source head"):
        LEEP().score(bare)
    with pytest.raises(UserError, match="of every image"):
        LEEP().score(replace(evidence, source_probabilities=lambda: None))
