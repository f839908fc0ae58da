from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from tlcore.errors import UserError
from tlcore.evaluation.comparison import (
    LINEAR_PROBE,
    RIDGE,
    SCRATCH,
    compare,
    compare_scores,
    majority,
    negative_transfer,
    sentence,
    transfer_sentence,
)
from tlcore.values import Comparison, Interval


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


def both(scratch: tuple[int, int], probe: tuple[int, int]) -> list[Comparison]:
    return [
        compare(*table(50, *pair, 20), name) for pair, name in ((scratch, SCRATCH), (probe, LINEAR_PROBE))
    ]


@pytest.mark.parametrize(
    ("scratch", "probe", "start", "end"),
    [
        (
            (30, 2),
            (20, 2),
            "Transfer pays: better than the same network from scratch by 27.5 points (95 %",
            "and than its frozen probe by 19.6 points (95 % interval",
        ),
        (
            (30, 2),
            (12, 11),
            "Transfer pays: better than",
            "; a gain over its frozen probe is not shown: 1.1 points",
        ),
        (
            (30, 2),
            (2, 30),
            "Transfer pays: better than",
            "; its frozen probe is better than the result by 27.5 points",
        ),
        (
            (12, 11),
            (30, 2),
            "No benefit of transfer shown: against",
            "which includes zero, though the result is better than its",
        ),
        (
            (2, 30),
            (12, 11),
            "Negative transfer: the same network trained from scratch is better by 27.5",
            "is not shown: 1.1 points",
        ),
    ],
)
def test_what_transfer_brings_is_one_sentence_about_scratch_and_the_frozen_probe(
    scratch: tuple[int, int], probe: tuple[int, int], start: str, end: str
) -> None:
    said = transfer_sentence(both(scratch, probe), "lp-ft+dann")
    assert said is not None and said.startswith(start) and end in said
    assert said.endswith(".") and ". " not in said


def test_a_linear_probe_is_not_held_against_itself() -> None:
    said = transfer_sentence(both((30, 2), (0, 0)), "linear-probe")
    assert said is not None and "Transfer pays" in said and "frozen probe" not in said


@pytest.mark.parametrize(
    ("probe", "end"),
    [
        ((30, 2), "; it is better than a probe on the frozen source model by 27.5 points"),
        ((2, 30), "; a probe on the frozen source model is better by 27.5 points"),
        ((12, 11), "the difference is 1.1 points"),
    ],
)
def test_a_result_that_was_trained_from_scratch_owes_nothing_to_a_source_model(
    probe: tuple[int, int], end: str
) -> None:
    baselines = both((2, 30), probe)
    said = transfer_sentence(baselines, "scratch")
    assert said is not None and said.startswith("No source model was used: ") and end in said
    assert transfer_sentence(baselines[:1], "scratch+dann") == (
        "No source model was used: the result was trained from scratch."
    )
    assert negative_transfer(baselines) is not None and negative_transfer(baselines, "scratch") is None


def test_the_probe_of_numbers_is_called_what_it_is() -> None:
    scratch, probe = both((30, 2), (20, 2))
    of_numbers = [
        entry.model_copy(update={"baseline": name, "measure": "mean absolute error"})
        for entry, name in ((scratch, SCRATCH), (probe, RIDGE))
    ]
    said = transfer_sentence(of_numbers, "lp-ft")
    assert said is not None and "and than its frozen probe by" in said
    said = transfer_sentence(of_numbers, "ridge")
    assert said is not None and "frozen probe" not in said


def test_without_a_from_scratch_baseline_only_the_probe_is_spoken_of() -> None:
    scratch, probe = both((30, 2), (20, 2))
    assert transfer_sentence([probe]) == f"Against its frozen probe: {sentence(probe)}."
    assert transfer_sentence([]) is None and transfer_sentence([probe], "linear-probe") is None
    assert scratch.better


def test_scores_that_are_right_or_wrong_are_compared_as_answers() -> None:
    pair = table(50, 12, 3, 20)
    assert compare_scores(*pair, "probe", seed=3) == compare(*pair, "probe", seed=3)


def test_real_scores_get_a_paired_bootstrap_of_the_mean_difference() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=300) * 5  # the same for both: pairing takes it out
    result, baseline = hard + rng.normal(0.3, 1, 300), hard + rng.normal(0, 1, 300)
    found = compare_scores(result, baseline, "probe", replicates=20_000)
    gaps = result - baseline
    half = 1.96 * gaps.std() / np.sqrt(300)
    assert found.difference == pytest.approx(gaps.mean()) and found.accuracy == pytest.approx(baseline.mean())
    assert found.difference_ci.low == pytest.approx(gaps.mean() - half, abs=0.02)
    assert found.difference_ci.high == pytest.approx(gaps.mean() + half, abs=0.02)
    assert found.better == (found.difference_ci.low > 0)


def test_few_real_scores_get_students_interval() -> None:
    result, baseline = np.array([1.0, 2.0, 4.0]), np.array([0.5, 1.0, 2.0])
    found = compare_scores(result, baseline, "probe")
    expected = ttest_rel(result, baseline).confidence_interval(0.95)
    assert (found.difference_ci.low, found.difference_ci.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("result", "baseline", "what"),
    [
        ([1.0], [0.0], "two images"),
        ([1.0, 2.0], [0.0], "cannot pair"),
        ([1.0, np.nan], [0.0, 0.0], "not finite"),
    ],
)
def test_scores_that_tell_nothing_are_refused(result: list[float], baseline: list[float], what: str) -> None:
    with pytest.raises(UserError, match=what):
        compare_scores(result, baseline, "probe")


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        ("accuracy", "25.0 points (95 % interval 10.0 to 40.0)"),
        ("F1 per image", "25.0 points of F1 per image (95 % interval 10.0 to 40.0)"),
        ("mean absolute error", "0.25 of mean absolute error (95 % interval 0.1 to 0.4)"),
        ("squared error per image", "0.25 of squared error per image (95 % interval 0.1 to 0.4)"),
    ],
)
def test_a_difference_has_the_unit_of_its_measure(measure: str, said: str) -> None:
    entry = Comparison(
        baseline="scratch", accuracy=0.5, difference=0.25, difference_ci=Interval(low=0.1, high=0.4), better=True,
        measure=measure,
    )  # fmt: skip
    assert (
        transfer_sentence([entry]) == f"Transfer pays: better than the same network from scratch by {said}."
    )
    worse = entry.model_copy(
        update={"difference": -0.25, "difference_ci": Interval(low=-0.4, high=-0.1), "better": False}
    )
    assert said in str(negative_transfer([worse]))
