from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn import metrics

from tlcore.errors import PluginError
from tlcore.training.measures import headline, measured
from tlcore.training.outputs import outputs


def test_outputs_are_softmax_identity_and_sigmoid() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 3))
    given = torch.from_numpy(logits)
    assert outputs(given, "classification").numpy() == pytest.approx(softmax(logits, axis=1), rel=1e-5)
    assert outputs(given, "regression").numpy() == pytest.approx(logits, rel=1e-6)
    assert outputs(given, "multi-label").numpy() == pytest.approx(expit(logits), rel=1e-5)


def test_classes_are_measured_by_accuracy_and_then_loss() -> None:
    p = np.array([[0.7, 0.3], [0.4, 0.6], [0.8, 0.2]], np.float32)
    found = measured(p, np.array([0, 1, 1]), "classification")
    loss = metrics.log_loss([0, 1, 1], p)
    assert found.shown == {
        "validation_accuracy": pytest.approx(2 / 3),
        "validation_loss": pytest.approx(loss),
    }
    assert found.choice == (found.shown["validation_accuracy"], -found.shown["validation_loss"])
    assert list(found.shown)[0] == headline("classification")


def test_numbers_are_measured_by_r2() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=30)
    answers = (truth + 0.3 * rng.normal(size=30)).astype(np.float32)[:, None]
    found = measured(answers, truth, "regression")
    assert found.choice[0] == pytest.approx(metrics.r2_score(truth, answers[:, 0]))
    assert found.shown["validation_mae"] == pytest.approx(np.abs(answers[:, 0] - truth).mean())
    assert list(found.shown)[0] == headline("regression")


def test_tags_are_measured_by_mean_average_precision() -> None:
    rng = np.random.default_rng(2)
    truth = (rng.random((40, 3)) < 0.4).astype(np.float32)
    p = np.clip(0.3 * truth + 0.6 * rng.random((40, 3)), 0.01, 0.99).astype(np.float32)
    found = measured(p, truth, "multi-label")
    assert found.choice[0] == pytest.approx(metrics.average_precision_score(truth, p))
    expected = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean()
    assert found.shown["validation_loss"] == pytest.approx(expected, rel=1e-5)
    assert list(found.shown)[0] == headline("multi-label")


@pytest.mark.parametrize(("task", "targets"), [("regression", np.ones(2)), ("multi-label", np.ones((2, 1)))])
def test_answers_that_are_not_finite_are_worse_than_any(task: str, targets: np.ndarray) -> None:
    found = measured(np.array([[1.0], [np.nan]]), targets, task)  # type: ignore[arg-type]
    assert found.choice[0] == -math.inf and all(math.isnan(value) for value in found.shown.values())


def test_one_image_a_constant_truth_and_no_tag_have_clear_values() -> None:
    one = measured(np.array([[2.0]]), np.array([1.0]), "regression")
    assert one.choice == (0.0, -1.0)
    assert measured(np.array([[1.0], [1.0]]), np.ones(2), "regression").choice == (1.0, 0.0)
    none = measured(np.full((2, 2), 0.1), np.zeros((2, 2)), "multi-label")
    assert none.choice[0] == 0 and math.isfinite(none.choice[1])
    with pytest.raises(PluginError, match="0 labelled"):
        measured(np.ones((0, 1)), np.ones(0), "regression")
