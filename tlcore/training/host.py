"""What one phase of a plan works on: its batches, and the host's answers to the objective."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from tlcore.training.job import TrainJob
from tlcore.training.plan import Batch, Phase, Setup, Stream, View
from tlcore.training.predict import embed, predict, predict_features
from tlcore.training.streams import StreamData, draw_seed, passes, picked, view

__all__ = ["PhaseHost"]


class PhaseHost:
    """Batches of one phase that depend on the seed and the step alone.

    Attributes:
        network: what the objective is given: in a phase on features, the network without its backbone.
        steps_per_epoch: gradient steps between two looks at the network.
    """

    def __init__(self, job: TrainJob, number: int, streams: Mapping[Stream, StreamData]) -> None:
        phase = job.plan.phases[number]
        assert isinstance(phase, Phase)
        self.job, self.phase, self.number, self.streams = job, phase, number, streams
        self.device = torch.device(job.device)
        main = streams.get("source", next(iter(streams.values())))
        self.steps_per_epoch = phase.steps_per_epoch or passes(len(main), phase.batch_size)
        self.network = job.network
        self._features: dict[Stream, NDArray[np.float32]] = {}
        if phase.inputs == "features":
            self._features = {name: self._embedded(name) for name in streams}
            self.network = job.network.on_features()

    def setup(self, epoch: int) -> Setup:
        return Setup(self.job.network, self.job.task, self._look, epoch)

    def batch(self, step: int, total: int) -> Batch:
        views = {name: self._view(name, stream, step) for name, stream in self.streams.items()}
        return Batch(views.get("source"), views.get("target"), step / total, step)

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

    def _view(self, name: Stream, stream: StreamData, step: int) -> View:
        index = stream.batch(self.phase.batch_size, step, self.job.seed, self.number, name)
        if self.phase.inputs == "features":
            inputs = torch.from_numpy(np.ascontiguousarray(self._features[name][index])).to(self.device)
            return View(
                inputs, picked(stream.labels, index, self.device), torch.from_numpy(index).to(self.device),
                domains=picked(stream.domains, index, self.device),
            )  # fmt: skip
        seed = draw_seed(self.job.seed, self.number, step, name, "augment")
        return view(
            stream, index, self.job.preprocess, self.phase.augment, self.phase.strong_view, seed, self.device
        )
