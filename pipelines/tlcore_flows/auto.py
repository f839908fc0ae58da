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
    why = "; ".join(filter(None, (tuner.reason(task), _facts(run, task))))
    text = f"{choice.name} → {picked.name} on {name} ({why})"
    if text not in run.decisions:
        run.decisions.append(text)
    return picked


def train_task(run: Wiring, base: RankedModels, name: str) -> TrainTask:
    """What is known of a training before it begins: `budget` is what one pass over all images may count on, as
    cross-validation trains on each image once for every part."""
    report, candidate = base.checked.report, base.candidates[name]
    places = [
        place for place in report.counts if place.endswith("/train") and not place.startswith(f"{TARGET}/")
    ]
    counts = tuple(sum(report.counts[place].get(one, 0) for place in places) for one in report.classes)
    features, budget = run.store.read(base.features[name], FeatureFiles), run.config.finetune.budget
    return TrainTask(
        classes=report.classes,
        feature_dim=features.dim,
        source_train=report.source_images("train"),
        seed=run.config.seed,
        gmacs=candidate.gmacs,
        task=base.checked.task,
        counts=() if base.checked.task == "regression" else counts,
        budget=budget / _trainings(run, report) if budget is not None else None,
        images_per_second=features.images_per_second,
    )


def _trainings(run: Wiring, report: DataReport) -> int:
    """How many times each labelled image is trained on: with so few that all are validated on in turn, once a part."""
    finetune = run.config.finetune
    few = report.source_images("train") + report.source_images("val") <= FEW
    crossed = few if finetune.validation == "auto" else finetune.validation == "cross-validation"
    return finetune.folds if crossed else 1


def _facts(run: Wiring, task: TrainTask) -> str:
    if task.task == "classification":
        facts = f"{task.images_per_class:.3g} training images a class"
    else:
        facts = f"{task.source_train:,} training images"
    budget = run.config.finetune.budget
    return facts + (f", a budget of {budget:g} s" if budget is not None else "")
