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

from tlcore.data.strata import strata
from tlcore.evaluation.calibration import fit_temperature, logits_of
from tlcore.evaluation.metrics import wilson
from tlcore.protocols import Tuner
from tlcore.stages.base import StageContext
from tlcore.stages.material import Material, material
from tlcore.stages.networks import WEIGHTS, save_out_of_fold, save_predictions, save_weights
from tlcore.stages.tables import copies_of, preprocess_of, rows_of
from tlcore.stages.values import Trained
from tlcore.training.folds import FEW, FoldRun, can_part, fold_numbers, pool
from tlcore.training.job import Measured, Picked, TrainJob, TrainResult
from tlcore.training.loop import run_plan
from tlcore.training.measures import headline, measured
from tlcore.training.network import Network
from tlcore.training.plan import HeadFit, TrainPlan
from tlcore.training.predict import predict, predict_features
from tlcore.training.processes import launched
from tlcore.training.streams import StreamData
from tlcore.values import (
    SOURCE,
    TARGET,
    Bottleneck,
    Calibration,
    Candidate,
    Checkpoint,
    Dataset,
    Epoch,
    Interval,
    Preprocess,
    Task,
)

__all__ = [
    "FEW",
    "Outcome",
    "checkpoint_of",
    "finish",
    "interval_of",
    "judge_of",
    "keep",
    "prepare",
    "train",
    "train_one",
    "validated_by",
]

Watch = Callable[[Epoch], None]


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
        outputs = _look(context, given, network, outcome.rows, plan)
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
        way = f"{int(_folds(context, given).max()) + 1}-fold cross-validation"
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
    one = _Training(context, given, tuner, given.rows, _held_out(given), context.work.scratch, _Clock(None))
    if all(isinstance(phase, HeadFit) for phase in one.plan.phases):
        return None
    if one.plan.bottleneck is not None:
        one.network.renew_head(one.plan.bottleneck)

    def judge(state: Mapping[str, Tensor]) -> tuple[float, ...]:
        one.network.load_state_dict(state)
        return one.measure(one.network).choice

    return judge


def validated_by(context: StageContext, given: Material) -> str:
    """ "held-out" or "cross-validation": as the option says; "auto": all images in turn where there are few, unless
    a validation split was given or an adapter follows, whose gate asks validation images that nothing was trained on."""
    asked = context.job.options.get("validation", "held-out")
    if asked != "auto":
        return str(asked)
    rows = _labelled(given)
    if "val" in given.given_splits:
        return "held-out"  # somebody said what to validate on: whole patients or scenes, perhaps
    few = len(rows) <= FEW and not given.dataset.has_target and can_part(*_kinds(given, rows))
    return "cross-validation" if few else "held-out"


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
    held_out = _held_out(given)
    one = _Training(context, given, tuner, given.rows, held_out, scratch, _Clock(budget))
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


def _held_out(given: Material) -> NDArray[np.int64]:
    """Images set aside; where there are none the training images: the report of the data says so."""
    return given.held_out if len(given.held_out) else given.rows


def _cross_validated(
    context: StageContext, given: Material, tuner: Tuner, scratch: Path, budget: float | None
) -> Outcome:
    rows, parts = _labelled(given), _folds(context, given)
    count = int(parts.max()) + 1
    clock, runs = _Clock(budget), []
    for number in range(count):
        one = _Training(
            context, given, tuner, rows[parts != number], rows[parts == number], scratch / f"fold-{number}",
            clock.share(count - number + 1), f"fold {number + 1} of {count}: ",
        )  # fmt: skip
        runs.append(one.fold_run())
    plan = one.plan
    pooled = pool(plan, runs, parts, given.targets[rows], given.dataset.task)
    whole = _Training(context, given, tuner, rows, rows[:0], scratch, clock, "all images: ")
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


class _Clock:
    """Seconds of a budget that are left, of everything that is done with it; None: no bound."""

    def __init__(self, budget: float | None) -> None:
        self.budget, self.started = budget, time.monotonic()

    def left(self) -> float | None:
        if self.budget is None:
            return None
        return max(1e-3, self.budget - (time.monotonic() - self.started))

    def share(self, parts: int) -> _Clock:
        """The clock of the next of so many equal parts."""
        left = self.left()
        return _Clock(None if left is None else left / parts)


def _labelled(given: Material) -> NDArray[np.int64]:
    return np.sort(np.concatenate([given.rows, given.held_out]))


def _folds(
    context: StageContext, given: Material, rows: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    rows = _labelled(given) if rows is None else rows
    return fold_numbers(*_kinds(given, rows), context.job.options.get("folds", 5), context.job.seed)


def _kinds(given: Material, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """Strata of labels, and what makes copies of an image one group."""
    digests = given.dataset.table["sha256"].gather(rows).fill_null("").to_list()
    groups = [digest or str(row) for digest, row in zip(digests, rows, strict=True)]
    return strata(given.targets[rows], given.dataset.task), groups


class _Training:
    """One training: a fresh network, the plan for these rows, and looks at the images held out."""

    def __init__(
        self, context: StageContext, given: Material, tuner: Tuner, rows: NDArray[np.int64], held_out: NDArray[np.int64],
        scratch: Path, clock: _Clock, said: str = "", network: Network | None = None,
    ) -> None:  # fmt: skip
        self.context, self.given, self.rows, self.held_out = context, given, rows, held_out
        self.scratch, self.said = scratch, said
        self.clock, self.network = clock, network or given.network(rows)
        self.task = given.task(self.network, rows, clock.budget)
        self.plan = tuner.plan(self.task)
        if self.plan.keeps_backbone:
            given.embed_all(self.network)

    def run(
        self, *, fixed: Mapping[int, Picked] | None = None, after_epoch: Watch | None = None
    ) -> TrainResult:
        given, context = self.given, self.context
        known = None if given.embedded is None else np.asarray(given.embedded[self.rows])
        place = {int(row): position for position, row in enumerate(given.rows)}
        teacher = given.teacher
        if teacher is not None and not np.array_equal(self.rows, given.rows):
            teacher = teacher[[place[int(row)] for row in self.rows]]
        job = TrainJob(
            network=self.network, preprocess=given.preprocess, task=self.task, plan=self.plan,
            streams={
                "source": StreamData(
                    given.pixels, self.rows, _as_labels(given.targets[self.rows], given.dataset.task),
                    groups=copies_of(given.dataset, self.rows),
                )
            },
            measure=self.measure, scratch=self.scratch, seed=context.job.seed, device=context.job.device,
            features={} if known is None else {"source": known}, progress=self._progress, budget=self.clock.left(),
            precision=context.job.options.get("precision", "fp32"), decisions=context.store.root / "decisions",
            architecture=given.candidate.architecture,
            fixed=fixed, after_epoch=after_epoch or (lambda epoch: None), processes=launched(),
            source_head=given.source_head, teacher=teacher, text=given.text,
            kept=(context.work.scratch / "activations", given.rows if np.isin(self.rows, given.rows).all() else _labelled(given)),
        )  # fmt: skip
        return run_plan(job)

    def measure(self, network: Network) -> Measured:
        given, rows = self.given, self.held_out
        if not len(rows):
            return Measured((0.0,), {})
        self.last = _look(self.context, given, network, rows, self.plan)
        return measured(self.last, given.targets[rows], given.dataset.task)

    def fold_run(self) -> FoldRun:
        """Train, and keep the answers of every look; a killed one goes on with those that it had."""
        looks = _Looks(self.scratch / "looks.npz")

        def after(line: Epoch) -> None:
            looks.add((line.phase, line.epoch), self.last)

        result = self.run(after_epoch=after)
        self.measure(self.network)
        stopped = (result.stopped,) if result.stopped and not result.late else ()
        return FoldRun(looks.found, result.picked, self.last, (*result.notes, *stopped), result.late)

    def _progress(self, done: int, total: int, text: str) -> None:
        self.context.progress(done, total, self.said + text)


def _look(
    context: StageContext, given: Material, network: Network, rows: NDArray[np.int64], plan: TrainPlan
) -> NDArray[np.float32]:
    """The answers to rows of the table."""
    if plan.keeps_backbone and given.embedded is not None:
        return predict_features(network, np.asarray(given.embedded[rows]), device=context.job.device)[1]
    return predict(network, given.pixels, rows, given.preprocess, device=context.job.device)[1]


class _Looks:
    """Answers by phase and epoch, in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.found = path, dict[tuple[str, int], NDArray[np.float32]]()
        if path.is_file():
            with np.load(path, allow_pickle=False) as stored:
                for key in stored.files:
                    name, _, epoch = key.rpartition("@")
                    self.found[name, int(epoch)] = stored[key]

    def add(self, key: tuple[str, int], outputs: NDArray[np.float32]) -> None:
        self.found[key] = outputs.copy()
        if not launched().first:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part.npz")
        named: dict[str, Any] = {f"{name}@{epoch}": values for (name, epoch), values in self.found.items()}
        np.savez(part, **named)
        part.replace(self.path)


def _as_labels(targets: NDArray[Any], task: Task) -> NDArray[Any]:
    return targets.astype(np.int64 if task == "classification" else np.float32)


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
    if given.embedded is None or not can_part(*_kinds(given, given.rows)):
        return None
    rows, parts = given.rows, _folds(context, given, given.rows)
    outputs = np.zeros((len(rows), len(given.dataset.classes)), np.float32)
    for number in range(int(parts.max()) + 1):
        inside = parts != number
        if len(np.unique(given.targets[rows[inside]])) < 2:
            return None
        network = Network(nn.Identity(), given.embedded.shape[1], len(given.dataset.classes))
        scratch = context.work.scratch / f"out-{number}"
        one = _Training(
            context,
            given,
            tuner,
            rows[inside],
            rows[~inside],
            scratch,
            _Clock(None),
            "out of fold: ",
            network,
        )
        one.run()
        outputs[~inside] = _look(context, given, one.network, rows[~inside], plan)
    return rows, outputs


def interval_of(
    outputs: NDArray[np.float32], targets: NDArray[Any], task: Task, seed: int, replicates: int = 200
) -> Interval | None:
    """95 % interval of the validation measure over images: Wilson's of an accuracy, else of bootstrap draws."""
    count = len(targets)
    if count < 2:
        return None
    if task == "classification":
        return wilson(float((outputs.argmax(1) == targets).mean()), count)
    rng = np.random.default_rng([seed, 11])
    draws = []
    for _ in range(replicates):
        rows = rng.integers(0, count, count)
        draws.append(measured(outputs[rows], targets[rows], task).choice[0])
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(low=float(low), high=float(high))


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
