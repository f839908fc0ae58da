"""Searches over functions of known shape, killed and taken up again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcore.errors import PluginError, UserError
from tlcore.training.proposals import AGAIN, COMPARED, DRAWN, propose, unpromising
from tlcore.training.search import Scored, SearchJob, best_first, run_search
from tlcore.training.space import Choices, Range
from tlcore.values import Epoch, Json, SearchTrial

SPACE = (Range("lr", 1e-5, 1e-1), Range("layers", 1, 8, whole=True), Choices("kind", ("a", "b")))
CONFIGURED = {"lr": 1e-4, "layers": 4, "kind": "a"}
After = Callable[[Epoch], None]


def height(options: Mapping[str, Json]) -> float:
    """Best, 1, at lr = 1e-3 with kind b."""
    return 1 - 0.2 * abs(math.log10(options.get("lr", 1e-4)) + 3) - (0.1 if options["kind"] == "a" else 0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Trainer:
    """Ten epochs of one second each that climb to `height`; killed after `dies` of them, all trials together."""

    def __init__(self, clock: Clock, dies: int | None = None, epochs: int = 10) -> None:
        self.clock, self.dies, self.epochs, self.seen, self.asked = clock, dies, epochs, 0, []  # type: ignore[var-annotated]

    def __call__(
        self, options: Mapping[str, Json], folder: Path, budget: float | None, after: After
    ) -> Scored:
        self.asked.append(dict(options))
        state = folder / "at"
        first = int(state.read_text()) if state.is_file() else 0
        spent = 0.0
        for epoch in range(first, self.epochs):
            if budget is not None and spent >= budget:
                break
            self.clock.now += 1
            spent += 1
            value = height(options) * (epoch + 1) / self.epochs
            after(
                Epoch(
                    phase="tune",
                    epoch=epoch + 1,
                    measures={"validation_accuracy": value, "validation_loss": 1.0},
                )
            )
            self.seen += 1
            if self.seen == self.dies:
                raise KeyboardInterrupt
            state.write_text(str(epoch + 1))
        return Scored(height(options), 1 - height(options))


def job(scratch: Path, trainer: Any, clock: Clock, **changes: Any) -> SearchJob:
    fields: dict[str, Any] = {"configured": CONFIGURED, "space": SPACE, "trials": 8, "seed": 3, **changes}
    return SearchJob(train=trainer, scratch=scratch, clock=clock, **fields)


def searched(scratch: Path, **changes: Any) -> tuple[tuple[SearchTrial, ...], str]:
    clock = Clock()
    return run_search(job(scratch, Trainer(clock), clock, **changes))


def test_the_first_trial_is_the_configured_one_so_a_search_never_ends_worse(tmp_path: Path) -> None:
    trials, reason = searched(tmp_path)
    assert trials[0].options == CONFIGURED and reason == "8 trials were asked for"
    best = best_first(trials)[0]
    assert best.validation is not None and best.validation >= height(CONFIGURED)
    assert [trial.number for trial in trials] == list(range(8))


@pytest.mark.slow
def test_a_search_finds_the_top_of_a_smooth_hill_better_than_even_draws(tmp_path: Path) -> None:
    found = [
        height(best_first(searched(tmp_path / str(seed), seed=seed, trials=20)[0])[0].options)
        for seed in range(2)
    ]
    rng = np.random.default_rng(0)
    drawn = [
        max(height({"lr": 10 ** rng.uniform(-5, -1), "kind": rng.choice(["a", "b"])}) for _ in range(DRAWN))
        for _ in range(200)
    ]
    assert np.mean(found) > np.mean(drawn) and min(found) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("dies", [1, 10, 15, 37, 52])
def test_a_killed_search_goes_on_as_an_unbroken_one_would_have(tmp_path: Path, dies: int) -> None:
    expected, _ = searched(tmp_path / "unbroken")
    clock = Clock()
    first = Trainer(clock, dies=dies)
    with pytest.raises(KeyboardInterrupt):
        run_search(job(tmp_path / "broken", first, clock))
    second = Trainer(clock)
    trials, _ = run_search(job(tmp_path / "broken", second, clock))
    assert second.asked[0] == first.asked[-1]
    assert [t.model_copy(update={"seconds": 0}) for t in trials] == [
        t.model_copy(update={"seconds": 0}) for t in expected
    ]


def test_a_finished_search_is_read_not_run_again(tmp_path: Path) -> None:
    expected, _ = searched(tmp_path)
    clock = Clock()
    again = Trainer(clock)
    trials, _ = run_search(job(tmp_path, again, clock))
    assert trials == expected and again.asked == []


def test_trials_below_the_median_end_early_and_are_never_the_best(tmp_path: Path) -> None:
    trials, _ = searched(tmp_path, trials=16)
    pruned = [trial for trial in trials if trial.pruned]
    assert pruned and all(2 <= trial.epochs < 10 and trial.seconds < 10 for trial in pruned)
    assert all(trial.number > COMPARED - 1 for trial in pruned)
    assert not {trial.number for trial in best_first(trials)} & {trial.number for trial in pruned}
    for trial in pruned:
        at = [t.curve[trial.epochs - 1] for t in trials[: trial.number] if t.finished]
        assert max(trial.curve) < np.median(at)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=0, max_size=6),
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
def test_the_median_rule_is_that_of_numpy(curves: list[list[float]], mine: list[float]) -> None:
    done = [SearchTrial(number=i, validation=max(c), curve=tuple(c)) for i, c in enumerate(curves)]
    wanted = (
        len(done) >= COMPARED
        and len(mine) >= 2
        and max(mine) < float(np.median([c[len(mine) - 1] for c in curves]))
    )
    assert unpromising(done, mine) == wanted


def test_the_budget_bounds_all_trials_together_and_the_best_is_still_there(tmp_path: Path) -> None:
    trials, reason = searched(tmp_path, budget=34.0, trials=100)
    assert sum(trial.seconds for trial in trials) <= 34
    assert best_first(trials) and "budget of 34 s" in reason
    assert (tmp_path / f"trial-{best_first(trials)[0].number}" / "at").is_file()


def test_a_budget_for_less_than_one_training_leaves_the_configured_one(tmp_path: Path) -> None:
    trials, reason = searched(tmp_path, budget=4.0)
    assert [trial.options for trial in trials] == [CONFIGURED] and "budget" in reason


def test_only_the_best_trials_keep_their_folder(tmp_path: Path) -> None:
    trials, _ = searched(tmp_path, keep=3)
    left = {int(path.name.removeprefix("trial-")) for path in tmp_path.glob("trial-*")}
    assert left == {trial.number for trial in best_first(trials)[:3]}


def test_equal_trials_are_ordered_by_loss_and_then_by_number() -> None:
    trials = [
        SearchTrial(number=0, validation=0.9, loss=0.5),
        SearchTrial(number=1, validation=0.9, loss=0.4),
        SearchTrial(number=2, validation=0.9, loss=0.4),
        SearchTrial(number=3, validation=0.95, pruned=True),
        SearchTrial(number=4, failed="x"),
    ]
    assert [trial.number for trial in best_first(trials)] == [1, 2, 0]


def test_a_small_space_is_tried_once_through_and_no_more(tmp_path: Path) -> None:
    trials, reason = searched(tmp_path, space=(Choices("kind", ("a", "b")),), configured={"kind": "a"})
    options = [trial.options for trial in trials]
    assert options == [{"kind": "a"}, {"kind": "b"}] and reason == "everything was tried"


@given(st.integers(0, 2**31), st.integers(1, 30))
@settings(max_examples=15, deadline=None)
def test_proposals_lie_inside_and_depend_on_seed_and_number_alone(seed: int, number: int) -> None:
    done = [
        SearchTrial(number=i, options={"lr": 10 ** -(1 + i % 5), "layers": 1 + i % 8, "kind": "ab"[i % 2]}, validation=i / 9)
        for i in range(number)
    ]  # fmt: skip
    made = propose(SPACE, done, number, seed)
    assert made is not None and all(made[one.name] in one for one in SPACE)
    assert made == propose(SPACE, done, number, seed) and isinstance(made["layers"], int)
    assert AGAIN > 1 and json.loads(json.dumps(made)) == made


def test_configured_options_outside_narrowed_bounds_do_not_disturb_the_model(tmp_path: Path) -> None:
    narrow = (Range("lr", 1e-3, 1e-2), *SPACE[1:])
    trials, _ = searched(tmp_path, space=narrow)
    assert trials[0].options == CONFIGURED
    assert all(1e-3 <= trial.options["lr"] <= 1e-2 for trial in trials[1:])


def failing(error: Exception, numbers: set[int]) -> Callable[..., Scored]:
    calls = iter(range(1000))

    def train(options: Mapping[str, Json], folder: Path, budget: float | None, after: After) -> Scored:
        if next(calls) in numbers:
            raise error
        return Scored(height(options))

    return train


@pytest.mark.parametrize("error", [PluginError("the loss is nan"), UserError("a and b cannot go together")])
def test_a_trial_that_fails_is_told_and_the_search_goes_on(tmp_path: Path, error: Exception) -> None:
    trials, _ = run_search(job(tmp_path, failing(error, {2, 4}), Clock(), trials=6))
    assert [trial.number for trial in trials if trial.failed] == [2, 4]
    assert len(best_first(trials)) == 4


def test_a_mistake_in_the_configured_options_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot go together"):
        run_search(job(tmp_path, failing(UserError("a and b cannot go together"), {0}), Clock()))


def test_without_any_network_the_search_fails_with_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="none of 4 trials gave a network: the loss is nan"):
        run_search(job(tmp_path, failing(PluginError("the loss is nan"), set(range(9))), Clock(), trials=4))


def test_a_validation_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    def train(options: Mapping[str, Json], folder: Path, budget: float | None, after: After) -> Scored:
        return Scored(float("nan") if options == CONFIGURED else 0.5, float("inf"))

    trials, _ = run_search(job(tmp_path, train, Clock(), trials=2))
    assert trials[0].failed == "its validation is nan" and trials[1].finished and trials[1].loss is None


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "trials.json").write_text("{")
    with pytest.raises(PluginError, match=r"delete it and run again"):
        searched(tmp_path)


@pytest.mark.slow
def test_optuna_is_not_imported_with_the_module() -> None:
    import subprocess
    import sys

    code = "import sys, tlcore.training.search, tlcore.training.space; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
