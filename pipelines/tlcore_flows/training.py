"""Which trainings a run asks for, as train and search stages: wiring only.

Strategies that need no teacher come first, on every finalist; those that need one are then taught by the best
network of another candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from tlcore.config import FinetuneConfig, StrategyChoice
from tlcore.errors import GateError, PluginError
from tlcore.protocols import Tuner
from tlcore.stages.base import Choice
from tlcore.stages.choice import best_trained
from tlcore.stages.values import Trained
from tlcore.training.space import search_space
from tlcore.values import Candidate, Json, Ref
from tlcore_flows.auto import resolved
from tlcore_flows.needs import lacks, needs_teacher, teaching
from tlcore_flows.opened import open_registry
from tlcore_flows.rank import RankedModels
from tlcore_flows.wiring import Wiring, as_choice, source_of

__all__ = ["Base", "Model", "placed", "train", "train_all", "training_options", "try_train"]

FOLDS = FinetuneConfig.model_fields["folds"].default


@dataclass(frozen=True)
class Base(RankedModels):
    """The ranked models, and the exact pixels of those that go on, by candidate name.

    embedded: the untouched backbone's features of all rows, as soon as a training has asked for them.
    """

    pixels: dict[str, Ref] = field(default_factory=dict)
    embedded: dict[str, Ref] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A trained network, the ref of its stage, the strategy that made it, and whether it may be chosen."""

    ref: Ref
    trained: Trained
    choice: StrategyChoice
    competes: bool

    @property
    def strategy(self) -> str:
        return self.choice.name

    @property
    def candidate(self) -> Candidate:
        return self.trained.checkpoint.candidate


def placed(base: RankedModels) -> list[str]:
    """Ranked candidates, best first."""
    return [entry.candidate for entry in base.ranking.entries if entry.rank is not None]


def train_all(run: Wiring, base: Base, finalists: Sequence[str]) -> list[Model]:
    """Every strategy on the finalists; with `verify` also one strategy on every candidate, which does not compete.

    A training that fails is reported; the run goes on while one that competes is left.
    """
    selection = run.config.selection
    registry = open_registry(run.store.root)
    taught = [choice for choice in run.config.finetune.strategies if needs_teacher(registry, choice)]
    untaught = [choice for choice in run.config.finetune.strategies if choice not in taught]
    competing = [(name, choice) for name in finalists for choice in untaught]
    models = _each(run, base, competing, competes=True)
    if selection.verify:
        others = [(name, selection.verify_with) for name in placed(base)]
        models += _each(run, base, others, competes=False, beside=models)
    if not any(model.competes for model in models):
        raise PluginError("no strategy could train a shortlisted model: " + "; ".join(run.warnings))
    if taught:
        if run.config.finetune.validation != "held-out":
            run.decisions.append(
                "all trainings are validated on images set aside: a teacher has seen the labels of every training image "
                f"({', '.join(choice.name for choice in taught)})"
            )
        models += _taught(run, base, models, untaught, taught)
    return models


def _each(
    run: Wiring,
    base: Base,
    wanted: Sequence[tuple[str, StrategyChoice]],
    *,
    competes: bool,
    beside: Sequence[Model] = (),
) -> list[Model]:
    """Trainings that succeed; one that two names stand for (`auto`, and what it chooses) is made once."""
    made: list[Model] = []
    for name, asked in wanted:
        choice = resolved(run, base, name, asked)
        twin = next((m for m in (*beside, *made) if (m.candidate.name, m.choice) == (name, choice)), None)
        if twin is None:
            model = try_train(run, base, name, choice, competes=competes, searched=competes)
            made += [model] if model is not None else []
    return made


def _taught(
    run: Wiring,
    base: Base,
    models: Sequence[Model],
    untaught: Sequence[StrategyChoice],
    taught: Sequence[StrategyChoice],
) -> list[Model]:
    """The best finalist taught by the best network of another candidate, which is trained for it where there is need.

    That candidate is the first by rank among all, those over the limits included.
    """
    made: list[Model] = []
    if base.teacher is not None and base.teacher not in {model.candidate.name for model in models}:
        made = _each(run, base, [(base.teacher, choice) for choice in untaught], competes=False)
    student = best_trained([(model, model.trained) for model in models if model.competes])[0]
    name = student.candidate.name
    teachers = [(m, m.trained) for m in (*models, *made) if m.candidate.name != name]
    if not teachers:
        names = ", ".join(choice.name for choice in taught)
        run.warnings.append(
            f"{names} was left out: no other candidate was trained that could teach {name}; name larger models with "
            "--models (those over --max-params, --max-gmacs and --max-latency-ms may teach)"
        )
        return made
    teacher = best_trained(teachers)[0]
    for choice in taught:
        model = try_train(run, base, name, choice, searched=True, teacher=teacher)
        if model is None:
            continue
        run.decisions.append(
            f"{choice.name}: {teacher.candidate.name} ({teacher.strategy}, validation {teacher.trained.validation:.3f}) "
            f"taught {name} ({student.strategy}, {student.trained.validation:.3f}), which then had "
            f"{model.trained.validation:.3f}"
        )
        made.append(model)
    return made


def _traits(run: Wiring, choice: StrategyChoice) -> frozenset[str]:
    return open_registry(run.store.root).load("tuner", choice.name).card.traits


def try_train(
    run: Wiring,
    base: Base,
    name: str,
    choice: StrategyChoice,
    *,
    pretrained: bool = True,
    competes: bool = True,
    searched: bool = False,
    short: bool = False,
    subject: str = "",
    teacher: Model | None = None,
) -> Model | None:
    """One training, or None and a warning where it fails by itself, or where the candidate lacks what the strategy needs;
    a mistake of the caller's still ends the run."""
    choice = resolved(run, base, name, choice)
    lacking = lacks(open_registry(run.store.root), choice, base.candidates[name])
    if lacking is not None:
        run.warnings.append(f"{choice.name} was left out for {name}: {lacking}")
        return None
    subject = subject or (f"{name}-{choice.name}" if pretrained else f"{name}-from-scratch")
    try:
        ref = train(
            run, base, name, choice, pretrained=pretrained, searched=searched, short=short, subject=subject,
            teacher=teacher,
        )  # fmt: skip
    except (PluginError, GateError) as error:
        run.warnings.append(f"{choice.name} on {name} failed: {error.what}")
        return None
    return Model(ref, run.store.read(ref, Trained), choice, competes)


def train(
    run: Wiring,
    base: Base,
    name: str,
    choice: StrategyChoice,
    *,
    pretrained: bool,
    searched: bool,
    short: bool,
    subject: str,
    teacher: Model | None,
) -> Ref:
    """One training, or a search over the options of its strategy where one is wanted and there is something to vary."""
    candidate = base.candidates[name]
    inputs: dict[str, Ref | tuple[Ref, ...]] = {"data": base.data, "pixels": base.pixels[name]}
    strategies: dict[str, Choice] = {"source": source_of(candidate), "tuner": as_choice("tuner", choice)}
    options: dict[str, Json] = {"candidate": candidate.recipe(), "pretrained": pretrained}
    options |= training_options(run, short=short)
    if pretrained and "random-start" not in _traits(run, choice):
        if name not in base.embedded:
            base.embedded[name] = run(
                "embed",
                name,
                inputs=dict(inputs),
                options={"candidate": candidate.recipe()},
                strategies={"source": source_of(candidate)},
            )
        inputs["embedded"] = base.embedded[name]
    if teacher is not None:
        inputs |= {"teacher": teacher.ref, "teacher-pixels": base.pixels[teacher.candidate.name]}
        strategies["teacher-source"] = source_of(teacher.candidate)
    search = _search_options(run, choice) if searched and pretrained else {}
    return run(
        "search" if search else "train",
        subject,
        inputs=inputs,
        options=options | search,
        strategies=strategies,
    )


def training_options(run: Wiring, *, short: bool = False) -> dict[str, Json]:
    """What the configuration says of a training.

    A short one of the trial is validated on images set aside. So are all of a run in which there is a teacher: it has
    seen the labels of every training image, and what it taught cannot be validated on them in turn.
    """
    finetune, compute = run.config.finetune, run.config.compute
    options: dict[str, Json] = {"precision": compute.precision}
    if finetune.budget is not None:
        options["budget"] = finetune.budget
    taught = teaching(open_registry(run.store.root), run.config)
    if not short and not taught and finetune.validation != "held-out":
        options["validation"] = finetune.validation
        if finetune.folds != FOLDS:
            options["folds"] = finetune.folds
    return options


def _search_options(run: Wiring, choice: StrategyChoice) -> dict[str, Json]:
    """Of the stage "search"; empty where none is wanted, or the strategy has nothing to vary."""
    wanted, soup = run.config.finetune.search, run.config.finetune.soup
    if wanted.trials < 2:
        return {}
    tuner = cast(Tuner, open_registry(run.store.root).build("tuner", choice.name, choice.options))
    if not search_space(tuner, wanted.fields, wanted.bounds):
        return {}
    options: dict[str, Json] = {"trials": wanted.trials}
    if wanted.fields:
        options["fields"] = list(wanted.fields)
    if wanted.bounds:
        options["bounds"] = {name: list(bounds) for name, bounds in wanted.bounds.items()}
    return options | ({"soup": True} if soup else {})
