"""Networks of stages: built from a candidate, saved and loaded as checkpoints, run on rows of the table."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from tlcore.protocols import ModelSource
from tlcore.stages.base import StageContext
from tlcore.stages.tables import preprocess_of
from tlcore.training.head_layers import LINEAR
from tlcore.training.network import Network, make_network
from tlcore.training.streams import draw_seed
from tlcore.values import Bottleneck, Candidate, Checkpoint, Head, Task

__all__ = [
    "WEIGHTS",
    "build_network",
    "load_network",
    "load_out_of_fold",
    "load_predictions",
    "save_out_of_fold",
    "save_predictions",
    "save_weights",
]

WEIGHTS = "weights.safetensors"
_PREDICTIONS = "predictions.npz"
_OUT_OF_FOLD = "out_of_fold.npz"


def build_network(
    context: StageContext,
    candidate: Candidate,
    classes: int,
    *,
    pretrained: bool = True,
    bottleneck: Bottleneck | None = None,
    head: Head = LINEAR,
    task: Task = "classification",
    role: str = "source",
) -> Network:
    """Backbone from the model source in `role`, and a head of `classes`. Random weights follow the seed."""
    source = cast(ModelSource, context.build(role))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_seed(context.job.seed, "network"))
        backbone = source.build(candidate, classes=0, pretrained=pretrained)
    return make_network(
        backbone, classes, preprocess=preprocess_of(candidate), bottleneck=bottleneck, head=head, task=task
    )


def save_weights(folder: Path, network: Network) -> None:
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    (folder / WEIGHTS).write_bytes(save(state))


def load_network(
    context: StageContext, name: str, checkpoint: Checkpoint, *, role: str = "source"
) -> Network:
    """The trained network in the input `name`, on the CPU, in eval mode."""
    from safetensors.torch import load_file

    network = build_network(
        context,
        checkpoint.candidate,
        len(checkpoint.classes),
        pretrained=False,
        bottleneck=checkpoint.bottleneck,
        head=checkpoint.head,
        task=checkpoint.task,
        role=role,
    )
    network.load_state_dict(load_file(context.folder(name) / checkpoint.weights))
    return network.eval()


def save_predictions(folder: Path, rows: NDArray[np.int64], probabilities: NDArray[np.float32]) -> None:
    np.savez(folder / _PREDICTIONS, rows=rows, probabilities=probabilities)


def load_predictions(folder: Path, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The answers [n, K] to the given rows of the table: probabilities, or numbers."""
    with np.load(folder / _PREDICTIONS, allow_pickle=False) as stored:
        place = {int(row): position for position, row in enumerate(stored["rows"])}
        probabilities: NDArray[np.float32] = stored["probabilities"][[place[int(row)] for row in rows]]
    return probabilities


def save_out_of_fold(folder: Path, rows: NDArray[np.int64], probabilities: NDArray[np.float32]) -> None:
    np.savez(folder / _OUT_OF_FOLD, rows=rows, probabilities=probabilities)


def load_out_of_fold(folder: Path) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """Labelled training images, as rows of the table [n], and what networks that did not train on them say [n, K].

    None where the training left no such predictions.
    """
    if not (folder / _OUT_OF_FOLD).is_file():
        return None
    with np.load(folder / _OUT_OF_FOLD, allow_pickle=False) as stored:
        rows: NDArray[np.int64] = stored["rows"]
        probabilities: NDArray[np.float32] = stored["probabilities"]
    return rows, probabilities
