"""The sample that scorers of single images read, against scikit-learn and plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from tlcore.errors import UserError
from tlcore.features.moments import Moments
from tlcore.protocols import Evidence
from tlcore.selection.samples import labelled_sample, principal_coordinates, standardised


def evidence(features: NDArray[Any], labels: NDArray[Any], classes: int, seed: int = 0) -> Evidence:
    moments = Moments.of(np.ones((len(labels), 1)), labels, classes)
    return Evidence(moments, labels, lambda: features, lambda: None, seed)


def drawn(n: int, d: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(n, d)) * np.geomspace(3, 0.1, d)


def test_a_sample_is_centred_and_its_classes_are_numbered_without_gaps() -> None:
    features = drawn(40, 6) + 7
    labels = np.array([1, 4, 7, 9])[np.arange(40) % 4]
    sample = labelled_sample(evidence(features, labels, 12), 100, "x")
    assert sample.classes == 4 and sample.counts.tolist() == [10] * 4
    np.testing.assert_array_equal(sample.labels, np.arange(40) % 4)
    np.testing.assert_allclose(sample.features, features - features.mean(0), atol=1e-12)
    np.testing.assert_array_equal(sample.one_hot.argmax(1), sample.labels)


def test_a_sample_is_no_larger_than_its_limit_and_the_same_for_every_network() -> None:
    labels = np.arange(300) % 3
    one, other = (
        labelled_sample(evidence(f, labels, 3, seed=4), 60, "x") for f in (drawn(300, 5), drawn(300, 9))
    )
    assert len(one.labels) == 60 and one.counts.tolist() == [20, 20, 20]
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.features[:, 0].tolist() != other.features[:, 0].tolist()


def test_classes_with_too_few_images_are_left_out_where_that_is_asked_for() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 2])
    sample = labelled_sample(evidence(drawn(7, 3), labels, 3), 100, "x", per_class=2)
    assert sample.classes == 2 and len(sample.labels) == 6
    with pytest.raises(UserError, match="x needs images of at least 2 classes with at least two images each"):
        labelled_sample(evidence(drawn(7, 3), np.array([0, 0, 0, 0, 0, 1, 2]), 3), 100, "x", per_class=2)


def test_targets_that_are_numbers_are_a_clear_error() -> None:
    from dataclasses import replace

    from tlcore.features.regression import RegressionMoments

    zeros = np.zeros(3)
    numbers = RegressionMoments(
        8, zeros, zeros[:1], zeros, np.zeros((3, 3)), zeros[:1], zeros[:1], np.zeros((3, 1))
    )
    regression = replace(evidence(drawn(8, 3), np.arange(8) % 2, 2), regression=numbers)
    with pytest.raises(UserError, match="knn needs classes") as refused:
        labelled_sample(regression, 100, "knn")
    assert refused.value.hint == "use logme"


@pytest.mark.parametrize(("n", "d"), [(50, 12), (12, 50), (20, 20)])
def test_principal_coordinates_are_those_of_scikit_learn(n: int, d: int) -> None:
    rows = drawn(n, d)
    rows -= rows.mean(0)
    every = principal_coordinates(rows)
    assert every.shape[1] == min(n - 1, d)
    np.testing.assert_allclose(every @ every.T, rows @ rows.T, atol=1e-9)
    for share in (0.5, 0.8, 0.99):
        ours, theirs = principal_coordinates(rows, share=share), PCA(share).fit_transform(rows)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-8)
    np.testing.assert_allclose(
        np.abs(principal_coordinates(rows, limit=3)), np.abs(PCA(3).fit_transform(rows))
    )


def test_standardised_features_are_those_of_scikit_learn_and_rounding_is_no_feature() -> None:
    features = drawn(30, 8)
    features[:, 3] = 1e4
    features[:, 5] = np.float32(0.1) + 1e-9 * drawn(30, 1)[:, 0]
    sample = labelled_sample(evidence(features.astype(np.float64), np.arange(30) % 2, 2), 100, "x")
    found, expected = standardised(sample), StandardScaler().fit_transform(features)
    real = [0, 1, 2, 4, 6, 7]
    np.testing.assert_allclose(found[:, real], expected[:, real], atol=1e-10)
    assert not found[:, [3, 5]].any()
