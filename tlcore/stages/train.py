"""Stages that train: a tuner on labelled images, an adapter towards unlabelled ones."""

from __future__ import annotations

import math
import time
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import PluginError
from tlcore.evaluation.metrics import wilson
from tlcore.protocols import Adapter, TrainTask, Tuner, Validator, ValidatorOutputs
from tlcore.stages.base import StageContext
from tlcore.stages.networks import (
    WEIGHTS,
    build_network,
    load_network,
    save_predictions,
    save_weights,
)
from tlcore.stages.tables import load_table, pixels_for, preprocess_of, rows_of
from tlcore.stages.values import FLOAT32_ENGINES, AdaptedModel, CheckedData, FeatureFiles, Trained
from tlcore.training.job import Measured, TrainJob, TrainResult
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.plan import Stream
from tlcore.training.predict import predict
from tlcore.training.streams import StreamData
from tlcore.values import SOURCE, TARGET, Adapted, Candidate, Checkpoint, Dataset, Preprocess

__all__ = ["adapt", "train"]


def train(context: StageContext) -> Trained:
    """Train one candidate with one tuner. Options: candidate, pretrained. Strategies: source, tuner."""
    started = time.monotonic()
    candidate = Candidate.model_validate(context.option("candidate"))
    preprocess = preprocess_of(candidate)
    # Training and choosing must not see a label of the target: there is none in this table.
    dataset = load_table(context.folder("data"), context.read("data", CheckedData)).without_target_labels()
    labels = np.asarray(dataset.labels(), dtype=np.int64)
    pixels = pixels_for(context, preprocess)
    network = build_network(context, candidate, len(dataset.classes), pretrained=context.option("pretrained"))
    rows = rows_of(dataset, "train", labelled=True)
    held_out = rows_of(dataset, "val", labelled=True)
    if not len(held_out):
        held_out = rows  # classes of two images leave none; the data report says so

    def measure(network: Network) -> Measured:
        _, probabilities = predict(network, pixels, held_out, preprocess, device=context.job.device)
        accuracy, loss = _accuracy_and_loss(probabilities, labels[held_out])
        return Measured((accuracy, -loss), {"validation_accuracy": accuracy, "validation_loss": loss})

    task = TrainTask(dataset.classes, network.feature_dim, len(rows), 0, context.job.seed)
    tuner = cast(Tuner, context.build("tuner"))
    known = _known_features(context, dataset, rows, network)
    job = TrainJob(
        network=network, preprocess=preprocess, task=task, plan=tuner.plan(task),
        streams={"source": StreamData(pixels, rows, labels[rows])}, measure=measure, scratch=context.work.scratch,
        seed=context.job.seed, device=context.job.device, features={} if known is None else {"source": known},
        progress=context.progress,
    )  # fmt: skip
    result = run_plan(job)
    checkpoint = _checkpoint(context, candidate, dataset, tuner.card.name, result, "validation accuracy")
    _keep(context, dataset, network, pixels, preprocess)
    return Trained(
        checkpoint=checkpoint,
        validation=result.measures["validation_accuracy"],
        seconds=round(time.monotonic() - started, 3),
    )


def adapt(context: StageContext) -> AdaptedModel:
    """Adapt a source-only model to the target. Options: source_floor. Strategies: source, adapter, validator."""
    started = time.monotonic()
    base = context.read("model", Trained).checkpoint
    preprocess = base.preprocess
    full = load_table(context.folder("data"), context.read("data", CheckedData))
    dataset = full.without_target_labels()
    labels = np.asarray(dataset.labels(), dtype=np.int64)
    pixels = pixels_for(context, preprocess)
    network = load_network(context, "model", base)
    watch = _Watch(context, full, pixels, base)
    before = watch.look(network)
    floor = before.source_validation_accuracy - context.option("source_floor")

    def measure(network: Network) -> Measured:
        seen = watch.look(network)
        shown = {
            "source_validation_accuracy": seen.source_validation_accuracy,
            watch.validator.card.name: seen.validator_score,
        }
        if seen.accuracy is not None:
            shown[_PEEK] = seen.accuracy  # shown, never part of the choice below
        return Measured((float(seen.source_validation_accuracy >= floor - 1e-9), seen.validator_score), shown)

    rows, target_rows = rows_of(dataset, "train", labelled=True), rows_of(dataset, "train", TARGET)
    streams: dict[Stream, StreamData] = {
        "source": StreamData(pixels, rows, labels[rows]),
        "target": StreamData(pixels, target_rows, None),
    }
    task = TrainTask(dataset.classes, network.feature_dim, len(rows), len(target_rows), context.job.seed)
    adapter = cast(Adapter, context.build("adapter"))
    job = TrainJob(
        network=network, preprocess=preprocess, task=task, plan=adapter.plan(task), streams=streams, measure=measure,
        scratch=context.work.scratch, seed=context.job.seed, device=context.job.device, start_counts=False,
        progress=context.progress,
    )  # fmt: skip
    result = run_plan(job)
    after = watch.look(network)
    peeks = [line.measures[_PEEK] for line in result.history if _PEEK in line.measures]
    adapted = after.model_copy(
        update={
            "strategy": adapter.card.name,
            "accuracy_last": peeks[-1] if peeks else None,
            "accuracy_oracle": max(peeks) if peeks else None,
            "seconds": round(time.monotonic() - started, 3),
            "history": result.history,
        }
    )
    checkpoint = _checkpoint(
        context, base.candidate, dataset, adapter.card.name, result, f"validator {watch.validator.card.name}"
    )
    _keep(context, dataset, network, pixels, preprocess)
    return AdaptedModel(
        checkpoint=checkpoint,
        adapted=adapted,
        source_only=before.model_copy(update={"strategy": base.strategy}),
        source_only_classes=before.predicted_classes,
        target_images=len(target_rows),
    )


_PEEK = "target_test_accuracy"


class _Watch:
    """Looks at a network from the target's side: label-free score, source accuracy, and the peek at test labels."""

    def __init__(
        self, context: StageContext, full: Dataset, pixels: NDArray[np.uint8], base: Checkpoint
    ) -> None:
        self.validator = cast(Validator, context.build("validator"))
        self.device, self.pixels, self.preprocess = context.job.device, pixels, base.preprocess
        self.labels = np.asarray(full.labels(), dtype=np.int64)
        source = rows_of(full, "val", labelled=True)
        target = rows_of(full, "val", TARGET)
        self.source = source if len(source) else rows_of(full, "train", labelled=True)
        self.target = target if len(target) else rows_of(full, "train", TARGET)
        self.test = rows_of(full, "test", TARGET, labelled=True)

    def look(self, network: Network) -> Adapted:
        """Everything about the network as it is now; `strategy` is filled in by the caller."""
        rows = np.concatenate([self.source, self.target, self.test])
        features, probabilities = predict(network, self.pixels, rows, self.preprocess, device=self.device)
        a, b = len(self.source), len(self.source) + len(self.target)
        truth = self.labels[self.source]
        outputs = ValidatorOutputs(
            target_probabilities=probabilities[a:b].astype(np.float64),
            source_probabilities=probabilities[:a].astype(np.float64), source_labels=truth,
            target_features=features[a:b], source_features=features[:a],
        )  # fmt: skip
        score = float(self.validator.score(outputs))
        if not math.isfinite(score):
            raise PluginError(f'the validator "{self.validator.card.name}" gave {score}')
        accuracy = interval = None
        if len(self.test):
            accuracy = float((probabilities[b:].argmax(1) == self.labels[self.test]).mean())
            interval = wilson(accuracy, len(self.test))
        return Adapted(
            strategy="", validator_score=score, source_validation_accuracy=float((probabilities[:a].argmax(1) == truth).mean()),
            accuracy=accuracy, accuracy_ci=interval, accuracy_last=accuracy, accuracy_oracle=accuracy,
            predicted_classes=len(np.unique(probabilities[a:b].argmax(1))),
        )  # fmt: skip


def _accuracy_and_loss(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    likely = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float((probabilities.argmax(1) == labels).mean()), float(-np.log(np.maximum(likely, 1e-12)).mean())


def _known_features(
    context: StageContext, dataset: Dataset, rows: NDArray[np.int64], network: Network
) -> NDArray[np.float32] | None:
    """Cached features of the training images, if they are of these weights and this layer, in full precision."""
    if not context.refs("features") or not context.option("pretrained"):
        return None
    if not set(context.read("features", FeatureFiles).engine.split("+")) <= FLOAT32_ENGINES:
        return None  # good enough to rank by, not to train a head on
    from tlcore.stages.shards import joined, stored_parts

    stored = joined(stored_parts(context, "features"))
    names = dataset.table["sample_id"].gather(rows).to_list()
    if stored.features.shape[1] != network.feature_dim or not set(names) <= set(stored.sample_ids):
        return None
    return np.ascontiguousarray(stored.features[stored.rows(names)])


def _checkpoint(
    context: StageContext,
    candidate: Candidate,
    dataset: Dataset,
    strategy: str,
    result: TrainResult,
    chosen_by: str,
) -> Checkpoint:
    return Checkpoint(
        candidate=candidate, classes=dataset.classes, preprocess=preprocess_of(candidate), weights=WEIGHTS, strategy=strategy,
        chosen_epoch=result.chosen_epoch, chosen_by=chosen_by, history=result.history, measures=dict(result.measures),
        resumed_from_step=result.resumed_from_step,
    )  # fmt: skip


def _keep(
    context: StageContext,
    dataset: Dataset,
    network: Network,
    pixels: NDArray[np.uint8],
    preprocess: Preprocess,
) -> None:
    """Weights, and the predictions that later stages measure."""
    save_weights(context.work.folder, network)
    rows = np.concatenate(
        [rows_of(dataset, split, domain) for domain in (SOURCE, TARGET) for split in ("val", "test")]
    )
    _, probabilities = predict(network, pixels, rows, preprocess, device=context.job.device)
    save_predictions(context.work.folder, rows, probabilities)
