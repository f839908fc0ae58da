"""The stage that adapts a source-only model to unlabelled target images."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tlcore.evaluation.accuracy_estimates import estimate_accuracy
from tlcore.evaluation.gate import collapse
from tlcore.evaluation.label_free import batch_nuclear_norm, cluster_agreement, predicted_classes, top_share
from tlcore.evaluation.metrics import wilson
from tlcore.evaluation.panel import Panel
from tlcore.protocols import Adapter, TrainTask, Validator, ValidatorOutputs
from tlcore.stages.base import StageContext
from tlcore.stages.domains import embedded_features
from tlcore.stages.networks import load_network
from tlcore.stages.tables import copies_of, load_table, pixels_for, rows_of, target_sample
from tlcore.stages.train import checkpoint_of, keep
from tlcore.stages.values import AdaptedModel, CheckedData, SourceOnlyModel, Trained
from tlcore.training.job import Measured, TrainJob
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.network_tuner import probe
from tlcore.training.plan import Phase, Stream, TrainPlan
from tlcore.training.predict import predict, predict_features
from tlcore.training.streams import StreamData
from tlcore.values import TARGET, Adapted, Dataset, Head, Preprocess

__all__ = ["adapt", "look_at_source_only"]

_PEEK = "target_test_accuracy"


def adapt(context: StageContext) -> AdaptedModel:
    """Adapt a source-only model to the target.

    Inputs: data, pixels, model, embedded. Strategies: source, adapter, and validators in roles "validator-0", ….
    Options: source_floor, max_images, label_sets, gmacs (None: unknown).
    """
    started = time.monotonic()
    base = context.read("model", Trained).checkpoint
    full = load_table(context.folder("data"), context.read("data", CheckedData))
    dataset = full.without_target_labels()
    labels = np.asarray(dataset.labels(), dtype=np.int64)
    pixels = pixels_for(context, base.preprocess)
    features = embedded_features(context)
    network = load_network(context, "model", base)
    rows, target_rows = rows_of(dataset, "train", labelled=True), rows_of(dataset, "train", TARGET)
    adapter = cast(Adapter, context.build("adapter"))
    task = TrainTask(
        dataset.classes, network.backbone_dim, len(rows), len(target_rows), context.job.seed, context.option("gmacs"),
        context.option("label_sets"),
    )  # fmt: skip
    plan = _with_a_head_that_moves(adapter.plan(task), base.head, task)
    watch = _Watch(context, full, pixels, base.preprocess)
    before = watch.look(network, features, whole=True)
    asked = "target-only" not in adapter.card.traits
    floor = before.source_validation_accuracy - context.option("source_floor") if asked else -math.inf

    # By an untouched backbone nothing needs to be computed again from pixels.
    known = features if plan.keeps_backbone else None

    def measure(network: Network) -> Measured:
        seen = watch.look(network, known)
        accuracy = seen.source_validation_accuracy
        shown = {"source_validation_accuracy": accuracy, "validators": seen.validator_score}
        shown |= seen.validators
        if seen.accuracy is not None:
            shown[_PEEK] = seen.accuracy  # shown, never part of the choice below
        choice = (float(accuracy >= floor - 1e-9), seen.validator_score)
        return Measured(choice, shown, collapse(before, seen))

    streams: dict[Stream, StreamData] = {
        "source": StreamData(pixels, rows, labels[rows], _domains(dataset, rows), copies_of(dataset, rows)),
        "target": StreamData(pixels, target_rows, None),
    }
    job = TrainJob(
        network=network, preprocess=base.preprocess, task=task, plan=plan, streams=streams, measure=measure,
        scratch=context.work.scratch, seed=context.job.seed, device=context.job.device, start_counts=False,
        features={"source": features[rows], "target": features[target_rows]}, progress=context.progress,
    )  # fmt: skip
    result = run_plan(job)
    after = watch.look(network, known, whole=True)
    peeks = [line.measures[_PEEK] for line in result.history if _PEEK in line.measures]
    adapted = after.model_copy(
        update={
            "strategy": adapter.card.name,
            "target_only": not asked,
            "accuracy_last": peeks[-1] if peeks else None,
            "accuracy_oracle": max(peeks) if peeks else None,
            "seconds": round(result.earlier_seconds + time.monotonic() - started, 3),
            "history": result.history,
            "stopped": result.stopped,
        }
    )
    chosen_by = "validators " + " + ".join(watch.panel.names)
    checkpoint = checkpoint_of(
        base.candidate, dataset, adapter.card.name, result, chosen_by, plan.bottleneck or base.bottleneck
    ).model_copy(update={"head": network.head_shape})
    keep(context, dataset, network, pixels, base.preprocess, known)
    return AdaptedModel(
        checkpoint=checkpoint, adapted=adapted, source_only=before.model_copy(update={"strategy": base.strategy}),
        target_images=len(target_rows),
    )  # fmt: skip


def _with_a_head_that_moves(plan: TrainPlan, head: Head, task: TrainTask) -> TrainPlan:
    """Stored neighbours have nothing that gradients could move: where the plan would move the head, a probe on the source
    takes their place first."""
    moves = any(
        group.parameters in {"head", "all"} or group.parameters.startswith("head.")
        for phase in plan.phases
        if isinstance(phase, Phase)
        for move in phase.moves
        for group in move.groups
    )
    if head.kind != "neighbours" or plan.bottleneck is not None or not moves:
        return plan
    return replace(plan, phases=(probe(task), *plan.phases))


def look_at_source_only(context: StageContext) -> SourceOnlyModel:
    """The same look at the source-only model that an adapter takes before it trains.

    Inputs: data, pixels, model, embedded. Strategies: source, and validators in roles "validator-0", …. Option: max_images.
    """
    base = context.read("model", Trained).checkpoint
    dataset = load_table(context.folder("data"), context.read("data", CheckedData))
    watch = _Watch(context, dataset, pixels_for(context, base.preprocess), base.preprocess)
    context.progress(0, 0, "looking at the source-only model")
    seen = watch.look(load_network(context, "model", base), embedded_features(context), whole=True)
    return SourceOnlyModel(
        source_only=seen.model_copy(update={"strategy": base.strategy}),
        target_images=len(rows_of(dataset, "train", TARGET)),
    )


def _domains(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The number of each row's source domain; None where there is one."""
    names = dataset.source_domains
    if len(names) < 2:
        return None
    number = {name: index for index, name in enumerate(names)}
    return np.asarray([number[name] for name in dataset.table["domain"].gather(rows)], dtype=np.int64)


class _Watch:
    """Looks at a network from the target's side: label-free scores, source accuracy, and the peek at test labels."""

    def __init__(
        self, context: StageContext, full: Dataset, pixels: NDArray[np.uint8], preprocess: Preprocess
    ) -> None:
        roles = sorted(
            (role for role in context.job.strategies if role.startswith("validator-")),
            key=lambda role: int(role.rpartition("-")[2]),
        )
        self.panel = Panel([cast(Validator, context.build(role)) for role in roles])
        self.device, self.pixels, self.preprocess = context.job.device, pixels, preprocess
        self.labels = np.asarray(full.labels(), dtype=np.int64)
        source = rows_of(full, "val", labelled=True)
        self.source = source if len(source) else rows_of(full, "train", labelled=True)
        self.target = target_sample(full, context.option("max_images"), context.job.seed)
        self.test = rows_of(full, "test", TARGET, labelled=True)

    def look(self, network: Network, embedded: NDArray[np.float32] | None, *, whole: bool = False) -> Adapted:
        """Everything about the network as it is now; `strategy` is filled in by the caller.

        embedded: the backbone's features of all rows of the table, where this backbone made them. whole: what is too
        slow for every checkpoint as well, estimates of the accuracy and the agreement with clusters.
        """
        rows = np.concatenate([self.source, self.target, self.test])
        if embedded is not None:
            features, probabilities = predict_features(network, embedded[rows], device=self.device)
        else:
            features, probabilities = predict(network, self.pixels, rows, self.preprocess, device=self.device)
        a, b = len(self.source), len(self.source) + len(self.target)
        truth = self.labels[self.source]
        outputs = ValidatorOutputs(
            target_probabilities=probabilities[a:b].astype(np.float64),
            source_probabilities=probabilities[:a].astype(np.float64), source_labels=truth,
            target_features=features[a:b], source_features=features[:a],
        )  # fmt: skip
        scores = self.panel.scores(outputs)
        accuracy = interval = None
        if len(self.test):
            accuracy = float((probabilities[b:].argmax(1) == self.labels[self.test]).mean())
            interval = wilson(accuracy, len(self.test))
        on_target = outputs.target_probabilities
        return Adapted(
            strategy="", validator_score=self.panel.combined(scores, outputs), validators=scores,
            source_validation_accuracy=float((probabilities[:a].argmax(1) == truth).mean()),
            accuracy=accuracy, accuracy_ci=interval, accuracy_last=accuracy, accuracy_oracle=accuracy,
            estimates=estimate_accuracy(outputs) if whole else None, nuclear_norm=batch_nuclear_norm(on_target),
            predicted_classes=predicted_classes(on_target), top_share=top_share(on_target),
            cluster_agreement=(
                cluster_agreement(outputs.target_features, on_target.argmax(axis=1), on_target.shape[1]) if whole else None
            ),
        )  # fmt: skip
