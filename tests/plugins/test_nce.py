"""Negative conditional entropy against scikit-learn's mutual information and a case by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from tlcore.errors import UserError
from tlcore.features.moments import Moments
from tlcore.testing import tiny_evidence
from tlcore_scorers.nce import NCE, negative_conditional_entropy


@pytest.mark.parametrize("seed", range(4))
def test_it_is_mutual_information_less_the_entropy_of_the_classes(seed: int) -> None:
    evidence = tiny_evidence(80, 4, seed=seed, skill=0.7)
    probabilities = evidence.source_probabilities()
    assert probabilities is not None
    wanted = mutual_info_score(evidence.labels, probabilities.argmax(1)) - entropy(
        np.bincount(evidence.labels)
    )
    assert NCE().score(evidence) == pytest.approx(wanted, rel=1e-10)


def test_a_table_by_hand() -> None:
    joint = np.array([[3.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    by_hand = (3 * np.log(3 / 4) + np.log(1 / 4) + np.log(1 / 2) + np.log(1 / 2)) / 6
    assert negative_conditional_entropy(joint) == pytest.approx(by_hand, rel=1e-12)


def test_a_source_that_tells_the_classes_apart_scores_nought_and_a_blind_one_the_entropy() -> None:
    labels = np.arange(30) % 3
    for mass, wanted in ((np.eye(3)[labels], 0.0), (np.eye(3)[np.zeros(30, dtype=int)], -np.log(3))):
        moments = Moments.of(np.ones((30, 1)), labels, 3, mass)
        evidence = replace(tiny_evidence(30), moments=moments, labels=labels)
        assert NCE().score(evidence) == pytest.approx(wanted, abs=1e-12)


def test_a_network_without_a_source_head_is_a_clear_error() -> None:
    evidence = tiny_evidence()
    with pytest.raises(UserError, match="source head"):
        NCE().score(replace(evidence, moments=Moments.of(evidence.features(), evidence.labels, 3)))
