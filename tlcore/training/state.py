"""Everything that changes while a plan runs, and the files that a killed training goes on from."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tlcore.training.job import Picked, TrainJob
from tlcore.training.resume import load_state, save_state
from tlcore.values import Epoch, Head

__all__ = ["GOOD", "START", "State", "restore", "save"]

GOOD = "good.pt"
"""The last point from which training went on well: what a diverged one goes back to."""
START = "start.pt"
"""The weights that a phase started from, where its end is interpolated with them."""

_PLAIN = (
    "phase", "step", "since", "sums", "epoch_seconds", "best_choice", "best_epoch", "best_phase", "best_shown",
    "best_share", "fruitless", "warned", "stopped", "first_loss", "rate", "setbacks", "good_step", "opened", "deadline",
    "precision", "notes", "ended", "late",
)  # fmt: skip


@dataclass
class State:
    """Where a plan is.

    ended: the phase takes no further step, whatever was planned. since: steps since the last look. fruitless: looks
    in a row without a better one. rate: share of the learning rates that is left after setbacks. good_step: the step
    of the GOOD file. opened, deadline: seconds of the whole training at which the phase began and has to end.
    """

    phase: int = 0
    step: int = 0
    since: int = 0
    history: list[Epoch] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    epoch_seconds: float = 0.0
    best: dict[str, Any] | None = None
    best_choice: tuple[float, ...] | None = None
    best_epoch: int | None = None
    best_shown: dict[str, float] = field(default_factory=dict)
    best_phase: str = ""
    best_share: float = 1.0
    fruitless: int = 0
    warned: bool = False
    stopped: str = ""
    ended: bool = False
    late: bool = False
    """Whether the budget ended a phase."""
    first_loss: float | None = None
    rate: float = 1.0
    setbacks: int = 0
    good_step: int = 0
    opened: float = 0.0
    deadline: float | None = None
    precision: str = ""
    notes: list[str] = field(default_factory=list)
    picked: dict[int, Picked] = field(default_factory=dict)
    earlier_seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    """Of this process; not saved."""

    @property
    def seconds(self) -> float:
        """That the training has taken, in this process and in those that were killed."""
        return self.earlier_seconds + time.monotonic() - self.started

    def next_phase(self) -> None:
        """Forget what belongs to the phase that is over."""
        self.phase, self.step, self.since, self.good_step = self.phase + 1, 0, 0, 0
        self.warned, self.first_loss, self.rate, self.setbacks = False, None, 1.0, 0
        self.deadline, self.precision, self.best_share, self.ended = None, "", 1.0, False

    def note(self, text: str) -> None:
        if text and text not in self.notes:
            self.notes.append(text)


def save(
    job: TrainJob,
    state: State,
    own: nn.Module | None,
    optimizers: list[torch.optim.Optimizer],
    mean: nn.Module | None = None,
    name: str | None = None,
) -> None:
    """Write all that is needed to go on; only the first of several processes does. mean: the running mean of the
    weights. name: of the file; None: the resume file."""
    if not job.processes.first:
        return
    plain = {key: getattr(state, key) for key in _PLAIN}
    save_state(
        job.scratch,
        {
            "network": job.network.state_dict(),
            "objective": own.state_dict() if own is not None else {},
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "mean": mean.state_dict() if mean is not None else {},
            "best": state.best,
            "plain": json.dumps(
                {
                    **plain,
                    "head": job.network.head_shape.model_dump(),
                    "earlier_seconds": state.seconds,
                    "picked": {phase: [end.epoch, end.share] for phase, end in state.picked.items()},
                    "history": [line.model_dump() for line in state.history],
                }
            ),
        },
        name,
    )


def restore(job: TrainJob, name: str | None = None) -> tuple[State, dict[str, Any]] | None:
    """The state in a file, the network's weights put in place; None where there is no file."""
    saved = load_state(job.scratch, name)
    if saved is None:
        return None
    plain = json.loads(saved["plain"])
    head = Head.model_validate(plain.pop("head"))
    if head != job.network.head_shape:
        job.network.put_head(head)
    job.network.load_state_dict(saved["network"])
    history = [Epoch.model_validate(line) for line in plain.pop("history")]
    picked = {int(phase): Picked(*end) for phase, end in plain.pop("picked").items()}
    choice = plain.pop("best_choice")
    state = State(
        **plain,
        history=history,
        picked=picked,
        best=saved["best"],
        best_choice=None if choice is None else tuple(choice),
    )
    return state, saved
