"""The trial between shortlisted candidates, as train stages: the schedule is in `tlcore.selection.halving`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from tlcore.config import StrategyChoice
from tlcore.errors import UserError
from tlcore.protocols import Tuner
from tlcore.selection.halving import FIRST_EPOCHS, Attempt, conclude, next_step, seconds_of_epochs
from tlcore.stages.values import FeatureFiles, Trained
from tlcore.values import Halving, Rung, Split
from tlcore_flows.needs import lacks, needs_teacher
from tlcore_flows.opened import open_registry
from tlcore_flows.wiring import Wiring

if TYPE_CHECKING:
    from tlcore_flows.rank import RankedModels

__all__ = ["Train", "hold_trial", "trial_strategy"]

Train = Callable[[str, StrategyChoice, str], Trained | None]
"""(candidate, strategy, subject of the stage) -> the trained network; None where the training failed by itself."""


def hold_trial(run: Wiring, base: RankedModels, shortlist: Sequence[str], train: Train) -> Halving:
    """Short fine-tunes of `shortlist` (best first) by successive halving, within `selection.trial_seconds`.

    Each is a train stage of its own: found again in the store, taken up where it was killed. What counts against
    the budget are the seconds that the trainings took when they were computed, so that a second run decides as
    the first did. A training that fails becomes a warning and its candidate drops out.
    """
    budget, strategy = run.config.selection.trial_seconds, trial_strategy(run, base, shortlist)
    expected = _expected(run, base, shortlist)
    # What "validation accuracy" is measured on: without validation images, the training images.
    images: int | None = _images(base, "val") or _images(base, "train")
    if base.checked.task != "classification":
        images = None  # the standard error of a share is none of theirs
    done: tuple[Rung, ...] = ()
    while isinstance(step := next_step(shortlist, done, budget=budget, expected=expected), Attempt):
        choice = strategy.model_copy(update={"options": {**strategy.options, "epochs": step.epochs}})
        trained = train(step.candidate, choice, f"{step.candidate}-trial-{step.rung}")
        done += (_rung(step, trained, run, images),)
    if step.untried:
        left_out = ", ".join(step.untried)
        run.warnings.append(
            f"the trial left out {left_out}: no time for it in the {budget:g} s; more time with --trial-seconds"
        )
    return conclude(shortlist, done, step, strategy=strategy.name, budget=budget)


def trial_strategy(run: Wiring, base: RankedModels, shortlist: Sequence[str]) -> StrategyChoice:
    """What the trial trains with: the first strategy of finetune.try that can be told to take one epoch, else lp-ft.

    So the short fine-tunes are made in the way in which the winner will be trained, with the same options. None is taken
    that chooses another one (few epochs say more from a probe, and lp-ft is what trials were measured with), that needs
    a teacher, or what one of the shortlist lacks.
    """
    registry = open_registry(run.store.root)
    for choice in run.config.finetune.strategies:
        kind = cast(type[Tuner], registry.load("tuner", choice.name))
        if kind.chooses() or needs_teacher(registry, choice):
            continue
        if any(lacks(registry, choice, base.candidates[name]) for name in shortlist):
            continue
        try:
            registry.build("tuner", choice.name, {**choice.options, "epochs": FIRST_EPOCHS})
        except UserError:
            continue  # it has no such option (a probe in closed form), or asks for more epochs
        return choice
    return StrategyChoice(name="lp-ft")


def _expected(run: Wiring, base: RankedModels, shortlist: Sequence[str]) -> dict[str, float]:
    images = _images(base, "train")
    rates = {n: run.store.read(base.features[n], FeatureFiles).images_per_second for n in shortlist}
    return {name: seconds_of_epochs(FIRST_EPOCHS, images, rate) for name, rate in rates.items()}


def _images(base: RankedModels, split: Split) -> int:
    """Labelled source images of a split."""
    return base.checked.report.source_images(split)


def _rung(step: Attempt, trained: Trained | None, run: Wiring, images: int | None) -> Rung:
    made = Rung(candidate=step.candidate, rung=step.rung, epochs=step.epochs, images=images)
    if trained is None:
        return made.model_copy(update={"failed": run.warnings[-1]})
    # A training that was killed and taken up again says how long its last part took; its epochs know more.
    epochs = sum(line.seconds for line in trained.checkpoint.history)
    return made.model_copy(
        update={
            "validation": trained.validation,
            "validation_ci": trained.validation_ci,
            "loss": trained.checkpoint.measures.get("validation_loss"),
            "seconds": round(max(trained.seconds, epochs), 3),
        }
    )
