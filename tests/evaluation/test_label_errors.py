from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcore.errors import UserError
from tlcore.evaluation.label_errors import SHOWN, confident_joint, label_errors, self_confidence_thresholds
from tlcore.values import LabelErrors


def of(p: np.ndarray, y: np.ndarray, **options: object) -> LabelErrors:
    n, k = p.shape
    return label_errors(
        p, y, [f"c{i}" for i in range(k)], sample_ids=[f"s{i}" for i in range(n)], uris=[f"/d/{i}.png" for i in range(n)],
        **options,  # type: ignore[arg-type]
    )  # fmt: skip


def by_hand(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts and joint as section 3.1 of the paper reads, image by image."""
    n, k = p.shape
    t = [
        np.mean([p[i, j] for i in range(n) if y[i] == j]) if (y == j).sum() > 1 else np.inf for j in range(k)
    ]
    counts = np.zeros((k, k), int)
    for i in range(n):
        above = [j for j in range(k) if p[i, j] >= t[j] - 1e-12]
        if above and (y == y[i]).sum() > 1:
            counts[y[i], max(above, key=lambda j: p[i, j])] += 1
    joint = np.zeros((k, k))
    for i in range(k):
        size = (y == i).sum()
        if counts[i].sum():
            joint[i] = counts[i] / counts[i].sum() * size
        else:
            joint[i, i] = size
    return counts, joint / joint.sum()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 9999))
def test_counts_and_joint_are_those_of_the_paper(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet(np.full(k, 0.5), size=n), rng.integers(0, k, n)
    counts, joint = by_hand(p, y)
    found = confident_joint(p, y)
    assert np.array_equal(found.counts, counts)
    np.testing.assert_allclose(found.joint, joint, atol=1e-12)
    assert found.joint.sum() == pytest.approx(1)
    value = of(p, y)
    assert 0 <= value.error_share <= 1 and value.error_share == pytest.approx(1 - np.trace(joint), abs=1e-9)
    assert len(value.suspects) == min(value.found, SHOWN)
    assert all(s.suggested_probability > s.self_confidence and s.label != s.suggested for s in value.suspects)
    assert LabelErrors.model_validate_json(value.model_dump_json()) == value


def test_thresholds_are_mean_self_confidences() -> None:
    p = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    assert self_confidence_thresholds(p, np.array([0, 0, 1])).tolist() == [0.7, np.inf]


def planted(
    share: float, seed: int = 0, n: int = 600, k: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Out-of-fold probabilities of features with planted label noise, and which labels were changed."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    x = rng.normal(size=(n, 8)) + 3 * np.eye(k, 8)[truth]
    wrong = rng.random(n) < share
    given = np.where(wrong, (truth + rng.integers(1, k, n)) % k, truth)
    p = cross_val_predict(LogisticRegression(C=0.3), x, given, cv=5, method="predict_proba")
    return p, given, wrong


@pytest.mark.parametrize("share", [0.05, 0.15])
def test_planted_wrong_labels_come_first_and_their_share_is_estimated(share: float) -> None:
    p, given, wrong = planted(share)
    found = of(p, given, limit=1000)
    assert found.error_share == pytest.approx(wrong.mean(), abs=0.06)
    assert found.error_share_ci is not None
    assert found.error_share_ci.low < wrong.mean() < found.error_share_ci.high
    assert found.error_share_ci.high - found.error_share_ci.low < 0.2
    first = [int(s.sample_id[1:]) for s in found.suspects[: int(wrong.sum() // 2)]]
    assert wrong[first].mean() > 0.9
    caught = {int(s.sample_id[1:]) for s in found.suspects} & set(np.flatnonzero(wrong).tolist())
    assert len(caught) > 0.7 * wrong.sum()


def test_without_noise_hardly_an_image_is_suspected() -> None:
    p, given, _ = planted(0.0)
    found = of(p, given)
    assert found.error_share < 0.04 and found.found < 25 and found.agreement > 0.94


def test_suspects_are_ranked_by_their_margin_and_say_what_they_look_like() -> None:
    p, given, _ = planted(0.1)
    found = of(p, given, found_by="the model", limit=5)
    margins = []
    for s in found.suspects:
        row = p[int(s.sample_id[1:])]
        label, best = int(s.label[1:]), int(s.suggested[1:])
        assert (s.self_confidence, s.suggested_probability) == (row[label], row[best])
        assert s.uri == f"/d/{s.sample_id[1:]}.png"
        margins.append(row[label] - np.delete(row, label).max())
    assert margins == sorted(margins) and len(margins) == 5 < found.found and found.found_by == "the model"


def test_the_only_image_of_a_class_is_neither_suspected_nor_suggested() -> None:
    p, given, _ = planted(0.0, k=3)
    p = np.column_stack([p, np.zeros(len(p))])
    given = given.copy()
    given[0] = 3
    found = of(p, given)
    assert all("c3" not in (s.label, s.suggested) for s in found.suspects)
    assert "single image cannot be judged (c3)" in found.notes[0]


def test_one_class_one_image_and_equal_probabilities_give_no_suspect() -> None:
    assert of(np.ones((3, 1)), np.zeros(3, int)).found == 0
    assert of(np.array([[0.3, 0.7]]), np.array([0])).error_share == 0
    flat = of(np.full((6, 3), 1 / 3), np.array([0, 1, 2] * 2))
    assert flat.found == 0


@pytest.mark.parametrize(
    ("p", "y", "what"),
    [
        (np.zeros((0, 2)), [], "not \\[images"),
        (np.full((1, 2), 0.5), [0, 1], "1 rows of probabilities, 2 labels"),
        (np.full((1, 2), 0.5), [2], "outside 0 … 1"),
        (np.full((1, 2), np.nan), [0], "are no probabilities"),
        (np.full((1, 2), 0.9), [0], "are no probabilities"),
    ],
)
def test_predictions_that_judge_nothing_are_refused(p: np.ndarray, y: list[int], what: str) -> None:
    with pytest.raises(UserError, match=what):
        of(p, np.array(y, np.int64))
