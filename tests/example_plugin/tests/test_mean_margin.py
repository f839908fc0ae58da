from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tlcore_example.mean_margin import mean_margin

from tlcore.errors import UserError
from tlcore.features.moments import Moments


def blobs(seed: int, gap: float, n: int = 120, d: int = 12, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % k
    return draw.normal(size=(n, d)) + gap * draw.normal(size=(k, d))[labels], labels


def by_loops(features: np.ndarray, labels: np.ndarray) -> float:
    """The formula, class by class and feature by feature."""
    names = np.unique(labels)
    groups = {name: features[labels == name] for name in names}
    total = features.var(0, ddof=1)
    within = sum(((group - group.mean(0)) ** 2).sum(0) for group in groups.values()) / (
        len(features) - len(names)
    )
    nearest = []
    for one in names:
        gaps = []
        for other in names:
            if other == one:
                continue
            a, b = groups[one], groups[other]
            noise = within * (1 / len(a) + 1 / len(b))
            gaps.append(float(np.mean(((a.mean(0) - b.mean(0)) ** 2 - noise) / total)))
        nearest.append(min(gaps))
    return float(np.mean(nearest))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), gap=st.floats(0, 5), k=st.integers(2, 6))
def test_the_score_equals_the_formula_written_with_loops(seed: int, gap: float, k: int) -> None:
    features, labels = blobs(seed, gap, k=k)
    assert mean_margin(Moments.of(features, labels, k)) == pytest.approx(by_loops(features, labels), abs=1e-9)


def test_shifting_and_scaling_features_changes_nothing() -> None:
    features, labels = blobs(0, 1.0)
    plain = mean_margin(Moments.of(features, labels, 4))
    moved = features * np.linspace(0.1, 30, features.shape[1]) + 50
    assert mean_margin(Moments.of(moved, labels, 4)) == pytest.approx(plain, rel=1e-8)


def test_classes_that_do_not_differ_score_about_zero_and_more_distance_scores_higher() -> None:
    two = [mean_margin(Moments.of(*blobs(seed, 0.0, k=2), 2)) for seed in range(200)]
    assert abs(np.mean(two)) < 4 * np.std(two) / np.sqrt(len(two))
    scores = [mean_margin(Moments.of(*blobs(1, gap), 4)) for gap in (0.0, 0.5, 1.0, 2.0)]
    assert scores == sorted(scores)


def test_constant_features_and_absent_classes_do_not_count() -> None:
    features, labels = blobs(2, 1.0)
    plain = mean_margin(Moments.of(features, labels, 4))
    wider = np.hstack([features, np.full((len(features), 3), 7.0)])
    assert mean_margin(Moments.of(wider, labels, 9)) == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize(
    ("labels", "said"), [([0, 0, 0], "2 classes"), ([0, 1, 2], "more images than classes")]
)
def test_too_little_to_score_is_an_error(labels: list[int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        mean_margin(Moments.of(np.eye(3), labels, 3))


def test_features_without_variance_are_an_error() -> None:
    with pytest.raises(UserError, match="no variance"):
        mean_margin(Moments.of(np.ones((4, 3)), [0, 0, 1, 1], 2))
