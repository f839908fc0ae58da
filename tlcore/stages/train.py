"""The stage that trains a candidate on labelled images, and what a trained network leaves in the store."""

from __future__ import annotations

import time
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tlcore.protocols import TrainTask, Tuner
from tlcore.stages.base import StageContext
from tlcore.stages.networks import (
    WEIGHTS,
    build_network,
    save_predictions,
    save_weights,
)
from tlcore.stages.tables import load_table, pixels_for, preprocess_of, rows_of
from tlcore.stages.values import FLOAT32_ENGINES, CheckedData, FeatureFiles, Trained
from tlcore.training.job import Measured, TrainJob, TrainResult
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.predict import predict, predict_features
from tlcore.training.streams import StreamData
from tlcore.values import SOURCE, TARGET, Bottleneck, Candidate, Checkpoint, Dataset, Preprocess

__all__ = ["checkpoint_of", "keep", "train"]


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
    plan = job.plan
    checkpoint = checkpoint_of(
        candidate, dataset, tuner.card.name, result, "validation accuracy", plan.bottleneck
    )
    keep(context, dataset, network, pixels, preprocess)
    return Trained(
        checkpoint=checkpoint,
        validation=result.measures["validation_accuracy"],
        seconds=round(result.earlier_seconds + time.monotonic() - started, 3),
    )


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
        bottleneck=bottleneck,
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
        _, probabilities = predict_features(network, embedded[rows], device=context.job.device)
    save_predictions(context.work.folder, rows, probabilities)
