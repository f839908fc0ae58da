"""The one training loop (DECISIONS, 1): carries out a plan, chooses the epoch, survives being killed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlcore.errors import PluginError, UserError
from tlcore.training.host import PhaseHost
from tlcore.training.job import Measured, TrainJob, TrainResult
from tlcore.training.network import Network
from tlcore.training.parameters import (
    freeze_statistics,
    learning_rate_factor,
    make_optimizer,
    rest_frozen_stages,
    select,
    trainable,
)
from tlcore.training.plan import Batch, HeadFit, HeadProblem, Phase, Stream
from tlcore.training.predict import predict, predict_features
from tlcore.training.resume import load_state, save_state
from tlcore.training.streams import draw_seed
from tlcore.values import Epoch

__all__ = ["run_plan"]


@dataclass
class _State:
    """Everything that changes while a plan runs; what the resume file holds."""

    phase: int = 0
    step: int = 0
    history: list[Epoch] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    epoch_seconds: float = 0.0
    best: dict[str, Any] | None = None
    best_choice: tuple[float, ...] | None = None
    best_epoch: int | None = None
    best_shown: dict[str, float] = field(default_factory=dict)
    best_phase: str = ""
    warned: bool = False
    stopped: str = ""
    earlier_seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    """Of this process; not saved."""


def run_plan(job: TrainJob) -> TrainResult:
    """Carry out the plan, from the resume file if there is one.

    The random numbers of a step depend on (seed, phase, step) alone, so a killed and resumed training ends
    with the weights of an unbroken one on the same machine, threads and libraries.

    Raises:
        PluginError: the plan, an objective or a head fit broke its contract, or the loss is not finite.
    """
    if job.plan.bottleneck is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(job.seed, "bottleneck"))
            job.network.renew_head(job.plan.bottleneck)
    state, saved = _State(), load_state(job.scratch)
    if saved is not None:
        state = _restore(job, saved)
    resumed = None if saved is None else state.step
    job.network.to(job.device)
    job.network.to(memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=[]):
        while state.phase < len(job.plan.phases):
            phase = job.plan.phases[state.phase]
            if isinstance(phase, HeadFit):
                _fit_head(job, phase, state)
            else:
                _run_phase(job, phase, state, saved)
            saved = None
            state.phase, state.step, state.warned = state.phase + 1, 0, False
            _save(job, state, None, [])
    job.network.eval()
    for value in job.network.parameters():
        value.requires_grad_(True)
    return TrainResult(
        tuple(state.history),
        state.best_phase,
        state.best_epoch,
        state.best_shown,
        resumed,
        state.stopped,
        state.earlier_seconds,
    )


def _fit_head(job: TrainJob, phase: HeadFit, state: _State) -> None:
    started = time.monotonic()
    source = job.streams["source"]
    if source.labels is None:
        raise PluginError(f'the head fit "{phase.name}" needs labelled images')
    job.progress(0, 1, phase.name)
    target = _head_inputs(job, state, "target") if len(job.streams.get("target", ())) else None
    problem = HeadProblem(
        _head_inputs(job, state, "source"), source.labels, job.task.classes, job.seed, target
    )
    weight, bias, notes = phase.fit(problem)
    shape = tuple(job.network.head.weight.shape)
    if (
        tuple(weight.shape) != shape
        or tuple(bias.shape) != shape[:1]
        or not (np.isfinite(weight).all() and np.isfinite(bias).all())
    ):
        raise PluginError(
            f'the head fit "{phase.name}" gave weight {weight.shape} and bias {bias.shape}; '
            f"finite {shape} and {shape[:1]} expected"
        )
    with torch.no_grad():
        job.network.head.weight.copy_(torch.from_numpy(np.asarray(weight)))
        job.network.head.bias.copy_(torch.from_numpy(np.asarray(bias)))
    measured = job.measure(job.network)
    seconds = round(time.monotonic() - started, 3)
    state.history.append(
        Epoch(phase=phase.name, epoch=1, losses=dict(notes), measures=dict(measured.shown), seconds=seconds)
    )
    state.best_phase, state.best_epoch, state.best_shown = phase.name, None, dict(measured.shown)
    job.progress(1, 1, phase.name)


def _head_inputs(job: TrainJob, state: _State, name: Stream) -> NDArray[np.float32]:
    """The head's inputs for all images of a stream, by the network as it is."""
    known = job.known_features(name, state.phase)
    if known is not None:
        return predict_features(job.network, known, device=job.device)[0]
    stream = job.streams[name]
    return predict(job.network, stream.pixels, stream.rows, job.preprocess, device=job.device)[0]


def _run_phase(job: TrainJob, phase: Phase, state: _State, saved: dict[str, Any] | None) -> None:
    network = job.network
    for needed in phase.streams:
        if needed not in job.streams or len(job.streams[needed]) == 0:
            raise UserError(f'the phase "{phase.name}" needs {needed} images and there are none')
    streams = {name: job.streams[name] for name in phase.streams}
    torch.manual_seed(draw_seed(job.seed, state.phase, "setup"))
    host = PhaseHost(job, state.phase, streams)
    own = phase.objective.setup(host.setup(0))
    if own is not None:
        own.to(job.device)
    trainable(network, own, phase)
    moves = [
        (move, getattr(phase.objective, move.loss), make_optimizer(network, own, phase, move))
        for move in phase.moves
    ]
    optimizers = [made for _, _, made in moves if made is not None]
    if saved is not None and state.step > 0:
        if own is not None:
            own.load_state_dict(saved["objective"])
        for stepper, values in zip(optimizers, saved["optimizers"], strict=True):
            stepper.load_state_dict(values)
    else:
        state.best, state.best_choice, state.best_epoch = None, None, None
        if phase.choose == "best" and job.start_counts:
            _consider(job, phase, state, 0, job.measure(network))
    moved = {
        id(p): p
        for move in phase.moves
        for g in move.groups
        for p in select(network, own, g.parameters).values()
    }.values()
    per_epoch, total = host.steps_per_epoch, host.steps_per_epoch * phase.epochs
    last_save, ready = time.monotonic(), False
    while state.step < total:
        epoch, place = divmod(state.step, per_epoch)
        started = time.monotonic()
        if place == 0:
            phase.objective.epoch_started(host.setup(epoch))
        if place == 0 or not (ready and network.training):
            _training_mode(network, own, phase)  # looks at the network leave it in the other mode
            ready = True
        _seed(draw_seed(job.seed, state.phase, state.step), job.device)
        batch = host.batch(state.step, total)
        factor = learning_rate_factor(phase, state.step, total)
        for move, loss, optimizer in moves:
            losses = (
                loss(host.network, batch) if optimizer is not None else _passed(loss, host.network, batch)
            )
            if optimizer is not None:
                _step(job, phase, state, move.loss, losses, optimizer, factor, moved)
            for name, value in losses.items():
                state.sums[name] = state.sums.get(name, 0.0) + _finite(phase, state, name, value.item())
        state.step += 1
        state.epoch_seconds += time.monotonic() - started
        if state.step % per_epoch == 0 and _end_epoch(job, phase, state, per_epoch):
            state.step = total
        if state.step == total or time.monotonic() - last_save >= job.save_seconds:
            _save(job, state, own, optimizers)
            last_save = time.monotonic()
        job.progress(state.step, total, f"{phase.name}, epoch {epoch + 1}/{phase.epochs}")
    if phase.choose == "best" and state.best is not None:
        network.load_state_dict(state.best)
    state.best = None


def _seed(seed: int, device: str) -> None:
    """As torch.manual_seed, but for the processor and this device alone: for every kind of accelerator that is not
    there it keeps the call, and its stack, for later."""
    torch.default_generator.manual_seed(seed)
    kind = torch.device(device)
    if kind.type != "cpu":
        torch.get_device_module(kind).manual_seed(seed)


def _passed(
    loss: Callable[[Network, Batch], Mapping[str, torch.Tensor]], network: Network, batch: Batch
) -> Mapping[str, torch.Tensor]:
    with torch.no_grad():
        return loss(network, batch)


def _training_mode(network: Network, own: nn.Module | None, phase: Phase) -> None:
    network.train()
    rest_frozen_stages(network)
    if phase.frozen_statistics:
        freeze_statistics(network)
    if own is not None:
        own.train()


def _step(
    job: TrainJob, phase: Phase, state: _State, name: str, losses: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer,
    factor: float, moved: Any,
) -> None:  # fmt: skip
    if "total" not in losses:
        raise PluginError(
            f'the loss "{name}" of phase "{phase.name}" names no "total"; it has: {", ".join(losses)}'
        )
    total = losses["total"]
    if not math.isfinite(total.item()):
        rate = max(group["peak"] for group in optimizer.param_groups) * factor
        raise PluginError(
            f'the loss of phase "{phase.name}" is {total.item()} at step {state.step + 1}',
            hint=f"use a smaller learning rate; at this step it was {rate:.2g}",
        )
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    # All moves of a batch share the parameters: gradients of the one before must be gone.
    for value in moved:
        value.grad = None
    total.backward()  # type: ignore[no-untyped-call]
    if phase.clip_norm is not None:
        own = [value for group in optimizer.param_groups for value in group["params"]]
        norm = torch.nn.utils.get_total_norm([value.grad for value in own if value.grad is not None])
        if norm > phase.clip_norm:  # mostly it is not, and clip_grad_norm_ would multiply by one
            torch.nn.utils.clip_grads_with_norm_(own, phase.clip_norm, norm)
    optimizer.step()


def _finite(phase: Phase, state: _State, name: str, value: float) -> float:
    if not math.isfinite(value):
        raise PluginError(
            f'"{name}" of phase "{phase.name}" is {value} at step {state.step + 1}',
            hint="use a smaller learning rate, or have the objective leave out what is not defined on a batch",
        )
    return value


def _end_epoch(job: TrainJob, phase: Phase, state: _State, per_epoch: int) -> bool:
    """Look at the network, and say whether the phase ends here."""
    epoch = state.step // per_epoch
    measured = Measured((), {}) if phase.choose == "end" else job.measure(job.network)
    for name, shown in measured.shown.items():
        _finite(phase, state, name, shown)
    state.history.append(
        Epoch(
            phase=phase.name,
            epoch=epoch,
            losses={name: value / per_epoch for name, value in state.sums.items()},
            measures=dict(measured.shown),
            seconds=round(state.epoch_seconds, 3),
        )
    )
    state.sums, state.epoch_seconds = {}, 0.0
    if phase.choose == "best":
        _consider(job, phase, state, epoch, measured)
    else:
        state.best_phase, state.best_epoch, state.best_shown = phase.name, epoch, dict(measured.shown)
    # One look may be bad luck: the second in a row ends the phase.
    ends = bool(measured.stop) and state.warned
    if ends:
        state.stopped = f"{phase.name}, epoch {epoch} of {phase.epochs}: {measured.stop}"
    state.warned = bool(measured.stop)
    return ends


def _consider(job: TrainJob, phase: Phase, state: _State, epoch: int, measured: Measured) -> None:
    """Keep these weights when they are strictly better: among equals the earliest stays."""
    if state.best_choice is None or measured.choice > state.best_choice:
        state.best = {name: value.detach().cpu().clone() for name, value in job.network.state_dict().items()}
        state.best_choice, state.best_epoch, state.best_phase = measured.choice, epoch, phase.name
        state.best_shown = dict(measured.shown)


def _save(
    job: TrainJob, state: _State, own: nn.Module | None, optimizers: list[torch.optim.Optimizer]
) -> None:
    save_state(
        job.scratch,
        {
            "network": job.network.state_dict(),
            "objective": own.state_dict() if own is not None else {},
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "best": state.best,
            "plain": json.dumps(
                {
                    "phase": state.phase, "step": state.step, "sums": state.sums, "epoch_seconds": state.epoch_seconds,
                    "best_choice": state.best_choice, "best_epoch": state.best_epoch, "best_shown": state.best_shown,
                    "best_phase": state.best_phase, "stopped": state.stopped, "warned": state.warned,
                    "earlier_seconds": state.earlier_seconds + time.monotonic() - state.started,
                    "history": [line.model_dump() for line in state.history],
                }
            ),
        },
    )  # fmt: skip


def _restore(job: TrainJob, saved: dict[str, Any]) -> _State:
    plain = json.loads(saved["plain"])
    job.network.load_state_dict(saved["network"])
    history = [Epoch.model_validate(line) for line in plain.pop("history")]
    choice = plain.pop("best_choice")
    return _State(
        **plain, history=history, best=saved["best"], best_choice=None if choice is None else tuple(choice)
    )
