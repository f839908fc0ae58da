from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.errors import UserError
from tlcore.evaluation.comparison import SCRATCH, compare, majority, negative_transfer, sentence
from tlcore.values import Comparison


def table(both: int, wins: int, losses: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    result = [True] * (both + wins) + [False] * (losses + neither)
    baseline = [True] * both + [False] * wins + [True] * losses + [False] * neither
    return np.array(result), np.array(baseline)


def test_the_interval_equals_a_paired_bootstrap_over_images() -> None:
    rng = np.random.default_rng(0)
    result, baseline = rng.random(400) < 0.8, rng.random(400) < 0.7
    found = compare(result, baseline, "probe", replicates=20_000)
    drawn = rng.integers(0, 400, size=(20_000, 400))
    gaps = result[drawn].mean(axis=1) - baseline[drawn].mean(axis=1)
    low, high = np.percentile(gaps, [2.5, 97.5])
    assert found.accuracy == baseline.mean()
    assert found.difference == pytest.approx(result.mean() - baseline.mean())
    assert found.difference_ci.low == pytest.approx(low, abs=0.004)
    assert found.difference_ci.high == pytest.approx(high, abs=0.004)


def test_pairing_tells_apart_what_two_separate_intervals_cannot() -> None:
    found = compare(*table(both=300, wins=25, losses=5, neither=70), "probe")
    assert found.better  # 81.25 % against 76.25 % of 400: the separate intervals overlap widely


def test_few_different_images_get_agresti_and_mins_interval() -> None:
    found = compare(*table(both=90, wins=4, losses=0, neither=6), "probe")
    b, c, total = 4.5, 0.5, 102
    half = 1.959963984540054 * np.sqrt(b + c - (b - c) ** 2 / total) / total
    assert found.difference_ci.low == pytest.approx((b - c) / total - half)
    assert found.difference_ci.low < 0 and not found.better  # McNemar's exact p is 0.125


def test_equal_answers_leave_room_for_a_difference() -> None:
    found = compare(*table(20, 0, 0, 5), "probe")
    assert found.difference == 0
    assert found.difference_ci.low < 0 < found.difference_ci.high
    assert not found.better


def test_one_image_proves_nothing_and_many_do() -> None:
    assert not compare([True], [False], "majority").better
    many = compare([True] * 40, [False] * 40, "majority")
    assert many.better
    assert 0.8 < many.difference_ci.low < many.difference_ci.high == 1


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(1, 30), st.integers(0, 99))
def test_swapping_the_two_mirrors_the_difference(
    both: int, wins: int, losses: int, neither: int, seed: int
) -> None:
    result, baseline = table(both, wins, losses, neither)
    there, back = compare(result, baseline, "x", seed=seed), compare(baseline, result, "x", seed=seed)
    assert there.difference == -back.difference
    assert not (there.better and back.better)
    assert -1 <= there.difference_ci.low <= there.difference <= there.difference_ci.high <= 1


def test_the_majority_class_is_the_most_frequent_labelled_one() -> None:
    assert majority([2, 0, 2, -1, -1, -1], ["a", "b", "c"]) == 2
    assert majority([1, 0], ["a", "b"]) == 0


@pytest.mark.parametrize("labels", [[], [-1, -1], [3]])
def test_a_majority_needs_labels_of_known_classes(labels: list[int]) -> None:
    with pytest.raises(UserError, match="no majority class"):
        majority(labels, ["a", "b"])


@pytest.mark.parametrize(("result", "baseline"), [([True], [True, False]), ([], [])])
def test_answers_that_cannot_be_paired_are_refused(result: list[bool], baseline: list[bool]) -> None:
    with pytest.raises(UserError, match="cannot pair"):
        compare(result, baseline, "probe")


def against_scratch(wins: int, losses: int) -> tuple[Comparison, ...]:
    return (compare(*table(50, wins, losses, 20), SCRATCH),)


def test_transfer_that_beats_scratch_is_not_flagged() -> None:
    assert negative_transfer(against_scratch(30, 2)) is None
    assert "better by" in sentence(against_scratch(30, 2)[0])


def test_transfer_worse_than_scratch_is_called_negative_with_the_numbers() -> None:
    said = negative_transfer(against_scratch(2, 30))
    assert said is not None and said.startswith("Negative transfer") and "better by 27.5 points" in said
    assert "−" not in said  # both ends of the flipped interval are gains of scratch
    assert "worse by 27.5 points" in sentence(against_scratch(2, 30)[0])


def test_transfer_not_told_apart_from_scratch_is_flagged_without_calling_it_harm() -> None:
    said = negative_transfer(against_scratch(12, 11))
    assert said is not None and said.startswith("No benefit of transfer shown") and "includes zero" in said
    assert "not told apart" in sentence(against_scratch(12, 11)[0])


def test_without_a_scratch_baseline_nothing_is_said() -> None:
    assert negative_transfer([compare([True] * 9, [False] * 9, "majority")]) is None
