"""The schedule of the trial: who is trained next, who survives, and what fits into the budget."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.selection.halving import (
    TRAINING_PASSES,
    Attempt,
    Stop,
    conclude,
    next_step,
    rank_regret,
    seconds_of_epochs,
    standing,
)
from tlcore.values import Halving, Rung


def rung(
    candidate: str, validation: float | None, loss: float | None = 0.5, *, number: int = 1, seconds: float = 1
) -> Rung:
    failed = "diverged" if validation is None else None
    return Rung(
        candidate=candidate, rung=number, epochs=2 ** (number - 1), validation=validation, loss=loss, seconds=seconds,
        failed=failed,
    )  # fmt: skip


class Race:
    """A made-up trial: fixed accuracy and seconds per epoch of every candidate; None fails."""

    def __init__(
        self, skill: dict[str, float | None], pace: dict[str, float], expected: dict[str, float]
    ) -> None:
        self.skill, self.pace, self.expected = skill, pace, expected
        self.shortlist = tuple(skill)

    def train(self, step: Attempt) -> Rung:
        skill = self.skill[step.candidate]
        return Rung(
            candidate=step.candidate, rung=step.rung, epochs=step.epochs, validation=skill, loss=0.0,
            seconds=0.0 if skill is None else self.pace[step.candidate] * step.epochs, failed="x" if skill is None else None,
        )  # fmt: skip

    def run(self, budget: float) -> tuple[Halving, Stop]:
        done: tuple[Rung, ...] = ()
        while isinstance(
            step := next_step(self.shortlist, done, budget=budget, expected=self.expected), Attempt
        ):
            done += (self.train(step),)
            assert len(done) <= 4 * len(self.shortlist)  # n + n/2 + …, odd halves rounded up
        return conclude(self.shortlist, done, step, strategy="lp-ft", budget=budget), step


seconds = st.floats(0.1, 100)


@st.composite
def races(draw: st.DrawFn, failures: bool = True) -> Race:
    names = [f"c{i}" for i in range(draw(st.integers(1, 9)))]
    skill = st.sampled_from([0.2, 0.5, 0.5, 0.9, 1.0, *([None] if failures else [])])
    return Race(
        {name: draw(skill) for name in names},
        {name: draw(seconds) for name in names},
        {name: draw(seconds) for name in names},
    )


def test_three_of_equal_cost_make_two_rungs() -> None:
    race = Race({"a": 0.7, "b": 0.9, "c": 0.8}, dict.fromkeys("abc", 1.0), dict.fromkeys("abc", 1.0))
    trial, stop = race.run(100)
    assert [(r.candidate, r.rung, r.epochs, r.survived) for r in trial.rungs] == [
        ("a", 1, 1, False), ("b", 1, 1, True), ("c", 1, 1, True), ("b", 2, 2, True), ("c", 2, 2, False),
    ]  # fmt: skip
    assert (trial.winner, trial.reason, trial.seconds) == ("b", "one candidate was left", 7)
    assert stop.untried == ()


@given(races(failures=False))
def test_without_a_budget_the_best_on_validation_wins_and_each_rung_keeps_the_better_half(race: Race) -> None:
    trial, stop = race.run(math.inf)
    accuracies = {name: value or 0.0 for name, value in race.skill.items()}
    assert accuracies[trial.winner] == max(accuracies.values())
    assert trial.winner == max(race.shortlist, key=accuracies.__getitem__)  # max keeps the first of equals
    assert stop.untried == ()
    sizes = [
        sum(r.rung == k for r in trial.rungs)
        for k in range(1, 1 + max((r.rung for r in trial.rungs), default=0))
    ]
    expected, left = [], len(race.shortlist)
    while left > 1:
        expected.append(left)
        left = math.ceil(left / 2)
    assert sizes == expected
    assert all(r.epochs == 2 ** (r.rung - 1) for r in trial.rungs)


@given(races(), st.floats(0.1, 500))
def test_the_trial_ends_with_a_shortlisted_winner_that_was_not_beaten_in_its_last_rung(
    race: Race, budget: float
) -> None:
    trial, stop = race.run(budget)
    assert trial.winner in race.shortlist and trial.reason
    tried = {r.candidate for r in trial.rungs}
    if tried:
        assert set(stop.untried) == set(race.shortlist) - tried
    finished = [r for r in trial.rungs if r.validation is not None]
    if not finished:  # those that were tried failed
        assert trial.winner == next((name for name in race.shortlist if name not in tried), race.shortlist[0])
        return
    last = [r for r in finished if r.rung == max(f.rung for f in finished)]
    if len(finished) == 1 and len(race.shortlist) > 1:  # nothing was compared
        failed = tried - {finished[0].candidate}
        assert trial.winner == next(name for name in race.shortlist if name not in failed)
        return
    assert trial.winner == standing(race.shortlist, last)[0]
    for level in {r.rung for r in trial.rungs}:
        on = {r.candidate for r in trial.rungs if r.rung == level + 1}
        here = [r for r in trial.rungs if r.rung == level]
        if on:
            assert {r.candidate for r in here if r.survived} == on
            assert on == set(
                standing(race.shortlist, here)[: math.ceil(sum(r.validation is not None for r in here) / 2)]
            )


@given(races(), st.floats(0.1, 500))
def test_every_decision_follows_from_what_is_finished_alone(race: Race, budget: float) -> None:
    """What a killed run finds in the store makes it ask for the same trainings again, in the same order."""
    trial, _ = race.run(budget)
    done = tuple(r.model_copy(update={"survived": False}) for r in trial.rungs)
    for count, expected in enumerate(done):
        step = next_step(race.shortlist, done[:count], budget=budget, expected=race.expected)
        assert isinstance(step, Attempt)
        assert (step.candidate, step.rung, step.epochs) == (
            expected.candidate,
            expected.rung,
            expected.epochs,
        )


@given(races(failures=False), st.floats(0.1, 500))
def test_a_trial_whose_trainings_take_what_was_foretold_keeps_its_budget(race: Race, budget: float) -> None:
    race.expected = race.pace
    trial, _ = race.run(budget)
    assert trial.seconds <= budget * (1 + 1e-9)


def test_a_forecast_that_was_too_low_is_mended_after_the_first_training() -> None:
    race = Race({"a": 0.5, "b": 0.9, "c": 0.9}, dict.fromkeys("abc", 30.0), dict.fromkeys("abc", 3.0))
    trial, stop = race.run(60)
    assert [r.candidate for r in trial.rungs] == ["a", "b"]
    assert (trial.winner, stop.untried) == ("b", ("c",))


def test_a_forecast_that_was_too_high_costs_no_candidate_after_the_first_training() -> None:
    race = Race({"a": 0.5, "b": 0.6, "c": 0.9}, dict.fromkeys("abc", 1.0), dict.fromkeys("abc", 50.0))
    trial, stop = race.run(60)
    assert (trial.winner, stop.untried) == ("c", ())


@pytest.mark.parametrize("order", ["abc", "bac", "acb"])
def test_one_that_does_not_fit_is_passed_over_and_costs_those_behind_it_nothing(order: str) -> None:
    seconds, skill = {"a": 10.0, "b": 100.0, "c": 10.0}, {"a": 0.5, "b": 0.95, "c": 0.9}
    trial, stop = Race({name: skill[name] for name in order}, seconds, seconds).run(60)
    assert [r.candidate for r in trial.rungs if r.rung == 1] == ["a", "c"]
    assert (trial.winner, trial.reason, stop.untried) == ("c", "one candidate was left", ("b",))


def test_one_that_was_passed_over_is_trained_when_the_first_training_was_quicker_than_foretold() -> None:
    race = Race({"a": 0.9, "b": 0.5}, {"a": 10.0, "b": 1.0}, {"a": 100.0, "b": 10.0})
    trial, stop = race.run(60)
    assert [r.candidate for r in trial.rungs] == ["b", "a"]
    assert (trial.winner, stop.untried) == ("a", ())


def test_the_reason_does_not_call_one_failed_that_was_never_trained() -> None:
    seconds = {"a": 10.0, "b": 100.0, "c": 10.0}
    trial, stop = Race({"a": None, "b": 0.9, "c": 0.8}, seconds, seconds).run(60)
    assert (trial.winner, stop.untried) == ("b", ("b",))
    assert "nothing was compared" in trial.reason
    trial, stop = Race({"a": None, "b": 0.9, "c": 0.8}, seconds, {"a": 10, "b": 100, "c": 80}).run(60)
    assert (trial.winner, stop.untried) == ("b", ("b", "c"))
    assert "the shortest training would take about 80 s" in trial.reason


def test_where_no_training_fits_the_best_by_rank_goes_on_untrained() -> None:
    race = Race({"a": 0.5, "b": 0.9}, dict.fromkeys("ab", 50.0), dict.fromkeys("ab", 50.0))
    trial, stop = race.run(10)
    assert (trial.winner, trial.rungs, stop.untried) == ("a", (), ("a", "b"))
    assert "50 s" in trial.reason and "budget of 10 s" in trial.reason


def test_where_one_training_fits_the_rank_decides_and_the_reason_says_that_nothing_was_compared() -> None:
    seconds = {"a": 100.0, "b": 10.0, "c": 100.0}
    trial, stop = Race({"a": 0.5, "b": 0.9, "c": 0.9}, seconds, seconds).run(60)
    assert (trial.winner, stop.untried) == ("a", ("a", "c"))
    assert [rung.survived for rung in trial.rungs] == [False]
    race = Race({"a": 0.5, "b": 0.9}, dict.fromkeys("ab", 8.0), dict.fromkeys("ab", 8.0))
    trial, stop = race.run(10)
    assert (trial.winner, stop.untried) == ("a", ("b",))
    assert "nothing was compared" in trial.reason


def test_a_rung_that_does_not_fit_as_a_whole_is_not_begun() -> None:
    race = Race({"a": 0.7, "b": 0.9, "c": 0.8}, dict.fromkeys("abc", 1.0), dict.fromkeys("abc", 1.0))
    assert race.run(7.0)[0].seconds == 7
    trial, _ = race.run(6.9)
    assert trial.seconds == 3 and trial.winner == "b"
    assert "rung 2 would take about 4 s" in trial.reason
    assert [r.candidate for r in trial.rungs if r.survived] == ["b"]


def test_failures_drop_out_and_if_all_fail_the_best_by_rank_goes_on() -> None:
    even = dict.fromkeys("abc", 1.0)
    trial, _ = Race({"a": None, "b": 0.4, "c": None}, even, even).run(60)
    assert (trial.winner, trial.reason) == ("b", "all others failed")
    trial, _ = Race({"a": None, "b": None, "c": None}, even, even).run(60)
    assert trial.winner == "a" and "all trainings failed" in trial.reason
    assert not any(r.survived for r in trial.rungs)


def test_a_finalist_that_fails_in_a_longer_training_loses_to_the_other() -> None:
    done = (
        rung("a", 0.9),
        rung("b", 0.8),
        rung("c", 0.7),
        rung("a", None, number=2),
        rung("b", 0.8, number=2),
    )
    step = next_step("abc", done, budget=60, expected=dict.fromkeys("abc", 1.0))
    assert isinstance(step, Stop) and (step.winner, step.reason) == ("b", "all others failed in rung 2")
    both = (*done[:4], rung("b", None, number=2))
    step = next_step("abc", both, budget=60, expected=dict.fromkeys("abc", 1.0))
    assert isinstance(step, Stop) and step.winner == "c", "the one that failed no training"
    assert step.reason == "all trainings of rung 2 failed; the best of those that failed none goes on"


def test_a_failed_training_does_not_win_where_the_budget_ends() -> None:
    step = next_step("abc", (rung("a", None),), budget=60, expected={"a": 10, "b": 100, "c": 200})
    assert isinstance(step, Stop) and (step.winner, step.untried) == ("b", ("b", "c"))


def test_the_reason_says_where_the_rank_overruled_accuracy() -> None:
    def of(name: str, right: int, number: int = 1) -> Rung:
        return rung(name, right / 40, number=number).model_copy(update={"images": 40})

    def ended(*done: Rung, budget: float = 60) -> Stop:
        step = next_step("ab", done, budget=budget, expected={"a": 1.0, "b": 1.0})
        assert isinstance(step, Stop)
        return step

    step = ended(of("a", 36), of("b", 37))
    assert step.winner == "a"
    said = "one candidate was left; b was 2.5 points more accurate on 40 images, within one standard error, so the rank"
    assert step.reason.startswith(said)
    assert ended(of("a", 37), of("b", 36)).reason == "one candidate was left"
    assert ended(of("a", 20), of("b", 36)).reason == "one candidate was left"
    late = next_step(
        "abc", (of("a", 36), of("b", 37), of("c", 10)), budget=3, expected=dict.fromkeys("abc", 1)
    )
    assert isinstance(late, Stop) and late.winner == "a"
    assert "rung 2 would take" in late.reason and "; b was 2.5 points more accurate" in late.reason
    # c was the most accurate, and dropped out of the first rung by its rank alone
    rungs = (of("a", 32), of("b", 32), of("c", 34), of("a", 34, 2), of("b", 33, 2))
    early = next_step("abc", rungs, budget=60, expected=dict.fromkeys("abc", 1.0))
    assert isinstance(early, Stop) and early.winner == "a"
    assert early.reason.startswith(
        "one candidate was left; c was 5.0 points more accurate on 40 images, within"
    )
    # b was beaten in the first rung and failed in the second: no rank overruled it
    rungs = (of("a", 20), of("b", 38), of("c", 4), of("a", 24, 2), rung("b", None, number=2))
    alone = next_step("abc", rungs, budget=60, expected=dict.fromkeys("abc", 1.0))
    assert isinstance(alone, Stop) and (alone.winner, alone.reason) == ("a", "all others failed in rung 2")


def test_equal_accuracies_are_decided_by_the_loss_then_by_the_rank() -> None:
    results = [
        rung("c", 0.8, 0.4),
        rung("b", 0.8, 0.4),
        rung("a", 0.8, 0.9),
        rung("d", 0.9, None),
        rung("e", None),
    ]
    assert standing("abcde", results) == ("d", "b", "c", "a")
    unknown = [rung("a", 0.8, None), rung("b", 0.8, math.nan), rung("c", 0.8, 7.0)]
    assert standing("abc", unknown) == ("c", "a", "b")


def test_within_one_standard_error_of_the_best_the_rank_decides() -> None:
    def of(name: str, right: int, images: int = 36) -> Rung:
        return rung(name, right / images, 0.1).model_copy(update={"images": images})

    # 33 and 35 of 36: p = 34/38 and 36/38, standard error sqrt(p1 q1 + p2 q2) / 6 = 0.063 > 2/36.
    assert standing("abc", [of("a", 33), of("b", 35), of("c", 20)]) == ("a", "b", "c")
    assert standing("abc", [of("c", 35), of("b", 33), of("a", 20)]) == ("b", "c", "a")
    # 3 of 36 are more than one: here the images decide, and with ten times as many 2 in 36 are, too.
    assert standing("ab", [of("a", 32), of("b", 36)]) == ("b", "a")
    assert standing("ab", [of("a", 330, 360), of("b", 350, 360)]) == ("b", "a")
    assert standing("ab", [of("a", 36), of("b", 36)]) == ("a", "b")


def test_one_candidate_needs_no_trial_and_none_is_an_error() -> None:
    step = next_step(["a"], (), budget=60, expected={})
    assert isinstance(step, Stop) and step.winner == "a"
    with pytest.raises(ValueError, match="candidate"):
        next_step([], (), budget=60, expected={})


def test_the_forecast_is_passes_over_the_images_at_the_measured_rate() -> None:
    assert seconds_of_epochs(2, 300, 50) == pytest.approx(TRAINING_PASSES * 2 * 300 / 50)


def test_the_regret_of_the_ranking_compares_at_equal_epochs() -> None:
    def regret(*rungs: Rung, winner: str) -> float | None:
        order = ("a", "b", "c")
        trial = Halving(
            strategy="lp-ft", budget_seconds=9, shortlist=order, rungs=rungs, winner=winner, reason="x"
        )
        found = rank_regret(trial)
        return found and found.regret

    first = (rung("a", 0.7), rung("b", 0.8), rung("c", 0.75))
    longer = (rung("b", 0.95, number=2), rung("c", 0.9, number=2))
    assert regret(*first, *longer, winner="b") == pytest.approx(0.1)
    kept = (rung("a", 0.9), *first[1:], rung("a", 0.9, number=2), rung("b", 0.92, number=2))
    assert regret(*kept, winner="b") == pytest.approx(0.02)
    assert regret(*kept[:3], winner="a") == 0
    assert regret(rung("a", None), *first[1:], winner="b") is None
    assert regret(winner="a") is None
    # the first by rank won within one standard error: what it lacked is said all the same
    assert regret(*first, winner="a") == pytest.approx(0.1)
    out = (*first, rung("a", 0.95, number=2), rung("c", 0.9, number=2))  # b dropped out by its rank
    assert regret(*out, winner="a") == pytest.approx(0.1)
    assert regret(first[0], rung("b", None), rung("c", None), winner="a") is None
