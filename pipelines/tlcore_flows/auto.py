"""Strategies that choose another one by the data: asked before anything is trained."""

from __future__ import annotations

from typing import cast

from tlcore.config import StrategyChoice
from tlcore.protocols import TrainTask, Tuner
from tlcore.stages.validation import in_turn
from tlcore.stages.values import FeatureFiles
from tlcore.values import TARGET
from tlcore_flows.needs import teaching
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
    """What is known of a training before it begins. Images that validate in turn are all trained on, once a fold."""
    report, candidate, crossed = base.checked.report, base.candidates[name], _crossed(run, base)
    splits = ("train", "val") if crossed else ("train",)
    places = [
        place
        for place in report.counts
        if place.rpartition("/")[2] in splits and not place.startswith(f"{TARGET}/")
    ]
    counts = tuple(sum(report.counts[place].get(one, 0) for place in places) for one in report.classes)
    features = run.store.read(base.features[name], FeatureFiles)
    return TrainTask(
        classes=report.classes,
        feature_dim=features.dim,
        source_train=sum(report.source_images(split) for split in splits),
        seed=run.config.seed,
        gmacs=candidate.gmacs,
        task=base.checked.task,
        counts=() if base.checked.task == "regression" else counts,
        budget=run.config.finetune.budget,
        images_per_second=features.images_per_second,
        trainings=run.config.finetune.folds if crossed else 1,
    )


def _crossed(run: Wiring, base: RankedModels) -> bool:
    """Whether the images will validate in turn."""
    checked = base.checked
    if teaching(open_registry(run.store.root), run.config):
        return False  # `training_options`
    images = checked.report.source_images("train") + checked.report.source_images("val")
    return in_turn(run.config.finetune.validation, images, checked.given_splits, checked.has_target)


def _facts(task: TrainTask) -> str:
    if task.task == "classification":
        facts = f"{task.images_per_class:.3g} training images a class"
    else:
        facts = f"{task.source_train:,} training images"
    return facts + (f", a budget of {task.budget:g} s" if task.budget is not None else "")
