"""Features, and the source head's probabilities, of decoded images: one pass of one network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlcore.errors import PluginError, UserError
from tlcore.features.engines.agreement import disagreement
from tlcore.features.engines.choice import AUTO, check_engine, lacking, prepare, to_try
from tlcore.features.engines.float32 import eager
from tlcore.features.engines.graph import FeatureGraph, Prepared, feature_graph
from tlcore.features.engines.hardware import Hardware
from tlcore.features.engines.work import CountWork, Work
from tlcore.features.normalisation import normalised_rows
from tlcore.values import Preprocess

__all__ = ["ExtractedFeatures", "extract"]

PROBE = 16
"""Images of the first batch that go through the plain network too: enough to see a wrong engine, and
cheap. Measured with resnet18 and mobilenetv2_100 in bf16, they cost 4 to 6 % of the time of 1,000 images; the whole batch
of 64 would cost 15 to 23 %."""


@dataclass(frozen=True)
class ExtractedFeatures:
    """What one network says of n images.

    Attributes:
        features: float32 [n, D], the input of the classifier layer.
        probabilities: float32 [n, Z], softmax of the source head; None without one.
        folded: batch norms that were folded into convolutions; 0 when the network ran as it is.
        engine: which of tlcore.features.engines computed them.
        note: why that is not the engine that was to run; "" where it is.
        seconds: that its batches took, setting up and the plain network's images left out.
    """

    features: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None
    folded: int
    engine: str = "eager"
    note: str = ""
    seconds: float = 0.0


def extract(
    network: nn.Module,
    pixels: NDArray[np.uint8],
    preprocess: Preprocess,
    *,
    head: bool,
    rows: NDArray[np.int64] | None = None,
    name: str = "",
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    engine: str = AUTO,
    planned: int | None = None,
    planned_for: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ExtractedFeatures:
    """Features of `pixels` by a timm network, as it would give them in eval mode.

    Runs a copy (the caller's network is left as it is, its device and mode included) by one of the engines. The
    first PROBE images go through the plain network in float32 as well: where an engine's features differ (see
    tlcore.features.engines.agreement), where it cannot be set up, or where it fails on the way, the next one
    does all images anew: "folded", then "eager". Features that are no vector (a network without pooling) are
    averaged over their positions.

    Args:
        network: timm network: `forward_features`, `forward_head(maps, pre_logits=True)`, `get_classifier`.
        pixels: uint8 RGB [n, height, width, 3], as `preprocess` sizes them; a memory map is read by batches.
        preprocess: gives the normalisation (x / 255 - mean) / std.
        rows: positions in `pixels` to look at, in this order; None: all.
        head: also compute the source head's probabilities, where the network has a head.
        name: of the candidate, for errors.
        engine: one of tlcore.features.engines, or "auto": the fastest by a cost model of the work, the number
            of images and what the hardware has, which the number of threads is no part of. Nothing is timed.
        planned: images of the whole job, where this is a shard of it: all shards take the same engine.
        planned_for: `Hardware.facts` of the machine that planned the job; None: this one. The engine is the one
            that machine would take, in its precision, so that all shards take the same; where it cannot run
            here, the next one does.
        on_progress: called after each batch with images done and images in all. It may raise to stop the work.

    Raises:
        UserError: no images, pixels of another shape or type than `preprocess` says, weights that give NaN or
            infinite features, or an engine that is unknown or cannot run on the hardware it was planned for.
        PluginError: the network is no timm network.
    """
    name = name or type(network).__name__
    _check_pixels(pixels, preprocess, name)
    for method in ("forward_features", "forward_head", "get_classifier"):
        if not callable(getattr(network, method, None)):
            raise PluginError(f"the network has no {method}(): it is no timm network", where=name)
    index = np.arange(len(pixels)) if rows is None else rows
    if len(index) == 0:
        raise UserError("there are no images to extract features from", where=name)
    here = Hardware.of(device)
    hardware = here if planned_for is None else here.with_facts(planned_for)
    check_engine(engine, hardware)
    # An engine that takes batches of one size only takes the same size for every shard.
    batch = min(batch_size, planned or len(index))
    job = _Job(pixels, index, preprocess, batch, device, name, on_progress)
    graph = feature_graph(network, job.images(0, 1, Prepared(_nothing)), head=head)
    plain, work = _plain(graph, job)
    notes: list[str] = []
    for candidate in to_try(engine, work, planned or len(index), hardware):
        try:
            reason = lacking(candidate, hardware, here)
            if reason:
                raise _Unfit(reason)
            found, folded, seconds = _by(candidate, graph, job, plain, work, hardware)
        except _Unfit as unfit:
            notes.append(f"{candidate}: {unfit}")
            continue
        note = f"{'; '.join(notes)}; computed by {candidate}" if notes else ""
        return ExtractedFeatures(*found, folded=folded, engine=candidate, note=note, seconds=seconds)
    raise PluginError("; ".join(notes), where=name)  # eager failed on the way


Outputs = tuple[NDArray[np.float32], NDArray[np.float32] | None]


class _Unfit(Exception):
    """Why an engine cannot do it."""


@dataclass(frozen=True)
class _Job:
    """The images of one call."""

    pixels: NDArray[np.uint8]
    index: NDArray[np.int64]
    preprocess: Preprocess
    batch: int
    device: str | torch.device
    name: str
    on_progress: Callable[[int, int], None] | None

    def images(self, start: int, stop: int, way: Prepared) -> torch.Tensor:
        """Images start … stop-1, the last one again and again where `way` takes more."""
        rows = self.index[start:stop]
        if way.batch is not None and len(rows) < way.batch:
            rows = np.concatenate([rows, np.repeat(rows[-1:], way.batch - len(rows))])
        return normalised_rows(
            self.pixels, rows, self.preprocess, dtype=way.dtype, channels_last=way.channels_last, device=self.device
        )  # fmt: skip


def _nothing(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (images,)


def _plain(graph: FeatureGraph, job: _Job) -> tuple[Outputs, Work]:
    """What the plain network says of the first images, and the work that one of them is."""
    way = eager(graph)
    images = job.images(0, min(PROBE, len(job.index)), way)
    with torch.no_grad(), CountWork() as counted:
        outputs = graph(images)
    found = _arrays(outputs, len(images))
    _refuse_infinite(found, 0, job.name)
    return found, counted.per_image(len(images))


def _by(
    engine: str, graph: FeatureGraph, job: _Job, plain: Outputs, work: Work, hardware: Hardware
) -> tuple[Outputs, int, float]:
    """All images by one engine, the batch norms it folded, and the seconds that the batches took. Raises _Unfit."""
    n, last = len(job.index), engine == "eager"
    features: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    try:
        example = job.images(0, 2, Prepared(_nothing))
        way = prepare(engine, graph, example, work, job.batch, hardware)
    except Exception as error:  # torch, compilers and exporters raise anything
        raise _Unfit(f"cannot be set up ({_first_line(error)})") from error
    started = time.perf_counter()
    for start in range(0, n, job.batch):
        stop = min(start + job.batch, n)
        try:
            found = _arrays(way.run(job.images(start, stop, way)), stop - start)
        except Exception as error:
            if last:
                raise
            raise _Unfit(f"failed at image {start} ({_first_line(error)})") from error
        if last:
            _refuse_infinite(found, start, job.name)
        elif start < len(plain[0]):
            seen = slice(start, min(stop, len(plain[0])))
            reason = disagreement(
                _rows(found, slice(0, seen.stop - start)), _rows(plain, seen), first=start, reduced=_reduced(way)
            )  # fmt: skip
            if reason:
                raise _Unfit(reason)
        if not last and not np.isfinite(found[0]).all():
            raise _Unfit(f"its features are NaN or infinite in images {start} to {stop - 1}")
        if features is None:
            features = np.empty((n, found[0].shape[1]), dtype=np.float32)
            if found[1] is not None:
                probabilities = np.empty((n, found[1].shape[1]), dtype=np.float32)
        features[start:stop] = found[0]
        if probabilities is not None and found[1] is not None:
            probabilities[start:stop] = found[1]
        if job.on_progress is not None:
            job.on_progress(stop, n)
    assert features is not None  # n > 0 was checked
    return (features, probabilities), way.folded, time.perf_counter() - started


def _arrays(outputs: tuple[torch.Tensor, ...], images: int) -> Outputs:
    """float32 features and probabilities of the first `images` rows."""
    features = outputs[0][:images].float().cpu().numpy()
    if len(outputs) == 1:
        return features, None
    return features, torch.softmax(outputs[1][:images].float(), dim=1).cpu().numpy()


def _rows(outputs: Outputs, rows: slice) -> Outputs:
    return outputs[0][rows], None if outputs[1] is None else outputs[1][rows]


def _reduced(way: Prepared) -> bool:
    return way.dtype != torch.float32


def _refuse_infinite(found: Outputs, start: int, name: str) -> None:
    wrong = np.flatnonzero(~np.isfinite(found[0]).all(axis=1))
    if wrong.size:
        raise UserError(
            f"the features are NaN or infinite, first for image {start + int(wrong[0])}",
            where=name,
            hint="its weights are damaged or do not fit: load them anew, or leave this model out",
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _check_pixels(pixels: NDArray[Any], preprocess: Preprocess, name: str) -> None:
    size = (preprocess.height, preprocess.width, 3)
    if pixels.ndim != 4 or pixels.shape[1:] != size or pixels.dtype != np.uint8:
        raise UserError(
            f"pixels must be uint8 of shape [n, {size[0]}, {size[1]}, 3], not {pixels.dtype} of {pixels.shape}",
            where=name,
        )
