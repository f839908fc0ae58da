"""Successive halving: short fine-tunes decide between candidates that scores cannot tell apart.

    done: tuple[Rung, ...] = ()
    while isinstance(step := next_step(shortlist, done, budget=60, expected=seconds), Attempt):
        done += (short_fine_tune(step),)
    trial = conclude(shortlist, done, step, strategy="lp-ft", budget=60)

All still in the race are trained for a few epochs, the better half (`standing`) is trained anew for twice as many, and
so on until one is left (Karnin, Koren & Somekh 2013; Jamieson & Talwalkar 2016, "Non-stochastic Best Arm
Identification and Hyperparameter Optimization", section 3). Every step is a function of what is already
finished: a run that was killed, and one that finds everything in the store, decide the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tlcore.values import Halving, Rung

__all__ = [
    "FIRST_EPOCHS", "TRAINING_PASSES", "Attempt", "Shortfall", "Stop", "achieved_in_trial", "conclude", "from_trial",
    "next_step", "rank_regret", "seconds_of_epochs", "standing",
]  # fmt: skip

_IN_TRIAL = "in the trial"

FIRST_EPOCHS = 1
"""Epochs of the first rung; each next one has twice as many."""

TRAINING_PASSES = 10.0
"""What a training of one epoch costs, in forward passes over the training images at the rate of the features. Three
would be the arithmetic of a step alone (the backward pass costs twice the forward one: Kaplan et al. 2020, section
2.1). Measured in processor seconds: 9.6 for mobilenetv1_100 and 12.8 for mobilenetv2_100 (lp-ft on 195 images at 224
px): features come from a folded network, depthwise convolutions are slow backwards, and there are the probe and the
looks at validation and test images. Of the trial it decides about the first training alone: later forecasts follow what
that took."""


def achieved_in_trial(measure: str) -> str:
    """What stands beside the scores after a trial (`Ranking.achieved_measure`): that of each candidate's last rung.

    measure: what networks are compared by, as in "accuracy".
    """
    return f"validation {measure} {_IN_TRIAL}"


def from_trial(achieved_measure: str) -> bool:
    """Whether a ranking's `achieved_measure` says that a trial found it."""
    return achieved_measure.endswith(_IN_TRIAL)


@dataclass(frozen=True)
class Attempt:
    """The next short fine-tune."""

    candidate: str
    rung: int
    epochs: int


@dataclass(frozen=True)
class Stop:
    """The trial is over. `untried`: those that the budget left out of the first rung."""

    winner: str
    reason: str
    untried: tuple[str, ...] = ()


def seconds_of_epochs(epochs: int, images: int, images_per_second: float) -> float:
    """Foretold seconds of a training from the measured rate of the forward pass (`TRAINING_PASSES`).

    images: of the training split. images_per_second: as measured when the features were made.
    """
    return TRAINING_PASSES * epochs * images / max(images_per_second, 1e-9)


def standing(shortlist: Sequence[str], results: Sequence[Rung]) -> tuple[str, ...]:
    """Candidates of one rung from best to worst, those that failed left out.

    First those whose validation accuracy is within one standard error of the best one, in the order of
    `shortlist`: a few validation images must not overrule what all the training images say (the
    one-standard-error rule of Breiman et al. 1984, Classification and Regression Trees). Then the others by
    accuracy, validation loss, and place. The standard error is that of a difference of two proportions p on n
    images, sqrt((p_1 (1 - p_1) + p_2 (1 - p_2)) / n), with p = (right + 1) / (n + 2), so that it is no 0 where
    all are right. Without n (`Rung.images`) nothing is within it.
    """
    place = {name: index for index, name in enumerate(shortlist)}
    finished = [rung for rung in results if rung.validation is not None]
    finished.sort(key=lambda r: (-(r.validation or 0.0), _loss(r), place[r.candidate]))
    level = [one for one in finished if _within_error(finished[0], one)]
    level.sort(key=lambda one: place[one.candidate])
    return tuple(one.candidate for one in (*level, *(one for one in finished if one not in level)))


def next_step(
    shortlist: Sequence[str], done: Sequence[Rung], *, budget: float, expected: Mapping[str, float]
) -> Attempt | Stop:
    """What comes after `done`.

    In the first rung the next is the best by rank of those that are foretold to take no more than what is left of the
    budget; one that does not fit is passed over. The forecasts are scaled by how the trainings so far turned out, so
    that one that was passed over may fit after all. Where a single training finished, nothing is compared, and the
    best by rank of those that did not fail wins. A later rung is begun only if it fits as a whole,
    by the seconds of the rung before times the ratio of their epochs (which is rather too much: what a training
    costs besides its epochs is counted twice as well). A training that failed drops out, and costs nothing here; it
    wins only where all failed.

    Args:
        shortlist: the candidates, the best by rank first; at least one.
        done: all fine-tunes so far, in the order they were asked for.
        budget: seconds that all of them may take together, by `Rung.seconds`.
        expected: foretold seconds of the first rung by candidate.

    Raises:
        ValueError: an empty shortlist.
    """
    if not shortlist:
        raise ValueError("a trial needs a candidate")
    if len(shortlist) == 1:
        return Stop(shortlist[0], "the scores leave one candidate, and it needs no trial")
    alive, best, rung = tuple(shortlist), shortlist[0], 1
    while True:
        results = [one for one in done if one.rung == rung]
        left = budget - sum(one.seconds for one in done)
        epochs = FIRST_EPOCHS * 2 ** (rung - 1)
        tried = {one.candidate for one in results}
        untried = tuple(name for name in alive if name not in tried)
        if rung == 1 and untried and not any(one.rung > 1 for one in done):
            scale = _scale(results, expected)
            fitting = next((name for name in untried if expected[name] * scale <= left), None)
            if fitting is not None:
                return Attempt(fitting, rung, epochs)
            if not standing(shortlist, results):
                shortest = min(expected[name] for name in untried) * scale
                return Stop(untried[0], _over(budget, "the shortest training", shortest, left), untried)
        elif rung > 1 and untried:
            before = {one.candidate: one.seconds / one.epochs for one in done if one.rung == rung - 1}
            cost = epochs * sum(before[name] for name in alive)
            if results or cost <= left:
                return Attempt(untried[0], rung, epochs)
            reason = _over(budget, f"rung {rung}", cost, left) + _overruled(best, done)
            return Stop(best, reason, _untried(shortlist, done))
        order = standing(shortlist, results)
        if not order:
            earlier = standing(shortlist, [one for one in done if one.rung == rung - 1])
            best = _unfailed(earlier or shortlist, done)
            why = (
                "the order before them counts"
                if best in tried
                else "the best of those that failed none goes on"
            )
            which = f"all trainings of rung {rung}" if rung > 1 else "all trainings"
            return Stop(best, f"{which} failed; {why}", _untried(shortlist, done))
        best = order[0]
        alive = order[: math.ceil(len(order) / 2)]
        if len(order) == 1 and rung == 1:
            # One accuracy compares nothing: the place by rank decides between those that did not fail.
            best = _unfailed(shortlist, results)
        if len(alive) == 1:
            reason = _ended(shortlist, results, order) + _overruled(best, done)
            return Stop(best, reason, _untried(shortlist, done))
        rung += 1


def conclude(
    shortlist: Sequence[str], done: Sequence[Rung], stop: Stop, *, strategy: str, budget: float
) -> Halving:
    """The trial as it is shown: every fine-tune, with the mark of those that went on or were chosen."""
    last = max((one.rung for one in done), default=0)
    on = {(one.candidate, one.rung - 1) for one in done} | {(stop.winner, last)}
    marked = tuple(
        one.model_copy(update={"survived": one.validation is not None and (one.candidate, one.rung) in on})
        for one in done
    )
    return Halving(
        strategy=strategy, budget_seconds=budget, shortlist=tuple(shortlist), rungs=marked, winner=stop.winner,
        reason=stop.reason,
    )  # fmt: skip


@dataclass(frozen=True)
class Shortfall:
    """By how much validation accuracy (`regret`, 0 … 1) the first by rank fell short of `best`."""

    best: str
    regret: float


def rank_regret(trial: Halving) -> Shortfall | None:
    """What the first by rank lacked against the candidate that beat it by most.

    Two are compared in the last rung that both finished, where they were trained for as many epochs. It may have won
    all the same: within one standard error the rank decides, and another may have failed later. None where it
    finished no training, or nobody else did.
    """
    first = trial.shortlist[0]
    found = [
        Shortfall(name, _ahead(*met))
        for name in trial.shortlist[1:]
        if (met := _last_shared(trial.rungs, first, name)) is not None
    ]
    if not found:
        return None
    worst = max(found, key=lambda one: one.regret)
    return worst if worst.regret > 0 else Shortfall(first, 0.0)


def _last_shared(done: Sequence[Rung], one: str, other: str) -> tuple[Rung, Rung] | None:
    """What both did in the last rung that both finished; None where there is none."""
    of_one, of_other = (
        {rung.rung: rung for rung in done if rung.candidate == name and rung.validation is not None}
        for name in (one, other)
    )
    shared = of_one.keys() & of_other.keys()
    return (of_one[max(shared)], of_other[max(shared)]) if shared else None


def _ahead(one: Rung, other: Rung) -> float:
    """By how much the other was more accurate."""
    return (other.validation or 0.0) - (one.validation or 0.0)


def _within_error(best: Rung, other: Rung) -> bool:
    if best is other:
        return True
    variance = 0.0
    for accuracy, images in ((best.validation, best.images), (other.validation, other.images)):
        if not images:
            return False
        share = ((accuracy or 0.0) * images + 1) / (images + 2)
        variance += share * (1 - share) / images
    return (best.validation or 0.0) - (other.validation or 0.0) <= math.sqrt(variance)


def _loss(rung: Rung) -> float:
    return math.inf if rung.loss is None or math.isnan(rung.loss) else rung.loss


def _scale(results: Sequence[Rung], expected: Mapping[str, float]) -> float:
    """Measured seconds over foretold ones of the finished trainings; 1 before the first."""
    finished = [one for one in results if one.validation is not None]
    foretold = sum(expected[one.candidate] for one in finished)
    return sum(one.seconds for one in finished) / foretold if foretold > 0 else 1.0


def _untried(shortlist: Sequence[str], done: Sequence[Rung]) -> tuple[str, ...]:
    tried = {one.candidate for one in done}
    return tuple(name for name in shortlist if name not in tried)


def _over(budget: float, what: str, cost: float, left: float) -> str:
    return f"{what} would take about {cost:,.0f} s and {max(left, 0):,.0f} s of the budget of {budget:g} s were left"


def _unfailed(order: Sequence[str], done: Sequence[Rung]) -> str:
    """The first that failed no training, else the first."""
    failed = {one.candidate for one in done if one.validation is None}
    return next((name for name in order if name not in failed), order[0])


def _overruled(winner: str, done: Sequence[Rung]) -> str:
    """ "; NAME …" for each that failed no training and was more accurate than the winner when they last met."""
    failed = {one.candidate for one in done if one.validation is None}
    said = []
    for name in dict.fromkeys(one.candidate for one in done):
        met = _last_shared(done, winner, name)
        if name in failed or met is None or _ahead(*met) <= 0:
            continue
        said.append(f"{name} was {100 * _ahead(*met):.1f} points more accurate on {met[0].images} images")
    return f"; {', '.join(said)}, within one standard error, so the rank decides" if said else ""


def _ended(shortlist: Sequence[str], results: Sequence[Rung], order: Sequence[str]) -> str:
    if len(order) > 1:
        return "one candidate was left"
    if results[0].rung > 1:
        return f"all others failed in rung {results[0].rung}"
    if len(results) == len(shortlist):
        return "all others failed"
    return f"one training of {len(shortlist)} finished within the budget, so nothing was compared: the rank decides"
