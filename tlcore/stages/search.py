"""The stage that searches a strategy's options: trials by validation, and a soup of the best of them.

Each trial is a training as the stage "train" makes one, in a folder of its own inside the stage's scratch. A training
that is over ends at once when it is asked for again in the same folder, so that nothing of a trial is kept but that.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from tlcore.protocols import Tuner
from tlcore.stages.base import StageContext
from tlcore.stages.values import Trained
from tlcore.training.processes import launched
from tlcore.training.search import Scored, SearchJob, best_first, run_search
from tlcore.training.soup import State, greedy_soup
from tlcore.training.space import search_space
from tlcore.values import Epoch, Json, SearchResult, SearchTrial, SoupResult

if TYPE_CHECKING:
    from tlcore.stages.train import Outcome

__all__ = ["MEMBERS", "Found", "find", "search"]

MEMBERS = 8
"""Trials at most that a soup looks at, and whose weights are kept for it."""


class TrainOne(Protocol):
    """A training with a tuner in a folder that it can be taken up from; see `tlcore.stages.train.train_one`."""

    def __call__(
        self,
        tuner: Tuner,
        scratch: Path,
        *,
        budget: float | None = None,
        after_epoch: Callable[[Epoch], None] | None = None,
    ) -> Outcome: ...


Judge = Callable[[State], tuple[float, ...]]
"""What validation says of weights: larger is better, compared element by element."""


@dataclasses.dataclass(frozen=True)
class Found:
    """The best of a search: its tuner, what it trained, and all that was tried."""

    tuner: Tuner
    outcome: Outcome
    result: SearchResult
    notes: tuple[str, ...] = ()


def search(context: StageContext) -> Trained:
    """The best of several trainings of one candidate with one tuner, told apart by their options.

    Options: those of the stage "train", and trials, fields, bounds, soup. The option budget bounds all trials together.
    Strategies: source, tuner.
    """
    from tlcore.stages.train import finish, judge_of, prepare, train_one
    from tlcore.stages.validation import validated_by

    started = time.monotonic()
    material = prepare(context)

    def train(
        tuner: Tuner,
        scratch: Path,
        *,
        budget: float | None = None,
        after_epoch: Callable[[Epoch], None] | None = None,
    ) -> Outcome:
        return train_one(context, material, tuner, scratch, budget=budget, after_epoch=after_epoch)

    found = find(context, train, lambda tuner: judge_of(context, material, tuner))
    earlier = found.result.seconds
    trained = finish(context, material, found.tuner, found.outcome)
    crossed = validated_by(context, material) == "cross-validation"
    unpruned = ("by cross-validation every trial is trained to its end: none is pruned",) if crossed else ()
    checkpoint = trained.checkpoint.model_copy(
        update={"notes": (*trained.checkpoint.notes, *found.notes, *unpruned)}
    )
    return trained.model_copy(
        update={
            "checkpoint": checkpoint,
            "seconds": round(max(earlier, time.monotonic() - started), 3),
            "search": found.result,
        }
    )


def find(context: StageContext, train: TrainOne, judge_of: Callable[[Tuner], Judge | None]) -> Found:
    """Search, then look whether a soup of the best trials is better than the best one.

    judge_of: how weights that a tuner trained are measured on validation; None where all labelled images were trained
    on (cross-validation), so that nothing honest can be said of averaged weights.
    """
    options = context.job.options
    configured = cast(Tuner, context.build("tuner"))
    space = search_space(configured, options.get("fields", ()), options.get("bounds", {}))
    job = SearchJob(
        configured={one.name: getattr(configured, one.name) for one in space},
        space=space,
        trials=context.option("trials"),
        train=lambda given, folder, left, look: _scored(
            train(_tuner(context, given), folder, budget=left, after_epoch=look)
        ),
        scratch=context.work.scratch,
        seed=context.job.seed,
        budget=options.get("budget"),
        keep=MEMBERS if options.get("soup") else 1,
        processes=launched(),
        progress=context.progress,
    )
    trials, reason = run_search(job)
    ranked = best_first(trials)
    best = ranked[0]
    tuner = _tuner(context, best.options)
    outcome = train(tuner, job.folder(best.number))
    result = SearchResult(
        candidate=context.option("candidate")["name"],
        strategy=configured.card.name,
        space={one.name: str(one) for one in space},
        trials=trials,
        best=best.number,
        wanted=job.trials,
        budget=job.budget,
        reason=reason,
    )
    found = Found(tuner, outcome, result)
    return (
        _with_soup(context, job, found, ranked[: job.keep], train, judge_of) if options.get("soup") else found
    )


def _with_soup(
    context: StageContext, job: SearchJob, found: Found, ranked: Sequence[SearchTrial], train: TrainOne,
    judge_of: Callable[[Tuner], Judge | None],
) -> Found:  # fmt: skip
    if len(ranked) < 2:
        return dataclasses.replace(found, notes=("no soup: only one trial was finished",))
    judge = judge_of(found.tuner)
    if judge is None:
        note = "no soup: by cross-validation no image is left that averaged weights could be validated on"
        return dataclasses.replace(found, notes=(note,))
    options = {trial.number: trial.options for trial in ranked}

    def load(number: int) -> State:
        context.progress(0, 0, f"soup: trial {number + 1}")
        if number == found.result.best:
            return found.outcome.state
        return train(_tuner(context, options[number]), job.folder(number)).state

    def agreed(state: State) -> tuple[float, ...]:
        return tuple(job.processes.agree_on(value) for value in judge(state))

    soup = greedy_soup([trial.number for trial in ranked], load, agreed)
    kept = len(soup.members) > 1 and soup.measured >= soup.single
    result = found.result.model_copy(
        update={
            "soup": SoupResult(
                members=soup.members, offered=tuple(options), validation=soup.measured[0],
                single=soup.single[0], kept=kept,
            )
        }
    )  # fmt: skip
    outcome = found.outcome
    if kept:
        names = list(outcome.measures)
        measures = {**outcome.measures, **_named(names, soup.measured)}
        outcome = dataclasses.replace(
            outcome, state=dict(soup.state), validation=soup.measured[0], measures=measures
        )
    notes = (f"soup of trials {', '.join(map(str, soup.members))}",) if kept else ()
    return dataclasses.replace(found, outcome=outcome, result=result, notes=notes)


def _named(names: Sequence[str], measured: Sequence[float]) -> dict[str, float]:
    """A choice is (what is larger when better, minus what is smaller when better), in the order of the measures."""
    return {
        name: value if place == 0 else -value
        for place, (name, value) in enumerate(zip(names, measured, strict=False))
    }


def _tuner(context: StageContext, options: Mapping[str, Json]) -> Tuner:
    choice = context.job.strategies["tuner"]
    where = f"stage {context.job.label}"
    return cast(
        Tuner, context.registry.build(choice.kind, choice.name, {**choice.options, **options}, where=where)
    )


def _scored(outcome: Outcome) -> Scored:
    """Validation, and the second measure, which decides between equals: a loss, or the mean error of numbers."""
    losses = [value for value in list(outcome.measures.values())[1:2] if math.isfinite(value)]
    return Scored(outcome.validation, losses[0] if losses else None)
