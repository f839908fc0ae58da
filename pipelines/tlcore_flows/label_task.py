"""What a run must not ask for where labels are numbers or tags; said as soon as the data are known."""

from __future__ import annotations

from typing import cast

from tlcore.config import FinetuneConfig, RunConfig, StrategyChoice
from tlcore.errors import UserError
from tlcore.protocols import Tuner
from tlcore.registry import Registry
from tlcore.stages.values import CheckedData
from tlcore.values import Task

__all__ = ["probe_of", "refuse_unsound", "suited"]

_KIND: dict[Task, str] = {"classification": "classes", "regression": "numbers", "multi-label": "tags"}


def probe_of(task: Task) -> str:
    """The strategy that fits a linear head to frozen features for such labels."""
    return "linear-probe" if task == "classification" else "ridge"


def suited(config: RunConfig, task: Task) -> RunConfig:
    """The configuration with the strategies that are tried by default fitted to the labels: a frozen probe of numbers
    and tags is a ridge regression. What somebody named stays."""
    default = FinetuneConfig().strategies
    if task == "classification" or config.finetune.strategies != default:
        return config
    own = tuple(StrategyChoice(name=probe_of(task)) if one.name == "linear-probe" else one for one in default)
    return config.model_copy(update={"finetune": config.finetune.model_copy(update={"strategies": own})})


def refuse_unsound(config: RunConfig, registry: Registry, data: CheckedData) -> None:
    """Nothing for classes. For numbers and tags adapters and tuners that are for classes alone are refused.

    Raises:
        UserError: target images with adapters to try, or a tuner whose card does not promise such labels.
    """
    if data.task == "classification":
        return
    config = suited(config, data.task)
    kind = _KIND[data.task]
    if data.has_target and config.adapt.strategies:
        raise UserError(
            f"adapters are for classes, and these labels are {kind}",
            where="adapt.try",
            hint="train and test without adaptation: --adapt none",
        )
    wanted = [("finetune.try", choice) for choice in config.finetune.strategies]
    wanted.append(("evaluation.scratch", config.evaluation.scratch))
    if config.selection.verify:
        wanted.append(("selection.verify_with", config.selection.verify_with))
    for where, choice in wanted:
        tuner = cast(Tuner, registry.build("tuner", choice.name, choice.options, where=where))
        if data.task not in tuner.card.traits and not tuner.chooses():
            able = sorted(name for name in registry.names("tuner") if data.task in _traits(registry, name))
            raise UserError(
                f"{choice.name} is for classes, and these labels are {kind}",
                where=where,
                choices=able,
                hint="take one of them: --tuner ridge --tuner lp-ft",
            )


def _traits(registry: Registry, name: str) -> frozenset[str]:
    return cast(type[Tuner], registry.load("tuner", name)).card.traits
