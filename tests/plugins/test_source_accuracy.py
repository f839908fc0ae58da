from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from tlcore.errors import UserError
from tlcore.protocols import ValidatorOutputs
from tlcore_validators.source_accuracy import SourceAccuracy


def outputs(p: np.ndarray, labels: np.ndarray) -> ValidatorOutputs:
    none = np.zeros((0, 2), np.float32)
    return ValidatorOutputs(p[:0], p, labels, none, none)


def test_the_score_is_scikit_learns_accuracy_on_the_source_alone() -> None:
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(4), size=50), rng.integers(0, 4, 50)
    score = SourceAccuracy().score(outputs(p, labels))
    assert score == pytest.approx(accuracy_score(labels, p.argmax(1)))
    assert SourceAccuracy().bounds(outputs(p, labels)) == (0, 1)


def test_without_source_images_there_is_an_error_that_says_so() -> None:
    with pytest.raises(UserError, match="no labelled source validation image"):
        SourceAccuracy().score(outputs(np.zeros((0, 3)), np.zeros(0, np.int64)))
