from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from tlcore.errors import GateError, UserError
from tlcore.evaluation.metrics import LEVEL, calibration_error, measure, reflected, wilson
from tlcore.values import Metrics


def draw(n: int, k: int, *, seed: int = 0, skill: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + skill * np.eye(k)[y]
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True), y


def of(p: np.ndarray, y: np.ndarray, **options: object) -> Metrics:
    n, k = p.shape
    names = [f"c{i}" for i in range(k)]
    ids = [f"s{i}" for i in range(n)]
    return measure(p, y, names, sample_ids=ids, uris=[f"/data/{i}.png" for i in ids], **options)  # type: ignore[arg-type]


def guo(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Equation 3, bin by bin, as one would write it on paper."""
    confidence, hit = p.max(axis=1), p.argmax(axis=1) == y
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            total += inside.sum() / len(y) * abs(hit[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize(("n", "k"), [(7, 2), (200, 5), (1000, 30)])
def test_point_values_equal_scikit_learn_and_guo(n: int, k: int) -> None:
    p, y = draw(n, k, seed=n)
    found, predicted = of(p, y, replicates=50), p.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns about classes that are only predicted
        assert found.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(y, predicted), abs=1e-12)
    assert found.accuracy == pytest.approx(sk.accuracy_score(y, predicted), abs=1e-12)
    assert found.macro_f1 == pytest.approx(sk.f1_score(y, predicted, average="macro"), abs=1e-12)
    assert found.calibration_error == pytest.approx(guo(p, y), abs=1e-12)
    assert np.array_equal(found.confusion, sk.confusion_matrix(y, predicted, labels=range(k)))
    recall = sk.recall_score(y, predicted, average=None, labels=range(k), zero_division=0.0)
    assert found.per_class == {f"c{c}": pytest.approx(recall[c]) for c in np.unique(y)}


def test_intervals_equal_a_bootstrap_written_with_a_loop_and_scikit_learn() -> None:
    p, y = draw(60, 4, seed=3, skill=1.0)
    predicted = p.argmax(axis=1)
    found = of(p, y, replicates=300, seed=11)
    drawn = np.random.default_rng(11).integers(0, 60, size=(300, 60))
    rows = [(p[i], y[i], predicted[i]) for i in drawn]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        columns = {
            "accuracy": [sk.accuracy_score(t, q) for _, t, q in rows],
            "balanced_accuracy": [sk.balanced_accuracy_score(t, q) for _, t, q in rows],
            "macro_f1": [sk.f1_score(t, q, average="macro", zero_division=0.0) for _, t, q in rows],
        }
    for name, draws in columns.items():
        low, high = np.percentile(draws, [2.5, 97.5])
        interval = getattr(found, f"{name}_ci")
        assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high)), name
    low, high = np.percentile([guo(q, t) for q, t, _ in rows], [2.5, 97.5])
    twice = 2 * found.calibration_error
    assert found.calibration_error_ci.low == pytest.approx(max(0.0, twice - high))
    assert found.calibration_error_ci.high == pytest.approx(twice - low)


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    p, y = draw(150, 3, skill=1.0)
    assert of(p, y, seed=5) == of(p, y, seed=5)
    assert of(p, y, seed=5).balanced_accuracy_ci != of(p, y, seed=6).balanced_accuracy_ci


def test_blocks_of_replicates_do_not_change_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    p, y = draw(150, 3, skill=1.0)
    whole = of(p, y, replicates=100)
    monkeypatch.setattr("tlcore.evaluation.metrics._BLOCK", 700)  # four replicates at a time
    assert of(p, y, replicates=100) == whole


def test_the_accuracy_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        hit = rng.random(120) < 0.8
        p = np.where(hit[:, None], [0.9, 0.1], [0.1, 0.9])
        interval = of(p, np.zeros(120, dtype=int), replicates=200, seed=trial).accuracy_ci
        covered += interval.low <= 0.8 <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


def test_the_calibration_interval_covers_the_truth_where_the_percentile_one_misses_it() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(100):
        confidence = rng.uniform(0.55, 1, 300)
        y = (rng.random(300) > confidence - 0.05).astype(int)  # 5 points too confident everywhere
        p = np.stack([confidence, 1 - confidence], axis=1)
        interval = of(p, y, replicates=200, seed=trial).calibration_error_ci
        covered += interval.low <= 0.05 <= interval.high
    assert covered >= 80


def test_when_all_are_right_the_interval_is_wilsons_and_not_a_point() -> None:
    y = np.repeat([0, 1], 20)
    p = np.eye(2)[y] * 0.8 + 0.1
    found = of(p, y)
    expected = stats.binomtest(40, 40).proportion_ci(LEVEL, method="wilson")
    assert found.accuracy == found.balanced_accuracy == found.macro_f1 == 1.0
    assert found.accuracy_ci.low == pytest.approx(expected.low)
    assert found.accuracy_ci.high == 1.0
    assert found.balanced_accuracy_ci == found.macro_f1_ci == found.accuracy_ci
    assert all(hard.label == hard.predicted for hard in found.top_losses)


def test_a_rare_class_makes_the_balanced_interval_wider_when_all_are_right() -> None:
    y = np.array([0] * 95 + [1] * 5)
    found = of(np.eye(2)[y], y)
    assert found.balanced_accuracy_ci.low < found.accuracy_ci.low


def test_when_all_are_wrong_the_upper_bound_is_above_zero() -> None:
    found = of(np.tile([0.9, 0.1], (10, 1)), np.ones(10, dtype=int))
    assert found.accuracy == 0.0
    assert 0.2 < found.accuracy_ci.high < 0.35


@pytest.mark.parametrize("label", [0, 1])
def test_one_image_is_measured_with_a_wide_interval(label: int) -> None:
    found = of(np.array([[0.7, 0.3]]), np.array([label]))
    assert found.images == 1
    assert found.accuracy == float(label == 0)
    assert found.accuracy_ci.high - found.accuracy_ci.low > 0.5
    assert found.warnings


def test_classes_without_a_test_image_are_named_and_left_out_of_the_mean() -> None:
    p, y = draw(100, 4, skill=1.0)
    y = np.where(y == 2, 0, y)
    found = of(p, y)
    assert "c2" not in found.per_class
    assert found.balanced_accuracy == pytest.approx(np.mean(list(found.per_class.values())))
    assert "1 of 4" in found.warnings[0] and "c2" in found.warnings[0]
    assert np.shape(found.confusion) == (4, 4)


def test_the_breakdown_belongs_to_the_same_images() -> None:
    p, y = draw(300, 3, skill=0.5)
    found = of(p, y, replicates=10)
    assert {row.name: row.recall for row in found.classes} == found.per_class
    assert sum(row.images for row in found.classes) == 300
    assert found.macro_f1 == pytest.approx(np.mean([row.f1 for row in found.classes]))
    assert found.reliability is not None and found.reliability.calibration_error == found.calibration_error
    assert found.reliability.log_loss == pytest.approx(sk.log_loss(y, p))
    assert len(found.top_losses) == 12 and not found.mistakes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(0, 6))
def test_every_measure_lies_in_its_interval_within_0_and_1(n: int, k: int, seed: int, skill: float) -> None:
    p, y = draw(n, k, seed=seed, skill=skill)
    found = of(p, y, replicates=40)
    for name in ("accuracy", "calibration_error"):
        interval = getattr(found, f"{name}_ci")
        assert 0 <= interval.low <= getattr(found, name) + 0.15 and interval.high <= 1 + 1e-12
    for interval in (found.accuracy_ci, found.balanced_accuracy_ci, found.macro_f1_ci):
        assert 0 <= interval.low <= interval.high <= 1
    assert found.calibration_error_ci.low <= found.calibration_error <= found.calibration_error_ci.high
    assert sum(map(sum, found.confusion)) == n


@given(st.integers(0, 300), st.integers(1, 300))
def test_wilson_equals_scipy(right: int, images: int) -> None:
    right = min(right, images)
    expected = stats.binomtest(right, images).proportion_ci(LEVEL, method="wilson")
    found = wilson(right / images, images)
    assert (found.low, found.high) == (
        pytest.approx(expected.low, abs=1e-12),
        pytest.approx(expected.high, abs=1e-12),
    )


def test_reflection_is_cut_at_zero_and_holds_the_value() -> None:
    found = reflected(0.02, np.array([0.01, 0.05]))  # quantiles 0.011 and 0.049
    assert found.low == 0.0
    assert found.high == pytest.approx(0.029)
    assert reflected(0.02, np.array([0.10, 0.12])).high == 0.02


def test_calibration_error_by_hand() -> None:
    confidence, hit = np.array([0.95, 0.97, 0.55, 0.58]), np.array([True, False, True, True])
    # two bins: |1 - 1.92| and |2 - 1.13|, over four images
    assert calibration_error(confidence, hit) == pytest.approx((0.92 + 0.87) / 4)


@pytest.mark.parametrize("bad", [[[np.nan, 0.5]], [[2.0, -1.0]], [[3.0, 1.0]], [[np.inf, 0.0]]])
def test_what_is_no_probability_fails_the_gate_and_names_the_image(bad: list[list[float]]) -> None:
    with pytest.raises(GateError, match="no probabilities for s0.*1 of 1"):
        of(np.array(bad), np.array([0]))


@pytest.mark.parametrize(
    ("p", "y", "said"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "no labelled image"),
        (np.array([[0.5, 0.5]]), np.array([-1]), "label -1 of s0"),
        (np.array([[0.5, 0.5]]), np.array([2]), "label 2 of s0"),
        (np.array([[0.5, 0.5]]), np.array([0, 1]), "1 rows of probabilities, 2 labels"),
    ],
)
def test_a_split_that_cannot_be_measured_is_refused(p: np.ndarray, y: np.ndarray, said: str) -> None:
    with pytest.raises(UserError, match=said):
        of(p, y)


def test_columns_must_be_the_classes() -> None:
    with pytest.raises(UserError, match=r"not \[images, 2 classes\]"):
        measure([[1.0]], [0], ["a", "b"], sample_ids=["x"], uris=["x"])
