from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln

from tlcore.errors import UserError
from tlcore.evaluation.label_free import cluster_agreement
from tlcore.protocols import ValidatorOutputs
from tlcore_validators.class_ami import ClassAmi


def outputs(p: np.ndarray, features: np.ndarray) -> ValidatorOutputs:
    none = np.zeros((0, features.shape[1]), np.float32)
    return ValidatorOutputs(p, p[:0], np.zeros(0, np.int64), features.astype(np.float32), none)


def blobs(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters so far apart that k-means must find them."""
    group = np.arange(n) % k
    return 100 * np.eye(k)[group] + np.random.default_rng(seed).normal(size=(n, k)), group


def adjusted(a: np.ndarray, b: np.ndarray) -> float:
    """AMI by the definition: the expected mutual information is a sum over hypergeometric tables."""
    n, table = len(a), np.histogram2d(a, b, bins=(np.arange(a.max() + 2), np.arange(b.max() + 2)))[0]
    rows, columns = table.sum(1), table.sum(0)

    def entropy(counts: np.ndarray) -> float:
        share = counts[counts > 0] / n
        return float(-(share * np.log(share)).sum())

    mutual = entropy(rows) + entropy(columns) - entropy(table.ravel())
    expected = 0.0
    for r in rows.astype(int):
        for c in columns.astype(int):
            for both in range(max(1, r + c - n), min(r, c) + 1):
                log_p = (
                    gammaln(r + 1) + gammaln(c + 1) + gammaln(n - r + 1) + gammaln(n - c + 1) - gammaln(n + 1)
                    - gammaln(both + 1) - gammaln(r - both + 1) - gammaln(c - both + 1) - gammaln(n - r - c + both + 1)
                )  # fmt: skip
                expected += both / n * np.log(n * both / (r * c)) * np.exp(log_p)
    return (mutual - expected) / ((entropy(rows) + entropy(columns)) / 2 - expected)


@settings(max_examples=15, deadline=None)
@given(st.integers(12, 40), st.integers(2, 4), st.integers(0, 999))
def test_the_score_is_the_adjusted_mutual_information_by_its_definition(n: int, k: int, seed: int) -> None:
    features, group = blobs(n, k, seed)
    rng = np.random.default_rng(seed)
    predicted = np.where(rng.random(n) < 0.6, group, rng.integers(0, k, n))
    predicted[:k] = np.arange(k)
    p = np.eye(k)[predicted]
    score = ClassAmi().score(outputs(p, features))
    assert score == pytest.approx(max(0, adjusted(group, predicted)), abs=1e-9)
    assert 0 <= score <= 1 and ClassAmi().bounds(outputs(p, features)) == (0, 1)


def test_predictions_that_follow_the_clusters_have_the_best_score_and_chance_has_none() -> None:
    features, group = blobs(300, 4, 0)
    chance = np.random.default_rng(1).integers(0, 4, 300)
    assert cluster_agreement(features, (group + 1) % 4, 4, 3) == pytest.approx(1)
    assert cluster_agreement(features, chance, 4, 3) < 0.05


def test_the_same_features_give_the_same_score() -> None:
    rng = np.random.default_rng(0)
    features, predicted = rng.normal(size=(200, 6)).astype(np.float32), rng.integers(0, 5, 200)
    assert cluster_agreement(features, predicted, 5, 2) == cluster_agreement(features, predicted, 5, 2)


@pytest.mark.parametrize("case", ["one image", "collapsed", "constant features", "more classes than images"])
def test_nothing_to_agree_on_is_no_agreement(case: str) -> None:
    features, group = blobs(12, 3, 0)
    p = np.eye(3)[group]
    given = {
        "one image": outputs(p[:1], features[:1]),
        "collapsed": outputs(np.tile([1.0, 0, 0], (12, 1)), np.ones((12, 3))),
        "constant features": outputs(p, np.ones((12, 3))),
        "more classes than images": outputs(np.eye(30)[[0, 0]], features[:2]),
    }[case]
    assert ClassAmi().score(given) == 0


def test_without_an_image_there_is_an_error_that_says_so() -> None:
    with pytest.raises(UserError, match="0 target predictions"):
        ClassAmi().score(outputs(np.zeros((0, 3)), np.zeros((0, 2))))
