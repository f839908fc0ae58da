"""One training of a network in a process of its own: tlcore's `full` or `partial`, or a plain loop on timm's parts.

    python -m benchmarks.tuning_loops WAY MODEL --folder IMAGES [--epochs 5] [--batch 32] [--threads 0]

Ways:

    full, partial      the plan of that tuner, carried out as the train stage does: precision "auto" (measured anew each
                       time), the machine settled, the best epoch kept, resume files written
    decoded            a plain loop on the same decoded pixels with the same augmentation of whole batches
    files-0, files-2   a plain loop on the JPEG files: timm's dataset and training transform, 0 or 2 workers

The plain loops are what a user of timm writes: `create_model`, `create_optimizer_v2` (adamw), `CosineLRScheduler`,
cross-entropy, float32, NCHW. They do less than ours in that they keep no best epoch, write nothing and clip nothing.

Prints one line of JSON: seconds and processor seconds of each epoch, how many of the first are not steady, both for the
whole job up to epoch number --epochs, and the process's peak of resident memory. `partial` goes on after that epoch
until it has epochs in which no view of the activations is made; its epochs are those of its phase of gradient steps.
--epochs 0: build network and data, train nothing. Networks are random, with batch-norm statistics of 32 of the images,
so that activations have the sizes of a trained network's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcore.values import Preprocess

WAYS = ("full", "partial", "decoded", "files-0", "files-2")
LR = 3e-4
_STEADY = 3
"""Epochs of `partial` on nothing but kept activations, at least."""


@dataclass(frozen=True)
class Images:
    """pixels uint8 [n, H, W, 3], as `decode` has written them; labels int64 [n]."""

    folder: Path
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    preprocess: Preprocess


class Clock:
    """Seconds and processor seconds, ended children's too, between calls."""

    def __init__(self) -> None:
        self.began = self.last = self._now()
        self.laps: list[tuple[float, float]] = []

    def lap(self) -> None:
        now = self._now()
        self.laps.append((now[0] - self.last[0], now[1] - self.last[1]))
        self.last = now

    def whole(self) -> tuple[float, float]:
        return self.last[0] - self.began[0], self.last[1] - self.began[1]

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), sum(os.times()[:4])


def read(folder: Path, model: str, made: Path) -> Images:
    from tlcore.data.images import decode, load_pixels
    from tlcore.models.build import default_preprocess

    files = sorted(folder.rglob("*.jpg"))
    classes = tuple(sorted({file.parent.name for file in files}))
    rule = default_preprocess(model)
    pixels = load_pixels(decode([str(file) for file in files], [rule], folder=made)[rule.decode_key()])
    labels = np.array([classes.index(file.parent.name) for file in files], dtype=np.int64)
    return Images(folder, pixels, labels, classes, rule)


def network(model: str, classes: int, images: Images) -> Any:
    import timm
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from tlcore.features.normalisation import normalise

    torch.manual_seed(0)
    made: Any = timm.create_model(model, pretrained=False, num_classes=classes)
    layers = [layer for layer in made.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    with torch.no_grad():
        made.train()(normalise(torch.from_numpy(np.array(images.pixels[:32])), images.preprocess))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return made.eval()


def plain(
    model: str, images: Images, epochs: int, batches: Callable[[], Iterable[tuple[Any, Any]]]
) -> Callable[[Clock], None]:
    """The loop that a user of timm would write."""
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from torch import nn

    made = network(model, len(images.classes), images)

    def train(clock: Clock) -> None:
        optimizer = create_optimizer_v2(made, opt="adamw", lr=LR, weight_decay=0.01)
        schedule = CosineLRScheduler(optimizer, t_initial=epochs, warmup_t=1, warmup_lr_init=LR / 10)
        criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
        for epoch in range(epochs):
            made.train()
            total = 0.0
            for inputs, labels in batches():
                optimizer.zero_grad()
                loss = criterion(made(inputs), labels)
                loss.backward()
                optimizer.step()
                total += loss.item()
            schedule.step(epoch + 1)
            clock.lap()

    return train


def decoded_batches(images: Images, batch: int) -> Callable[[], Iterable[tuple[Any, Any]]]:
    """Whole batches augmented and normalised as tlcore does it, in NCHW order."""
    import torch

    from tlcore.features.normalisation import normalise
    from tlcore.training.augment import augment

    generator = torch.Generator().manual_seed(0)
    labels = torch.from_numpy(images.labels)

    def batches() -> Iterable[tuple[Any, Any]]:
        order = torch.randperm(len(labels), generator=generator)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            pixels = torch.from_numpy(images.pixels[rows.numpy()])
            yield normalise(augment(pixels, "light", generator), images.preprocess).contiguous(), labels[rows]

    return batches


def file_batches(images: Images, batch: int, workers: int) -> Iterable[tuple[Any, Any]]:
    from timm.data import create_dataset, create_transform
    from torch.utils.data import DataLoader

    rule = images.preprocess
    transform = create_transform(
        (3, rule.height, rule.width), is_training=True, mean=rule.mean, std=rule.std, interpolation=rule.interpolation
    )  # fmt: skip
    dataset = create_dataset("", root=str(images.folder), transform=transform)
    return DataLoader(dataset, batch_size=batch, shuffle=True, num_workers=workers)


def ours(
    name: str, model: str, images: Images, epochs: int, batch: int, scratch: Path
) -> Callable[[Clock], dict[str, Any]]:
    """The tuner's plan, carried out as the train stage does."""
    from tlcore.protocols import TrainTask
    from tlcore.registry import Registry
    from tlcore.training.job import Measured, TrainJob
    from tlcore.training.loop import run_plan
    from tlcore.training.network import make_network
    from tlcore.training.streams import StreamData

    made = make_network(network(model, 0, images), len(images.classes), preprocess=images.preprocess)
    count = len(images.labels)
    tuner: Any = Registry.discover(cache_folder=scratch).build(
        "tuner", name, {"batch_size": batch, "epochs": 1}
    )
    views = 1 if name == "full" else tuner.views
    going_on = epochs if name == "full" else max(epochs, views + _STEADY)
    tuner = tuner.model_copy(update={"epochs": going_on})
    task = TrainTask(
        images.classes, made.feature_dim, count,
        counts=tuple(np.bincount(images.labels, minlength=len(images.classes)).tolist()),
    )  # fmt: skip
    looks = iter(range(1_000_000))

    def train(clock: Clock) -> dict[str, Any]:
        phase = None
        whole = (0.0, 0.0)

        def after(line: Any) -> None:
            nonlocal phase, whole
            if line.phase != phase:
                phase, clock.laps[:] = line.phase, []
            clock.lap()
            if line.epoch == epochs:
                whole = clock.whole()

        result = run_plan(
            TrainJob(
                network=made, preprocess=images.preprocess, task=task, plan=tuner.plan(task),
                streams={"source": StreamData(images.pixels, np.arange(count), images.labels)},
                measure=lambda _: Measured((float(next(looks)),), {}),  # every epoch is the best so far, and is kept
                scratch=scratch / "job", precision="auto", decisions=scratch / "decisions", architecture=model,
                after_epoch=after,
            )
        )  # fmt: skip
        seconds = [line.seconds for line in result.history if line.phase == phase]
        return {"epochs": seconds, "unsteady": views, "whole": whole, "notes": result.notes}

    return train


def train(way: str, given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    import torch

    if way in ("full", "partial"):
        from tlcore.stages.machine import settle

        settle(given.threads, "cpu")
    elif given.threads:
        torch.set_num_threads(given.threads)
    images = read(given.folder, given.model, scratch / "pixels")
    if way in ("full", "partial"):
        run: Callable[[Clock], Any] = ours(
            way, given.model, images, max(1, given.epochs), given.batch, scratch
        )
    elif way == "decoded":
        run = plain(given.model, images, given.epochs, decoded_batches(images, given.batch))
    else:
        loader = file_batches(images, given.batch, int(way[-1]))
        run = plain(given.model, images, given.epochs, lambda: loader)
    clock = Clock()
    found: dict[str, Any] = {"epochs": [], "unsteady": 1, "notes": ()}
    if given.epochs:
        found |= run(clock) or {"epochs": [wall for wall, _ in clock.laps], "whole": clock.whole()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found | {"cpu": [cpu for _, cpu in clock.laps], "peak_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("model")
    parser.add_argument("--folder", type=Path, required=True, help="of JPEG files in a folder per class")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    given = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(train(given.way, given, Path(scratch))))


if __name__ == "__main__":
    main()
