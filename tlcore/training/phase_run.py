"""One phase of a plan: its steps, its looks at the network, and the way back where it diverges."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from typing import Any, cast

import torch
from torch import nn

from tlcore.errors import UserError
from tlcore.training.host import PhaseHost
from tlcore.training.job import Measured, Picked, TrainJob
from tlcore.training.network import Network
from tlcore.training.parameters import (
    freeze_statistics,
    learning_rate_factor,
    make_optimizer,
    rest_frozen_stages,
    select,
    trainable,
)
from tlcore.training.plan import Batch, Losses, Phase, View
from tlcore.training.precision import Precision, autocast, choose_precision
from tlcore.training.resume import load_state, save_state
from tlcore.training.state import GOOD, START, State, save
from tlcore.training.steps import GradientStep, finite
from tlcore.training.streams import draw_seed
from tlcore.values import Epoch

__all__ = ["PhaseRun"]

_WORTH_MEASURING = 50_000_000
"""Pixels that a phase looks at, from which on measuring bf16 costs little of its time: 1,000 images of 224 pixels. By this
and not by a clock, so that small trainings end alike every time."""
_BETWEEN_GOOD = 100
"""Steps between two points that a diverged training can go back to, at least: each is a file."""


class PhaseRun:
    """Carries out one phase from where the state is.

    Raises (run): Diverged: what it says; the caller goes back.
    """

    def __init__(self, job: TrainJob, phase: Phase, state: State, saved: dict[str, Any] | None) -> None:
        self.job, self.phase, self.state = job, phase, state
        for needed in phase.streams:
            if needed not in job.streams or len(job.streams[needed]) == 0:
                raise UserError(f'the phase "{phase.name}" needs {needed} images and there are none')
        fixed = None if job.fixed is None else job.fixed.get(state.phase, Picked(phase.epochs))
        self.fixed = fixed
        self.choose = phase.choose if fixed is None else "end"
        streams = {name: job.streams[name] for name in phase.streams}
        torch.manual_seed(draw_seed(job.seed, state.phase, "setup"))
        self.host = PhaseHost(job, state.phase, streams)
        self.per_epoch, self.total = self.host.steps_per_epoch, self.host.steps_per_epoch * phase.epochs
        self.last = self.total if fixed is None else min(self.total, fixed.epoch * self.per_epoch)
        self.own = phase.objective.setup(self.host.setup(0))
        if self.own is not None:
            self.own.to(job.device)
        trainable(job.network, self.own, phase)
        self.moves: list[tuple[Callable[..., Losses], GradientStep | None]] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        for move in phase.moves:
            loss, optimizer = (
                getattr(phase.objective, move.loss),
                make_optimizer(job.network, self.own, phase, move),
            )
            step = None
            if optimizer is not None:
                self.optimizers.append(optimizer)
                step = GradientStep(
                    phase, move.loss, loss, self.host.network, optimizer, job.processes, self.autocast
                )
            self.moves.append((loss, step))
        self.moved = list({id(value): value for value in self._moved()}.values())
        self._precision()
        self.mean = self._mean_of_weights()
        if saved is not None and state.step > 0:
            self._take_up(saved)
        else:
            self._begin()

    def run(self) -> None:
        state, phase = self.state, self.phase
        last_save, ready = time.monotonic(), False
        try:
            while state.step < self.last and not state.ended and not self._late():
                epoch, place = divmod(state.step, self.per_epoch)
                started = time.monotonic()
                if place == 0:
                    phase.objective.epoch_started(self.host.setup(epoch))
                if place == 0 or not (ready and self.job.network.training):
                    self._training_mode()  # looks at the network leave it in the other mode
                    ready = True
                self._step()
                state.step += 1
                state.since += 1
                state.epoch_seconds += time.monotonic() - started
                if state.step % self.per_epoch == 0:
                    state.ended = self._end_epoch()
                if (
                    state.ended
                    or state.step == self.last
                    or time.monotonic() - last_save >= self.job.save_seconds
                ):
                    self._save()
                    last_save = time.monotonic()
                self.job.progress(state.step, self.total, f"{phase.name}, epoch {epoch + 1}/{phase.epochs}")
        finally:
            self.host.close()
        for note in self.host.notes:
            state.note(note)
        if state.since:  # the budget ended the phase within an epoch
            self._end_epoch()
        self._finish()

    # One step

    def _step(self) -> None:
        state, job = self.state, self.job
        reached = self._reached()
        seed = draw_seed(job.seed, state.phase, state.step)

        def again() -> None:
            _seed(seed, job.device)

        again()
        batch = self.host.batch(state.step, reached / self.total, self.last)
        rate = learning_rate_factor(self.phase, reached, self.total) * state.rate
        for loss, step in self.moves:
            if step is None:
                losses = self._passed(loss, batch)
            else:
                for moved in self.moved:  # all moves share them: gradients of the one before must be gone
                    moved.grad = None
                losses = step(batch, rate, self.host.weight, state.first_loss, again)
                if state.first_loss is None:
                    state.first_loss = losses["total"].item()
            for name, number in finite({name: value.detach() for name, value in losses.items()}).items():
                state.sums[name] = state.sums.get(name, 0.0) + number
        if self.mean is not None:
            self.mean.update(job.network, step=state.step + 2)  # its first two steps only copy

    def _passed(self, loss: Callable[..., Losses], batch: Batch) -> Losses:
        with torch.no_grad():
            return loss(self.host.network, batch)

    def _reached(self) -> int:
        """Steps done, or the same share of all steps as of the time that there is, where that is more."""
        state = self.state
        if state.deadline is None:
            return state.step
        gone = self.job.processes.agree_on(state.seconds)
        share = (gone - state.opened) / max(1e-9, state.deadline - state.opened)
        return max(state.step, min(self.total - 1, int(share * self.total)))

    def _late(self) -> bool:
        state = self.state
        if state.deadline is None or self.job.processes.agree_on(state.seconds) < state.deadline:
            return False
        epochs, state.late = state.step / self.per_epoch, True
        state.stopped = f"{self.phase.name}, {epochs:.1f} of {self.phase.epochs} epochs: the budget of {self.job.budget:g} s"
        return True

    def _training_mode(self) -> None:
        network = self.job.network
        network.train()
        self.host.network.train()
        rest_frozen_stages(network)
        if self.phase.frozen_statistics:
            freeze_statistics(network)
        if self.own is not None:
            self.own.train()

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast("bf16" if self.state.precision == "bf16" else "fp32", self.job.device)

    # Looks

    @property
    def looked_at(self) -> Network:
        """The network as it is measured and kept: the mean of its weights where the phase asks for it."""
        return self.job.network if self.mean is None else cast(Network, self.mean.module)

    def _end_epoch(self) -> bool:
        """Look at the network, and say whether the phase ends here."""
        job, phase, state = self.job, self.phase, self.state
        steps, state.since = state.since, 0
        epoch = -(-state.step // self.per_epoch)
        measured = Measured((), {}) if self.choose == "end" else job.measure(self.looked_at)
        line = Epoch(
            phase=phase.name,
            epoch=epoch,
            losses={name: value / steps for name, value in state.sums.items()},
            measures=finite(measured.shown),
            seconds=round(state.epoch_seconds, 3),
        )
        state.history.append(line)
        state.sums, state.epoch_seconds = {}, 0.0
        if self.choose == "best":
            state.fruitless = 0 if self._consider(epoch, measured) else state.fruitless + 1
        else:
            state.best_phase, state.best_epoch, state.best_shown = phase.name, epoch, dict(measured.shown)
        # One look may be bad luck: the second in a row ends the phase.
        ends = bool(measured.stop) and state.warned
        if ends:
            state.stopped = f"{phase.name}, epoch {epoch} of {phase.epochs}: {measured.stop}"
        if phase.patience is not None and self.choose == "best" and state.fruitless >= phase.patience:
            ends = True
            state.stopped = (
                f"{phase.name}, epoch {epoch} of {phase.epochs}: no better one in {phase.patience}"
            )
        state.warned = bool(measured.stop)
        job.after_epoch(line)
        if not ends and state.step < self.last and state.step - state.good_step >= _BETWEEN_GOOD:
            self._remember()
        return ends

    def _consider(self, epoch: int, measured: Measured, share: float = 1.0) -> bool:
        """Keep these weights when they are strictly better: among equals the earliest stays."""
        state = self.state
        if state.best_choice is not None and measured.choice <= state.best_choice:
            return False
        current = self.looked_at.state_dict()
        if state.best is None:
            state.best = {name: value.detach().cpu().clone() for name, value in current.items()}
        else:
            for name, value in current.items():
                state.best[name].copy_(value)
        state.best_choice, state.best_epoch, state.best_phase = measured.choice, epoch, self.phase.name
        state.best_shown, state.best_share = dict(measured.shown), share
        return True

    def _finish(self) -> None:
        state, network = self.state, self.job.network
        if self.choose == "best" and state.best is not None:
            network.load_state_dict(state.best)
            self._interpolate()
        elif self.mean is not None:
            network.load_state_dict(self.mean.module.state_dict())
        if self.fixed is not None:
            if self.fixed.share < 1:
                self._blend(network.state_dict(), self.fixed.share)
            state.picked[state.phase] = self.fixed
        else:
            kept = state.best_epoch if state.best_phase == self.phase.name else None
            state.picked[state.phase] = Picked(self.phase.epochs if kept is None else kept, state.best_share)
        state.best = None

    def _interpolate(self) -> None:
        """(1 - a) start + a chosen for every share a, looked at like an epoch (Wortsman et al. 2022)."""
        state, job = self.state, self.job
        if not self.phase.interpolate or not state.best_epoch or state.best is None:
            return
        ended, epoch = {name: value.clone() for name, value in state.best.items()}, state.best_epoch
        self.mean = None  # from here on the network itself is looked at
        for share in self.phase.interpolate:
            self._blend(ended, share)
            measured = job.measure(job.network)
            line = Epoch(
                phase=f"{self.phase.name} at {share:g}", epoch=epoch, measures=finite(measured.shown)
            )
            state.history.append(line)
            self._consider(epoch, measured, share)
            job.after_epoch(line)
        job.network.load_state_dict(state.best)

    def _blend(self, ended: dict[str, torch.Tensor], share: float) -> None:
        start = load_state(self.job.scratch, START)
        assert start is not None
        change = self.job.plan.transform
        mixed = {
            name: torch.lerp(start["network"][name].to(value), value, share)
            for name, value in ended.items()
            if value.is_floating_point() and (change is None or change.interpolates(name))
        }
        self.job.network.load_state_dict({**ended, **mixed})

    # Beginning, going on, going back

    def _begin(self) -> None:
        job, phase, state = self.job, self.phase, self.state
        state.best, state.best_choice, state.best_epoch, state.fruitless = None, None, None, 0
        if self.choose == "best" and job.start_counts:
            self._consider(0, job.measure(job.network))
        if job.budget is not None and state.deadline is None:
            rest = sum(part.epochs for part in job.plan.phases[state.phase :] if isinstance(part, Phase))
            state.opened = job.processes.agree_on(state.seconds)
            left = max(0.0, job.budget - state.opened)
            state.deadline = state.opened + left * phase.epochs / rest
        if job.processes.first and (phase.interpolate or (self.fixed is not None and self.fixed.share < 1)):
            save_state(job.scratch, {"network": job.network.state_dict()}, START)
        job.processes.wait()
        if self.last > 0:
            self._remember()

    def _take_up(self, saved: dict[str, Any]) -> None:
        if self.own is not None:
            self.own.load_state_dict(saved["objective"])
        for stepper, values in zip(self.optimizers, saved["optimizers"], strict=True):
            stepper.load_state_dict(values)
        if self.mean is not None:
            self.mean.module.load_state_dict(saved["mean"])

    def _remember(self) -> None:
        """This is a point to go back to."""
        self.state.good_step = self.state.step
        self._save(GOOD)

    def _save(self, name: str | None = None) -> None:
        mean = None if self.mean is None else self.mean.module
        save(self.job, self.state, self.own, self.optimizers, mean, name)

    def _mean_of_weights(self) -> Any:
        if self.phase.ema is None:
            return None
        from timm.utils import ModelEmaV3

        return ModelEmaV3(self.job.network, decay=self.phase.ema, use_warmup=True)

    def _precision(self) -> None:
        """What the forward passes compute in, decided once per phase."""
        job, phase, state = self.job, self.phase, self.state
        if state.precision:
            return
        state.precision = "fp32"
        if phase.inputs == "features" or not self.optimizers:
            return
        if job.precision != "auto":
            state.precision = job.precision
        elif self._pixels() >= _WORTH_MEASURING:
            found = self._measured_precision()
            state.precision = found.name
            state.note(f"{phase.name}: {found.why}")
        state.precision = "bf16" if job.processes.agree_on(float(state.precision == "bf16")) else "fp32"

    def _pixels(self) -> int:
        """That all planned steps together look at: of a fold and of a training that ends early as of a whole one."""
        return self.total * self.phase.batch_size * self.job.preprocess.height * self.job.preprocess.width

    def _measured_precision(self) -> Precision:
        job, phase = self.job, self.phase
        self._training_mode()
        _seed(draw_seed(job.seed, self.state.phase, 0), job.device)
        whole = self.host.batch(0, 0.0, 1)
        self.host.close()
        # Half of it: in float32 a whole one might be the most memory that the training ever needs.
        batch = replace(whole, source=_first_half(whole.source), target=_first_half(whole.target))
        inputs = next(part.inputs for part in (batch.source, batch.target) if part is not None)
        own = [] if self.own is None else [self.own]

        def loss_step() -> torch.Tensor:
            losses = [
                loss(self.host.network, batch)["total"] for loss, step in self.moves if step is not None
            ]
            return torch.stack(losses).sum()

        moved = "+".join(sorted({group.parameters for move in phase.moves for group in move.groups}))
        return choose_precision(
            nn.ModuleList([job.network, *own]), loss_step, job.device, folder=job.decisions, shape=tuple(inputs.shape),
            architecture=f"{job.architecture} {type(phase.objective).__name__} {moved}",
        )  # fmt: skip

    def _moved(self) -> Iterator[nn.Parameter]:
        for move in self.phase.moves:
            for group in move.groups:
                yield from select(self.job.network, self.own, group.parameters).values()


def _first_half(view: View | None) -> View | None:
    if view is None:
        return None
    count = max(2, len(view.inputs) // 2)
    parts: dict[str, Any] = {field.name: getattr(view, field.name) for field in fields(View)}
    for name, part in parts.items():
        parts[name] = part[:count] if isinstance(part, torch.Tensor) else part
    return View(**parts)


def _seed(seed: int, device: str) -> None:
    """As torch.manual_seed, but for the processor and this device alone: for every kind of accelerator that is not
    there it keeps the call, and its stack, for later."""
    torch.default_generator.manual_seed(seed)
    kind = torch.device(device)
    if kind.type != "cpu":
        torch.get_device_module(kind).manual_seed(seed)
