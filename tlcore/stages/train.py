"""The stage that trains a candidate on labelled images."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcore.evaluation.calibration import fit_temperature, logits_of
from tlcore.protocols import Tuner
from tlcore.stages.base import StageContext
from tlcore.stages.material import Material, material
from tlcore.stages.networks import WEIGHTS, save_out_of_fold, save_predictions, save_weights
from tlcore.stages.one_training import Clock, OneTraining, Watch, look
from tlcore.stages.tables import preprocess_of, rows_of
from tlcore.stages.validation import folds, kinds, labelled, set_aside, validated_by
from tlcore.stages.values import Trained
from tlcore.training.folds import FoldRun, can_part, pool
from tlcore.training.job import TrainResult
from tlcore.training.measures import headline, interval_of
from tlcore.training.network import Network
from tlcore.training.plan import HeadFit, TrainPlan
from tlcore.training.predict import predict, predict_features
from tlcore.values import (
    SOURCE,
    TARGET,
    Bottleneck,
    Calibration,
    Candidate,
    Checkpoint,
    Dataset,
    Preprocess,
    Task,
)

__all__ = [
    "Outcome",
    "checkpoint_of",
    "finish",
    "judge_of",
    "keep",
    "prepare",
    "train",
    "train_one",
]


@dataclass(frozen=True)
class Outcome:
    """A trained network and what its validation says.

    validation: the number that choices are made by. rows, outputs: the images that it was validated on, as rows of the
    table, and its answers to them float32 [n, K] where networks that had not seen them gave these (cross-validation).
    state: the weights to keep; those of the network, unless somebody found better ones.
    """

    network: Network
    plan: TrainPlan
    result: TrainResult
    validation: float
    measures: Mapping[str, float]
    rows: NDArray[np.int64]
    state: Mapping[str, Tensor]
    outputs: NDArray[np.float32] | None = None


def train(context: StageContext) -> Trained:
    """Train one candidate with one tuner. Strategies: source, tuner. Inputs and options: see `material`; options also
    validation ("auto", "held-out", "cross-validation"), folds, budget, precision.
    """
    started = time.monotonic()
    given = prepare(context)
    tuner = cast(Tuner, context.build("tuner"))
    outcome = train_one(context, given, tuner, context.work.scratch, budget=context.job.options.get("budget"))
    trained = finish(context, given, tuner, outcome)
    seconds = outcome.result.earlier_seconds + time.monotonic() - started
    return trained.model_copy(update={"seconds": round(seconds, 3)})


def prepare(context: StageContext) -> Material:
    """What all trainings of the stage have in common."""
    return material(context, cast(Tuner, context.build("tuner")))


def finish(context: StageContext, given: Material, tuner: Tuner, outcome: Outcome) -> Trained:
    """Write weights and predictions, and say how good they are; `seconds` is left to the caller."""
    dataset, network, plan = given.dataset, outcome.network, outcome.plan
    network.load_state_dict(outcome.state)
    outputs = outcome.outputs
    if outputs is None:
        outputs = look(context, given, network, outcome.rows, plan)
    targets, seed = given.targets[outcome.rows], context.job.seed
    seen = outcome.outputs is None and not len(
        given.held_out
    )  # images that were trained on tell no temperature
    calibration = None if seen else _calibration(outputs, targets, dataset.task, seed)
    measure = headline(dataset.task).removeprefix("validation_")
    checkpoint = checkpoint_of(
        given.candidate, dataset, tuner.card.name, outcome.result, f"{measure} on validation", plan.bottleneck
    ).model_copy(
        update={
            "head": network.head_shape,
            "temperature": calibration.temperature if calibration is not None and calibration.kept else 1.0,
            "measures": dict(outcome.measures),
        }
    )
    embedded = given.embedded if plan.keeps_backbone else None
    keep(context, dataset, network, given.pixels, given.preprocess, embedded)
    crossed = outcome.outputs is not None
    out_of_fold = (outcome.rows, outputs) if crossed else _out_of_fold(context, given, tuner, plan)
    if out_of_fold is not None:
        save_out_of_fold(context.work.folder, *out_of_fold)
    images, way = len(outcome.rows), "held-out" if len(given.held_out) else "the training images themselves"
    if crossed:
        way = f"{int(folds(context, given).max()) + 1}-fold cross-validation"
    return Trained(
        checkpoint=checkpoint, validation=outcome.validation, seconds=0.0, calibration=calibration,
        validated_on=f"{way}, {images} images", validation_ci=interval_of(outputs, targets, dataset.task, seed),
    )  # fmt: skip


def judge_of(
    context: StageContext, given: Material, tuner: Tuner
) -> Callable[[Mapping[str, Tensor]], tuple[float, ...]] | None:
    """How good weights are on images set aside; None where there are none, or where no gradient made the weights."""
    if validated_by(context, given) == "cross-validation":
        return None
    one = OneTraining(context, given, tuner, given.rows, set_aside(given), context.work.scratch, Clock(None))
    if all(isinstance(phase, HeadFit) for phase in one.plan.phases):
        return None
    if one.plan.bottleneck is not None:
        one.network.renew_head(one.plan.bottleneck)

    def judge(state: Mapping[str, Tensor]) -> tuple[float, ...]:
        one.network.load_state_dict(state)
        return one.measure(one.network).choice

    return judge


def train_one(
    context: StageContext,
    given: Material,
    tuner: Tuner,
    scratch: Path,
    *,
    budget: float | None = None,
    after_epoch: Watch | None = None,
) -> Outcome:
    """Train and validate: on images set aside, or with all images in turn and then on all of them.

    after_epoch: called at looks of a training that is validated on images set aside; may raise `Pruned`.
    """
    if validated_by(context, given) == "cross-validation":
        return _cross_validated(context, given, tuner, scratch, budget)
    held_out = set_aside(given)
    one = OneTraining(context, given, tuner, given.rows, held_out, scratch, Clock(budget))
    result = one.run(after_epoch=after_epoch)
    shown = result.measures or one.measure(one.network).shown
    return Outcome(
        one.network,
        one.plan,
        result,
        float(shown[headline(given.dataset.task)]),
        shown,
        held_out,
        one.network.state_dict(),
    )


def _cross_validated(
    context: StageContext, given: Material, tuner: Tuner, scratch: Path, budget: float | None
) -> Outcome:
    rows, parts = labelled(given), folds(context, given)
    count = int(parts.max()) + 1
    clock, runs = Clock(budget), []
    for number in range(count):
        one = OneTraining(
            context, given, tuner, rows[parts != number], rows[parts == number], scratch / f"fold-{number}",
            clock.share(count - number + 1), f"fold {number + 1} of {count}: ",
        )  # fmt: skip
        runs.append(one.fold_run())
    plan = one.plan
    pooled = pool(plan, runs, parts, given.targets[rows], given.dataset.task)
    whole = OneTraining(context, given, tuner, rows, rows[:0], scratch, clock, "all images: ")
    result = whole.run(fixed=pooled.picked)
    shown = pooled.measured.shown
    notes = (*_of_folds(runs, budget), *result.notes)
    return Outcome(
        whole.network, plan, replace(result, notes=notes), float(shown[headline(given.dataset.task)]), shown, rows,
        whole.network.state_dict(), pooled.outputs,
    )  # fmt: skip


def _of_folds(runs: Sequence[FoldRun], budget: float | None) -> list[str]:
    """What the parts noted, each once, and how many of them did."""
    counts = Counter(note for run in runs for note in run.notes)
    late = sum(run.late for run in runs)
    if late and budget is not None:
        counts[f"ended by the budget of {budget:g} s for all trainings"] = late
    return [f"{count} of {len(runs)} folds: {note}" for note, count in counts.items()]


def _calibration(
    outputs: NDArray[np.float32], targets: NDArray[Any], task: Task, seed: int
) -> Calibration | None:
    if task != "classification" or not len(targets):
        return None
    return fit_temperature(logits_of(outputs), targets.astype(np.int64), seed=seed)


def _out_of_fold(
    context: StageContext, given: Material, tuner: Tuner, plan: TrainPlan
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """Where it costs seconds: what heads that have not seen them say of the training images."""
    if given.dataset.task != "classification" or not all(isinstance(part, HeadFit) for part in plan.phases):
        return None
    if given.embedded is None or not can_part(*kinds(given, given.rows)):
        return None
    rows, parts = given.rows, folds(context, given, given.rows)
    outputs = np.zeros((len(rows), len(given.dataset.classes)), np.float32)
    for number in range(int(parts.max()) + 1):
        inside = parts != number
        if len(np.unique(given.targets[rows[inside]])) < 2:
            return None
        network = Network(nn.Identity(), given.embedded.shape[1], len(given.dataset.classes))
        scratch = context.work.scratch / f"out-{number}"
        one = OneTraining(
            context,
            given,
            tuner,
            rows[inside],
            rows[~inside],
            scratch,
            Clock(None),
            "out of fold: ",
            network,
        )
        one.run()
        outputs[~inside] = look(context, given, one.network, rows[~inside], plan)
    return rows, outputs


def checkpoint_of(
    candidate: Candidate,
    dataset: Dataset,
    strategy: str,
    result: TrainResult,
    chosen_by: str,
    bottleneck: Bottleneck | None = None,
) -> Checkpoint:
    return Checkpoint(
        candidate=candidate, classes=dataset.classes, preprocess=preprocess_of(candidate), weights=WEIGHTS, strategy=strategy,
        bottleneck=bottleneck, task=dataset.task, notes=(*result.notes, *((result.stopped,) if result.stopped else ())),
        chosen_epoch=result.chosen_epoch, chosen_by=chosen_by, history=result.history, measures=dict(result.measures),
        resumed_from_step=result.resumed_from_step,
    )  # fmt: skip


def keep(
    context: StageContext,
    dataset: Dataset,
    network: Network,
    pixels: NDArray[np.uint8],
    preprocess: Preprocess,
    embedded: NDArray[np.float32] | None = None,
) -> None:
    """Weights, and the predictions that later stages measure.

    embedded: the features of all rows of the table by this very backbone, where they are known.
    """
    save_weights(context.work.folder, network)
    rows = np.concatenate(
        [rows_of(dataset, split, domain) for domain in (SOURCE, TARGET) for split in ("val", "test")]
    )
    if embedded is None:
        _, probabilities = predict(network, pixels, rows, preprocess, device=context.job.device)
    else:
        _, probabilities = predict_features(network, np.asarray(embedded[rows]), device=context.job.device)
    save_predictions(context.work.folder, rows, probabilities)
