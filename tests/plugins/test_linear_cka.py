"""Linear CKA against the n x n kernels of its definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tlcore.features.moments import Moments
from tlcore.testing import tiny_evidence
from tlcore_scorers.linear_cka import LinearCKA, linear_cka


def _kernels(features: NDArray, labels: NDArray) -> float:
    n = len(features)
    centre = np.eye(n) - 1 / n
    one, other = (
        centre @ x @ x.T @ centre for x in (features.astype(float), np.eye(labels.max() + 1)[labels])
    )
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


@pytest.mark.parametrize(("images", "dim"), [(60, 8), (30, 100), (12, 12)])
def test_it_is_the_cosine_of_the_centred_kernels(images: int, dim: int) -> None:
    evidence = tiny_evidence(images, 3, dim, skill=0.5)
    wanted = _kernels(evidence.features(), evidence.labels)
    assert LinearCKA().score(evidence) == pytest.approx(wanted, rel=1e-9)


def test_classes_as_features_score_one_and_rotation_scale_and_offset_change_nothing() -> None:
    labels = np.arange(30) % 3
    assert linear_cka(Moments.of(np.eye(3)[labels] * 5 + 2, labels, 3)) == pytest.approx(1.0)
    evidence = tiny_evidence(60, 3, 8)
    rows = evidence.features().astype(float)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    assert linear_cka(Moments.of(rows @ turn * 1e4 + 3e4, evidence.labels, 3)) == pytest.approx(
        linear_cka(evidence.moments), rel=1e-9
    )


def test_better_separated_classes_score_higher() -> None:
    scores = [LinearCKA().score(tiny_evidence(skill=skill)) for skill in (0.0, 0.5, 1.0, 3.0)]
    assert scores == sorted(scores)


def test_a_known_limit_ever_more_features_of_noise_tend_to_a_value_above_nought() -> None:
    limit = np.sqrt((5 - 1) / (100 - 1))
    scores = [LinearCKA().score(tiny_evidence(100, 5, dim, skill=0.0)) for dim in (8, 128, 2000)]
    assert scores[0] < 0.5 * limit < scores[1] < scores[2] == pytest.approx(limit, rel=0.05)
