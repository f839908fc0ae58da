from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss

from tlcore.evaluation.top_losses import top_losses

CLASSES = ("a", "b", "c")


def of(p: np.ndarray, y: np.ndarray, limit: int = 12) -> list[tuple[str, float]]:
    names = [f"s{i}" for i in range(len(y))]
    return [
        (t.sample_id, t.loss) for t in top_losses(p, y, CLASSES, sample_ids=names, uris=names, limit=limit)
    ]


def test_the_largest_losses_come_first_and_their_mean_is_scikit_learns_log_loss() -> None:
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(3), size=50), rng.integers(0, 3, 50)
    found = of(p, y, limit=50)
    losses = [loss for _, loss in found]
    assert losses == sorted(losses, reverse=True)
    assert np.mean(losses) == pytest.approx(log_loss(y, p, labels=[0, 1, 2]))
    assert len(of(p, y)) == 12


def test_an_uncertain_right_answer_stands_among_confident_wrong_ones() -> None:
    p = np.array([[0.01, 0.98, 0.01], [0.4, 0.3, 0.3], [0.98, 0.01, 0.01]])
    first, second, third = top_losses(
        p, np.array([0, 0, 0]), CLASSES, sample_ids=["x", "y", "z"], uris=["1", "2", "3"]
    )
    assert (first.sample_id, first.predicted, first.probability, first.label_probability) == (
        "x",
        "b",
        0.98,
        0.01,
    )
    assert (second.sample_id, second.label, second.predicted) == ("y", "a", "a")
    assert third.loss == pytest.approx(-np.log(0.98))


def test_a_probability_of_zero_has_a_finite_loss_and_no_image_has_none() -> None:
    assert of(np.eye(3), np.array([1, 1, 2]))[0][1] == pytest.approx(87.3, abs=0.1)
    assert of(np.zeros((0, 3)), np.zeros(0, int)) == []
