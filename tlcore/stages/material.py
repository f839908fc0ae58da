"""What trainings of one candidate have in common: images, labels, features, and fresh networks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tlcore.errors import PluginError, UserError
from tlcore.protocols import ModelSource, TrainTask, Tuner
from tlcore.stages.base import StageContext
from tlcore.stages.domains import embedded_features
from tlcore.stages.networks import build_network, load_network
from tlcore.stages.tables import load_table, pixels_for, preprocess_of, rows_of
from tlcore.stages.values import CheckedData, Trained
from tlcore.training.network import Network
from tlcore.training.predict import embed, predict
from tlcore.values import Candidate, Dataset, Preprocess

__all__ = ["Material", "material"]


@dataclass
class Material:
    """The labelled images of a table and one candidate.

    given_splits: those that the data came with. targets: of all rows of the table (`Dataset.targets`). rows,
    held_out: of the table, the labelled training and validation images of the source. embedded: the untouched
    backbone's features float32 [rows of the table, D] of the exact pixels, once they are known; those that models are
    ranked by are of pixels that were decoded fast.
    """

    context: StageContext
    dataset: Dataset
    candidate: Candidate
    preprocess: Preprocess
    pixels: NDArray[np.uint8]
    targets: NDArray[Any]
    rows: NDArray[np.int64]
    held_out: NDArray[np.int64]
    pretrained: bool
    given_splits: tuple[str, ...] = ()
    embedded: NDArray[np.float32] | None = None
    source_head: nn.Linear | None = None
    teacher: NDArray[np.float32] | None = None
    text: Callable[[Sequence[str]], NDArray[np.float32]] | None = None

    def network(self, rows: NDArray[np.int64] | None = None) -> Network:
        """A fresh one: the candidate's backbone, a head that knows nothing yet but the range of numbers on the rows that it
        will be trained on."""
        made = build_network(
            self.context,
            self.candidate,
            len(self.dataset.classes),
            pretrained=self.pretrained,
            task=self.dataset.task,
        )
        if self.dataset.task == "regression":
            numbers = self.targets[self.rows if rows is None else rows].astype(np.float64)
            made.output_shift.fill_(numbers.mean())
            made.output_scale.fill_(numbers.std() or 1.0)
        return made

    def embed_all(self, network: Network) -> None:
        """Work the features out of all rows that training, validation and test need, once."""
        if self.embedded is not None:
            return
        split = self.dataset.table["split"].is_not_null().to_numpy()
        rows = np.flatnonzero(split).astype(np.int64)
        values = embed(
            network, self.pixels, rows, self.preprocess, device=self.context.job.device,
            on_progress=lambda done, total: self.context.progress(done, total, "features"),
        )  # fmt: skip
        embedded = np.zeros((len(self.dataset.table), values.shape[1]), np.float32)
        embedded[rows] = values
        self.embedded = embedded

    def task(self, network: Network, rows: NDArray[np.int64], budget: float | None) -> TrainTask:
        """What a plan is made for, with these rows to train on."""
        dataset, targets = self.dataset, self.targets[rows]
        counts: tuple[int, ...] = ()
        if dataset.task == "classification":
            counts = tuple(np.bincount(targets.astype(np.int64), minlength=len(dataset.classes)).tolist())
        elif dataset.task == "multi-label":
            counts = tuple(int(count) for count in targets.sum(axis=0))
        return TrainTask(
            dataset.classes, network.feature_dim, len(rows), 0, self.context.job.seed, self.candidate.gmacs,
            task=dataset.task, counts=counts, budget=budget,
            target_std=float(targets.astype(np.float64).std()) or 1.0 if dataset.task == "regression" else 1.0,
        )  # fmt: skip


def material(context: StageContext, tuner: Tuner) -> Material:
    """From a stage's inputs (data, pixels; embedded, teacher where there are) and options (candidate,
    pretrained).

    Raises:
        UserError: the tuner needs what the candidate or the run does not have, or is not for such labels.
    """
    candidate = Candidate.model_validate(context.option("candidate"))
    preprocess = preprocess_of(candidate)
    # Training and choosing must not see a label of the target: there is none in this table.
    checked = context.read("data", CheckedData)
    dataset = load_table(context.folder("data"), checked).without_target_labels()
    _check_task(tuner, dataset)
    traits = tuner.card.traits
    made = Material(
        context=context, dataset=dataset, candidate=candidate, preprocess=preprocess,
        pixels=pixels_for(context, preprocess), targets=dataset.targets(),
        rows=rows_of(dataset, "train", labelled=True), held_out=rows_of(dataset, "val", labelled=True),
        pretrained=bool(context.option("pretrained")) and "random-start" not in traits,
        given_splits=checked.given_splits,
    )  # fmt: skip
    if made.pretrained and context.refs("embedded"):
        made.embedded = embedded_features(context)
    if "source-head" in traits:
        made.source_head = _source_head(context, candidate, tuner)
    if "text" in traits:
        source = cast(ModelSource, context.build("source"))
        if "text" not in source.card.traits:
            source.text_embeddings(candidate, ())  # raises, and says what to do
        embed_texts = functools.cache(partial(source.text_embeddings, candidate))  # every fold asks the same
        made.text = lambda texts: embed_texts(tuple(texts))
    if "teacher" in traits:
        made.teacher = _teacher(context, tuner, made.rows)
    return made


def _check_task(tuner: Tuner, dataset: Dataset) -> None:
    if dataset.task == "classification" or dataset.task in tuner.card.traits:
        return
    raise UserError(
        f'"{tuner.card.name}" is for classes, and these labels are '
        + ("numbers" if dataset.task == "regression" else "tags"),
        choices=("ridge", "lp-ft"),
        hint="take one of them: --tuner ridge",
    )


def _source_head(context: StageContext, candidate: Candidate, tuner: Tuner) -> nn.Linear:
    source = cast(ModelSource, context.build("source"))
    network: Any = source.build(candidate, classes=None) if candidate.classes else None
    head = network.get_classifier() if network is not None else None
    if not isinstance(head, nn.Linear):
        raise UserError(
            f'"{tuner.card.name}" needs the layer that {candidate.name} was pretrained to classify with, and its weights '
            "carry none" + ("" if head is None else f" but a {type(head).__name__}"),
            hint="name a model with its source head, or take another strategy: tlcore plugins",
        )
    return head


def _teacher(context: StageContext, tuner: Tuner, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits float32 [n, K] of the training images by the network in the input "teacher", its images in
    "teacher-pixels", its model source in the role "teacher-source"."""
    if not context.refs("teacher"):
        raise PluginError(
            f'"{tuner.card.name}" needs a trained network to learn from, and the stage has none',
            hint="name another strategy beside it in finetune.try, which trains the teacher",
        )
    checkpoint = context.read("teacher", Trained).checkpoint
    network = load_network(context, "teacher", checkpoint, role="teacher-source")
    pixels = pixels_for(context, checkpoint.preprocess, name="teacher-pixels")
    context.progress(0, 0, "asking the teacher")
    _, probabilities = predict(network, pixels, rows, checkpoint.preprocess, device=context.job.device)
    logits: NDArray[np.float32] = np.log(np.maximum(probabilities, 1e-12))
    return logits
