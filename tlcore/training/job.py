"""What the host hands to the training loop, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tlcore.protocols import TrainTask
from tlcore.training.network import Network
from tlcore.training.plan import Stream, TrainPlan
from tlcore.training.processes import ALONE, Processes
from tlcore.training.streams import StreamData
from tlcore.values import Epoch, Preprocess

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Measured", "Picked", "Pruned", "TrainJob", "TrainResult"]


@dataclass(frozen=True)
class Measured:
    """One look at the network. `choice`: larger is better, compared element by element. `shown`: for the curves.
    `stop`: why training should end here, in one phrase; said at two looks in a row it ends the phase."""

    choice: tuple[float, ...]
    shown: Mapping[str, float]
    stop: str = ""


@dataclass(frozen=True)
class Picked:
    """What a phase ended with: the epoch that was kept, 0 being its start, and its share in weight space (WiSE)."""

    epoch: int
    share: float = 1.0


class Pruned(Exception):
    """Raised by `TrainJob.after_epoch` to end a training that is not worth going on with."""


@dataclass(frozen=True)
class TrainJob:
    """What the host hands to the loop.

    Attributes:
        network: changed in place; ends with the chosen weights.
        streams: the training images by stream; the target has no labels.
        measure: looks at the network after each epoch.
        start_counts: whether the weights before a phase compete with its epochs.
        features: float32 [n, backbone_dim] of streams by the untouched backbone, where they are known already.
        scratch: folder for the resume file.
        save_seconds: at least this long between two resume files.
        budget: seconds after which training ends with the best it has found; rates fall to their end in that time.
        precision: "bf16": forward passes on images under autocast; "auto": where that is measured to be faster and
            to agree (tlcore.training.precision). decisions: folder that remembers such measurements, by the name
            `architecture`.
        fixed: by number of a phase, what it ends with: nothing is measured and chosen any more.
        after_epoch: called with each line of the history; may raise `Pruned`.
        processes: that share every batch.
        kept: folder of kept activations that several trainings share, and all rows that they draw from; None: the
            training's own.
        source_head, teacher, text: as in `Setup` and `HeadProblem`.
    """

    network: Network
    preprocess: Preprocess
    task: TrainTask
    plan: TrainPlan
    streams: Mapping[Stream, StreamData]
    measure: Callable[[Network], Measured]
    scratch: Path
    seed: int = 0
    device: str = "cpu"
    start_counts: bool = True
    features: Mapping[Stream, NDArray[np.float32]] = field(default_factory=dict)
    save_seconds: float = 10.0
    progress: Callable[[int, int, str], None] = lambda done, total, text: None
    budget: float | None = None
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    decisions: Path | None = None
    architecture: str = ""
    fixed: Mapping[int, Picked] | None = None
    after_epoch: Callable[[Epoch], None] = lambda epoch: None
    processes: Processes = ALONE
    kept: tuple[Path, NDArray[np.int64]] | None = None
    source_head: nn.Linear | None = None
    teacher: NDArray[np.float32] | None = None
    text: Callable[[Sequence[str]], NDArray[np.float32]] | None = None

    def known_features(self, name: Stream, phase: int) -> NDArray[np.float32] | None:
        """`features` of a stream, if they are still those of the backbone when phase number `phase` begins."""
        return self.features.get(name) if self.plan.backbone_kept_until(phase) else None


@dataclass(frozen=True)
class TrainResult:
    """chosen_epoch counts from 1 inside its phase; 0 is the state before the phase, None a head fit.
    stopped: where and why a phase ended early; empty where none did. earlier_seconds: what processes that were killed
    had spent on what was saved. picked: by number of a phase. notes: what training decided by itself, for people.
    late: whether the budget ended a phase."""

    history: tuple[Epoch, ...]
    chosen_phase: str
    chosen_epoch: int | None
    measures: Mapping[str, float]
    resumed_from_step: int | None
    stopped: str = ""
    earlier_seconds: float = 0.0
    picked: Mapping[int, Picked] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    late: bool = False
