"""Strategies that choose another one by the data: asked before anything is trained."""

from __future__ import annotations

from typing import cast

from tlcore.config import StrategyChoice
from tlcore.protocols import TrainTask, Tuner
from tlcore.stages.values import FeatureFiles
from tlcore.training.folds import FEW
from tlcore.values import TARGET, DataReport
from tlcore_flows.opened import open_registry
from tlcore_flows.rank import RankedModels
from tlcore_flows.wiring import Wiring

__all__ = ["resolved", "train_task"]


def resolved(run: Wiring, base: RankedModels, name: str, choice: StrategyChoice) -> StrategyChoice:
    """The strategy that trains candidate `name`: this one, or the one that it chooses, with the reason among the
    run's decisions."""
    registry = open_registry(run.store.root)
    if not cast(type[Tuner], registry.load("tuner", choice.name)).chooses():
        return choice
    tuner = cast(Tuner, registry.build("tuner", choice.name, choice.options, where="finetune.try"))
    task = train_task(run, base, name)
    chosen = tuner.choose(task)
    if chosen is None:
        return choice
    picked = StrategyChoice(name=chosen[0], options=chosen[1])
    why = "; ".join(filter(None, (tuner.reason(task), _facts(task))))
    text = f"{choice.name} → {picked.name} on {name} ({why})"
    if text not in run.decisions:
        run.decisions.append(text)
    return picked


def train_task(run: Wiring, base: RankedModels, name: str) -> TrainTask:
    """What is known of a training before it begins."""
    report, candidate = base.checked.report, base.candidates[name]
    places = [
        place for place in report.counts if place.endswith("/train") and not place.startswith(f"{TARGET}/")
    ]
    counts = tuple(sum(report.counts[place].get(one, 0) for place in places) for one in report.classes)
    features = run.store.read(base.features[name], FeatureFiles)
    return TrainTask(
        classes=report.classes,
        feature_dim=features.dim,
        source_train=report.source_images("train"),
        seed=run.config.seed,
        gmacs=candidate.gmacs,
        task=base.checked.task,
        counts=() if base.checked.task == "regression" else counts,
        budget=run.config.finetune.budget,
        images_per_second=features.images_per_second,
        trainings=_trainings(run, report),
    )


def _trainings(run: Wiring, report: DataReport) -> int:
    """In how many trainings each labelled image takes part: with so few that all validate in turn, in all folds but its
    own, and in the last one on all."""
    finetune = run.config.finetune
    few = report.source_images("train") + report.source_images("val") <= FEW
    crossed = few if finetune.validation == "auto" else finetune.validation == "cross-validation"
    return finetune.folds if crossed else 1


def _facts(task: TrainTask) -> str:
    if task.task == "classification":
        facts = f"{task.images_per_class:.3g} training images a class"
    else:
        facts = f"{task.source_train:,} training images"
    return facts + (f", a budget of {task.budget:g} s" if task.budget is not None else "")
