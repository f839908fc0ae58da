"""The one training loop (DECISIONS, 1): carries out a plan, chooses the epoch, survives being killed and diverging."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tlcore.errors import PluginError
from tlcore.training.job import Picked, TrainJob, TrainResult
from tlcore.training.phase_run import PhaseRun
from tlcore.training.plan import HeadFit, HeadProblem, Phase, Solved, Stream
from tlcore.training.predict import predict, predict_features
from tlcore.training.state import GOOD, State, restore, save
from tlcore.training.steps import Diverged
from tlcore.training.streams import draw_seed
from tlcore.values import Epoch

__all__ = ["run_plan"]

SETBACKS = 2
"""How often a phase that diverges goes back to its last good point, each time with half the learning rates."""


def run_plan(job: TrainJob) -> TrainResult:
    """Carry out the plan, from the resume file if there is one.

    The random numbers of a step depend on (seed, phase, step) alone, so a killed and resumed training ends
    with the weights of an unbroken one on the same machine, threads and libraries; but where a budget bounds it, since
    then the clock decides.

    Raises:
        PluginError: the plan, an objective or a head fit broke its contract, or training diverged three times.
        Pruned: `job.after_epoch` has seen enough.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_seed(job.seed, "bottleneck"))
        if job.plan.bottleneck is not None:
            job.network.renew_head(job.plan.bottleneck)
        if job.plan.transform is not None:
            job.plan.transform.apply(job.network)
    job.processes.wait()  # no one writes before all have read
    found = restore(job)
    state, saved = (State(), None) if found is None else found
    resumed = None if found is None else state.step
    job.network.to(job.device)
    job.network.to(memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=[]):
        while state.phase < len(job.plan.phases):
            job.processes.agree(job.network)
            phase = job.plan.phases[state.phase]
            if isinstance(phase, HeadFit):
                _fit_head(job, phase, state)
            else:
                state = _run_phase(job, phase, state, saved)
            saved = None
            state.next_phase()
            save(job, state, None, [])
    if job.plan.transform is not None:
        job.plan.transform.merge(job.network)
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
        state.picked,
        tuple(state.notes),
        state.late,
    )


def _run_phase(job: TrainJob, phase: Phase, state: State, saved: dict[str, Any] | None) -> State:
    while True:
        try:
            PhaseRun(job, phase, state, saved).run()
            return state
        except Diverged as seen:
            step, rate, setbacks = state.step + 1, state.rate, state.setbacks
            if setbacks == SETBACKS:
                raise PluginError(
                    f'phase "{phase.name}" diverged at step {step}: {seen}; {SETBACKS} restarts from the last good '
                    "point, each with half the learning rates, did not help",
                    hint=f"use a smaller learning rate: {_rates(phase, rate)} was too much",
                ) from None
            job.processes.wait()
            found = restore(job, GOOD)
            if found is None:
                raise PluginError(f'phase "{phase.name}" diverged at step {step}: {seen}') from None
            spent = state.seconds
            state, saved = found
            state.earlier_seconds, state.started = spent, time.monotonic()
            state.rate, state.setbacks = rate / 2, setbacks + 1
            state.note(
                f"{phase.name} diverged at step {step} ({seen}): taken up again from step {state.good_step + 1} with "
                f"{state.rate:g} of the learning rates"
            )


def _rates(phase: Phase, rate: float) -> str:
    peaks = sorted({group.lr * rate for move in phase.moves for group in move.groups})
    return " and ".join(f"{peak:.2g}" for peak in peaks)


def _fit_head(job: TrainJob, phase: HeadFit, state: State) -> None:
    started = time.monotonic()
    source = job.streams["source"]
    if source.labels is None:
        raise PluginError(f'the head fit "{phase.name}" needs labelled images')
    job.progress(0, 1, phase.name)
    target = _head_inputs(job, state, "target") if len(job.streams.get("target", ())) else None
    problem = HeadProblem(
        _head_inputs(job, state, "source"),
        source.labels,
        job.task.classes,
        job.seed,
        target,
        job.task.task,
        job.text,
        source.groups,
    )
    fitted = phase.fit(problem)
    if not isinstance(fitted, Solved):
        weight, bias, notes = fitted
        fitted = Solved({"weight": weight, "bias": bias}, notes=notes)
    job.network.set_head(fitted, fit=phase.name)
    measured = job.measure(job.network)
    line = _line(phase, fitted.notes, measured.shown, started)
    state.history.append(line)
    state.best_phase, state.best_epoch, state.best_shown = phase.name, None, dict(measured.shown)
    state.picked[state.phase] = Picked(1)
    job.after_epoch(line)
    job.progress(1, 1, phase.name)


def _line(phase: HeadFit, notes: Mapping[str, float], shown: Mapping[str, float], started: float) -> Epoch:
    return Epoch(
        phase=phase.name,
        epoch=1,
        losses=dict(notes),
        measures=dict(shown),
        seconds=round(time.monotonic() - started, 3),
    )


def _head_inputs(job: TrainJob, state: State, name: Stream) -> NDArray[np.float32]:
    """The head's inputs for all images of a stream, by the network as it is."""
    known = job.known_features(name, state.phase)
    if known is not None:
        return predict_features(job.network, known, device=job.device)[0]
    stream = job.streams[name]
    return predict(job.network, stream.pixels, stream.rows, job.preprocess, device=job.device)[0]
