"""What one phase of a plan works on: its batches, and the host's answers to the objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from tlcore.features.normalisation import normalise
from tlcore.training.activations import ActivationStore
from tlcore.training.job import TrainJob
from tlcore.training.parameters import select
from tlcore.training.plan import Batch, Phase, Setup, Stream, View
from tlcore.training.predict import embed, predict, predict_features
from tlcore.training.prefetch import Prefetcher
from tlcore.training.split import Whole, split
from tlcore.training.streams import StreamData, draw_seed, passes, picked, view

__all__ = ["ACTIVATION_BYTES", "PhaseHost"]

ACTIVATION_BYTES = 8 * 2**30
"""Of the disk that kept activations may take; views that do not fit are left out."""

_Views = tuple[View | None, View | None]


class PhaseHost:
    """Batches of one phase that depend on the seed and the step alone.

    Attributes:
        network: what the objective is given: in a phase on features, the network without its backbone.
        steps_per_epoch: gradient steps between two looks at the network.
        weight: of this process's images in the last batch: its share of them times the number of processes.
        notes: what was decided about the inputs, for people.
    """

    def __init__(self, job: TrainJob, number: int, streams: Mapping[Stream, StreamData]) -> None:
        phase = job.plan.phases[number]
        assert isinstance(phase, Phase)
        self.job, self.phase, self.number, self.streams = job, phase, number, streams
        self.device = torch.device(job.device)
        main = streams.get("source", next(iter(streams.values())))
        self.steps_per_epoch = phase.steps_per_epoch or passes(len(main), phase.batch_size)
        self.network, self.weight = job.network, 1.0
        self.notes: list[str] = []
        self._features: dict[Stream, NDArray[np.float32]] = {}
        self._activations: ActivationStore | None = None
        if phase.inputs == "activations":
            self._cut()
        if phase.inputs == "features":
            self._features = {name: self._embedded(name) for name in streams}
            self.network = job.network.on_features()
        self._ahead: Prefetcher[_Views] | None = None

    def _cut(self) -> None:
        """Cut the backbone where training begins, and keep what enters there; else train from images, and say why."""
        job, phase, stream = self.job, self.phase, self.streams.get("source")
        moving = {
            name.removeprefix("backbone.")
            for move in phase.moves
            for group in move.groups
            if group.parameters != "objective"
            for name in select(job.network, None, group.parameters)
            if name.startswith("backbone.")
        }
        if stream is None or len(self.streams) > 1 or phase.strong_view or phase.mixup or phase.cutmix:
            self.notes.append(f"{phase.name}: from images, since batches are mixed or of two views")
            return
        some = torch.from_numpy(np.ascontiguousarray(stream.pixels[stream.rows[:4]])).to(self.device)
        cut = split(job.network.backbone, moving, normalise(some, job.preprocess))
        if isinstance(cut, Whole):
            self.notes.append(f"{phase.name}: from images, since {cut.why}")
            return
        folder, rows = job.kept or (job.scratch / "activations", stream.rows)
        self._places = np.searchsorted(rows, stream.rows)
        self._activations = ActivationStore(
            folder, cut.frozen, replace(stream, rows=rows, labels=None, domains=None, groups=None), job.preprocess,
            kind=phase.augment, views=phase.views, max_bytes=ACTIVATION_BYTES, seed=job.seed, phase=self.number,
            randaugment=phase.randaugment, device=self.device,
            on_progress=lambda done, total: job.progress(done, total, f"{phase.name}: what enters the stages that move"),
        )  # fmt: skip
        self.network = job.network.on_backbone(cut.rest)
        if self._activations.views < phase.views and phase.augment != "none":
            self.notes.append(
                f"{phase.name}: {self._activations.views} of {phase.views} views of each image fit on the disk"
            )

    def setup(self, epoch: int) -> Setup:
        job, source = self.job, self.job.streams.get("source")
        labels, groups = (None, None) if source is None else (source.labels, source.groups)
        return Setup(job.network, job.task, self._look, epoch, job.source_head, job.teacher, labels, groups)

    def batch(self, step: int, progress: float, last: int) -> Batch:
        """The batch of a step. last: the step at which the phase ends, for what is made ahead."""
        if self.phase.inputs == "features" or self._activations is not None:
            source, target = self._views(step)  # so little to do that a thread would cost more
        else:
            if self._ahead is None:
                self._ahead = Prefetcher(self._views, step, last)
            source, target = self._ahead.get(step)
        if self.job.processes.count > 1:
            name = next(iter(self.streams))
            images = len(self._index(name, step))
            self.weight = self.job.processes.taken(images) * self.job.processes.count / images
        return Batch(source, target, progress, step)

    def close(self) -> None:
        """End what makes batches ahead."""
        if self._ahead is not None:
            if self._ahead.workers:
                self.notes.append(
                    f"batches of {self.phase.name} made by {_threads(self._ahead.workers)} beside the training"
                )
            self._ahead.close()
            self._ahead = None

    def _views(self, step: int) -> _Views:
        views = {name: self._view(name, stream, step) for name, stream in self.streams.items()}
        return views.get("source"), views.get("target")

    def _embedded(self, name: Stream) -> NDArray[np.float32]:
        known = self.job.known_features(name, self.number)
        if known is not None:
            return known
        stream = self.streams[name]
        return embed(
            self.job.network, stream.pixels, stream.rows, self.job.preprocess, device=self.job.device
        )

    def _look(self, name: Stream) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if name in self._features:
            return predict_features(self.job.network, self._features[name], device=self.job.device)
        stream = self.job.streams[name]
        return predict(self.job.network, stream.pixels, stream.rows, self.job.preprocess, device=self.device)

    def _index(self, name: Stream, step: int) -> NDArray[np.int64]:
        return self.streams[name].batch(self.phase.batch_size, step, self.job.seed, self.number, name)

    def _view(self, name: Stream, stream: StreamData, step: int) -> View:
        job, processes = self.job, self.job.processes
        index = self._index(name, step)
        part = processes.part(len(index))
        if self.phase.inputs == "features" or self._activations is not None:
            own = index[part]
            if self._activations is not None:
                inputs = self._activations.batch(
                    self._places[own], step // self.steps_per_epoch % self._activations.views
                )
            else:
                inputs = torch.from_numpy(np.ascontiguousarray(self._features[name][own])).to(self.device)
            return View(
                inputs, picked(stream.labels, own, self.device), torch.from_numpy(own).to(self.device),
                domains=picked(stream.domains, own, self.device),
            )  # fmt: skip
        seed = draw_seed(job.seed, self.number, step, name, "augment")
        return view(stream, index, job.preprocess, self.phase, seed, self.device, part)


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"
