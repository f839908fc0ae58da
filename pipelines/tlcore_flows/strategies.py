"""Every strategy that a configuration names, checked before anything is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from tlcore.config import ListingConfig, RunConfig, StrategyChoice
from tlcore.errors import UnknownName, UserError
from tlcore.evaluation.panel import Panel
from tlcore.protocols import Adapter, Strategy, TrainTask, Tuner, Validator
from tlcore.registry import Registry
from tlcore.training.plan import Phase, TrainPlan
from tlcore.training.space import check_names
from tlcore_flows.needs import TEXT, named_tuners

__all__ = ["check", "check_listing", "chosen"]

PLACES = {"image-folder": "path", "manifest": "path", "local": "spec"}
"""Strategies of plain paths and specs (`tlcore.config.data_choice`, `model_choice`) and the option that holds it."""


def chosen(config: RunConfig) -> Iterator[tuple[str, str, StrategyChoice]]:
    """(where it stands, kind, choice) of every strategy that this run would use, or may use."""
    yield "data.source", "data-source", config.data.source
    if config.data.target is not None:
        yield "data.target", "data-source", config.data.target
    yield "data.check", "data-check", config.data.check
    for model in config.models:
        yield "models", "model-source", model
    for scorer in config.selection.scorers:
        yield "selection.scorers", "scorer", scorer
    for tuner in config.finetune.strategies:
        yield "finetune.try", "tuner", tuner
    if may_have_target(config):
        for adapter in config.adapt.strategies:
            yield "adapt.try", "adapter", adapter
        for choice in config.adapt.validators:
            yield "adapt.validators", "validator", choice
    yield "evaluation.scratch", "tuner", config.evaluation.scratch
    yield "export.exporter", "exporter", config.export.exporter


def may_have_target(config: RunConfig) -> bool:
    """Target images were named, or may stand in the source's table; a folder by itself has none."""
    return config.data.target is not None or config.data.source.name != "image-folder"


def check(config: RunConfig, registry: Registry, *, command: str = "run") -> None:
    """Build every strategy of the configuration once, look whether plain paths exist, and read the result table.

    Args:
        command: of tlcore, whose help errors name.

    Raises:
        UserError: an unknown strategy, a wrong option (with the nearest name), options that an adapter or
            a tuner cannot have together, an augmentation that timm does not know, a tuner that reads class names without a
            model that does, a validator named twice, options that cannot be searched, a strategy without the
            teacher that it needs, a path that is not there, or a table that cannot be read.
        PluginError: a strategy that is broken, offered twice, or written for another hook API.
    """
    built = [_check_choice(registry, where, kind, choice, command) for where, kind, choice in chosen(config)]
    for strategy in built:
        if isinstance(strategy, Adapter):
            _check_plan(strategy, "adapt.try")
    Panel([strategy for strategy in built if isinstance(strategy, Validator)])
    _check_training(config, registry)
    if config.selection.results:
        from tlcore.models.results import read_results

        read_results(Path(config.selection.results).expanduser())


def _check_training(config: RunConfig, registry: Registry) -> None:
    """Whether what is to be searched can be, and whether a strategy that needs a teacher will have one."""
    finetune = config.finetune
    tuners = [registry.build("tuner", choice.name, choice.options) for choice in finetune.strategies]
    taught = [tuner.card.name for tuner in tuners if "teacher" in tuner.card.traits]
    if len(taught) == len(tuners):
        raise UserError(
            f"{', '.join(taught)} learns from a teacher, and no other strategy is there to train one",
            where="finetune.try",
            hint=f"name one: --tuner lp-ft --tuner {taught[0]}",
        )
    if taught and finetune.validation == "cross-validation":
        raise UserError(
            f"{taught[0]} learns from a network that has seen the label of every training image: cross-validation would "
            "flatter it",
            where="finetune.validation",
            hint="--validate-by held-out",
        )
    _check_text(config, registry)
    elsewhere = {"evaluation.scratch": config.evaluation.scratch}
    if config.selection.verify:
        elsewhere["selection.verify_with"] = config.selection.verify_with
    for where, choice in elsewhere.items():
        if "teacher" in registry.load("tuner", choice.name).card.traits:
            raise UserError(f"{choice.name} learns from a teacher, and there is none here", where=where)
    named = [("finetune.try", choice) for choice in finetune.strategies] + list(elsewhere.items())
    for where, choice in named:
        _check_tuner(registry.build("tuner", choice.name, choice.options, where=where), where)
    if finetune.search.trials >= 2:
        # which it will be is known when labels are counted
        choosing = [cast(Tuner, tuner) for tuner in tuners if cast(Tuner, tuner).chooses()]
        names = {name for one in choosing for name in one.choices() or registry.names("tuner")}
        possible = [registry.build("tuner", name) for name in sorted(names)]
        own = [tuner for tuner in tuners if tuner not in choosing]
        check_names(own, finetune.search.fields, finetune.search.bounds, possible)


def _check_text(config: RunConfig, registry: Registry) -> None:
    """A tuner that reads class names has a model with a text tower to read them."""
    if any(TEXT in registry.load("model-source", choice.name).card.traits for choice in config.models):
        return
    for where, choice in named_tuners(config):
        if TEXT in registry.load("tuner", choice.name).card.traits:
            raise UserError(
                f"{choice.name} reads class names, and no model that is named has a text tower",
                where=where,
                hint="--models open-clip:FOLDER, or a tuner that reads no text: --tuner linear-probe",
            )


def _check_tuner(tuner: Strategy, where: str) -> None:
    """As for an adapter; and timm reads the policy of RandAugment. A tuner that reads class names waits for them."""
    if TEXT in tuner.card.traits:
        return
    plan = _check_plan(cast(Tuner, tuner), where)
    phases = [phase for phase in (plan.phases if plan else ()) if isinstance(phase, Phase)]
    for policy in {phase.randaugment for phase in phases if phase.randaugment is not None}:
        import numpy as np

        from tlcore.training.mixing import randomly_augmented  # takes seconds

        try:
            randomly_augmented(np.zeros((1, 32, 32, 3), np.uint8), policy, 0)
        except UserError as error:
            raise UserError(error.what, where=f"{where}, {tuner.card.name}", hint=error.hint) from None


def _check_plan(strategy: Adapter | Tuner, place: str) -> TrainPlan | None:
    """Options that contradict each other show when a plan is made; it costs nothing."""
    target = 100 if isinstance(strategy, Adapter) else 0
    task = TrainTask(
        ("a", "b"), feature_dim=8, source_train=100, target_train=target, seed=0, counts=(50, 50)
    )
    try:
        return strategy.plan(task)
    except UserError as error:
        where = error.where or f"{place}, {strategy.card.name}"
        raise UserError(error.what, where=where, choices=error.choices, hint=error.hint) from None
    except Exception:  # noqa: BLE001 - told, with its name, by the stage that meets it
        return None


def check_listing(config: ListingConfig, registry: Registry, *, command: str = "models") -> None:
    """As `check`, of the model sources; a listing reads its result table first thing.

    Raises:
        UserError, PluginError: as `check`.
    """
    for choice in config.models:
        _check_choice(registry, "models", "model-source", choice, command)


def _check_choice(
    registry: Registry, where: str, kind: str, choice: StrategyChoice, command: str
) -> Strategy:
    strategy = registry.build(kind, choice.name, choice.options, where=where)
    option = PLACES.get(choice.name)
    if option is not None and kind in ("data-source", "model-source"):
        _check_place(str(choice.options.get(option, "")), where, command)
    return strategy


def _check_place(text: str, where: str, command: str) -> None:
    path = Path(text).expanduser()
    if not text or path.exists() or "://" in text:
        return
    parent = path.parent
    if parent.is_dir():
        siblings = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
        error = UnknownName("file or folder", path.name, siblings[:20], where=f"{where} in {parent}")
        raise error
    raise UserError("no such file or folder", where=str(path), hint=f"tlcore {command} --help")
