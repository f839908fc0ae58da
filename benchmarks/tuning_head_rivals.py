"""`linear-probe` and `ridge` beside scikit-learn's LogisticRegressionCV on the same features; run by
benchmarks/tuning_rivals.py, which says how."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.image_sets import PHOTOGRAPHS
from benchmarks.side_by_side import Report
from tlcore.data.image_file import IMAGE_SUFFIXES

__all__ = ["heads"]

TUNERS = ("linear-probe", "ridge")
SHOTS = (5, 20, 0)
HEAD_LIMIT, EQUAL = 0.3, -0.5
"""Of the rival's processor seconds; points of accuracy that count as none, in the mean over sets and sizes."""


@dataclass(frozen=True)
class Features:
    """float32 [n, d] and int64 [n] of the training and the test images."""

    train: NDArray[np.float32]
    labels: NDArray[np.int64]
    test: NDArray[np.float32]
    truth: NDArray[np.int64]

    def drawn(self, shots: int, seed: int) -> Features:
        """So many training images of each class; 0: all."""
        if not shots:
            return self
        draw = np.random.default_rng(seed)
        rows = [draw.permutation(np.flatnonzero(self.labels == k))[:shots] for k in np.unique(self.labels)]
        chosen = np.sort(np.concatenate(rows))
        return Features(self.train[chosen], self.labels[chosen], self.test, self.truth)


def random_features(classes: int = 10, per_class: int = 40, width: int = 1280) -> Features:
    """Non-negative as after a ReLU; classes overlap a little."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(classes, width))

    def some() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        labels = np.arange(classes * per_class) % classes
        noise = draw.normal(size=(len(labels), width))
        return np.maximum(0, centres[labels] / 5 + noise).astype(np.float32), labels

    return Features(*some(), *some())


def real_features(data: Path, name: str, store: Path) -> Features:
    """By mobilenetv2_100 in the product's way; kept in the store."""
    from tlcore.data.images import decode, load_pixels
    from tlcore.registry import Registry
    from tlcore.stages.tables import preprocess_of
    from tlcore.training.network import make_network
    from tlcore.training.predict import embed

    kept = store / f"{name}.npz"
    if kept.is_file():
        with np.load(kept) as file:
            return Features(*(file[part] for part in ("train", "labels", "test", "truth")))
    weights = str(data / "weights" / "mobilenetv2_100.safetensors")
    source: Any = Registry.discover(cache_folder=store).build("model-source", "local", {"spec": weights})
    candidate = source.candidates()[0]
    rule = preprocess_of(candidate)
    network = make_network(source.build(candidate, classes=0), 2, preprocess=rule)
    parts: list[Any] = []
    for split in ("train", "test"):
        place = data / PHOTOGRAPHS[name] / split
        files = sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        names = sorted({path.parent.name for path in files})
        with tempfile.TemporaryDirectory() as made:
            pixels = decode([str(path) for path in files], [rule], folder=Path(made))[rule.decode_key()]
            parts.append(embed(network, load_pixels(pixels), np.arange(len(files)), rule))
        parts.append(np.array([names.index(path.parent.name) for path in files], dtype=np.int64))
    found = Features(*parts)
    store.mkdir(parents=True, exist_ok=True)
    np.savez(kept, train=found.train, labels=found.labels, test=found.test, truth=found.truth)
    return found


def our_head(tuner: Any, data: Features, seed: int) -> tuple[float, NDArray[np.int64]]:
    """Processor seconds, and the answers to the test images."""
    from torch import nn

    from tlcore.protocols import TrainTask
    from tlcore.training.job import Measured, TrainJob
    from tlcore.training.loop import run_plan
    from tlcore.training.network import Network
    from tlcore.training.predict import predict_features
    from tlcore.training.streams import StreamData
    from tlcore.values import Preprocess

    count, width = data.train.shape
    classes = tuple(f"class {k}" for k in range(int(data.labels.max()) + 1))
    asked = TrainTask(classes, width, count, seed=seed, counts=tuple(np.bincount(data.labels).tolist()))
    network = Network(nn.Identity(), width, len(classes))
    nothing = np.zeros((1, 1, 1, 3), np.uint8)
    with tempfile.TemporaryDirectory() as scratch:
        started = time.process_time()
        run_plan(
            TrainJob(
                network=network, preprocess=Preprocess(height=8, width=8), task=asked, plan=tuner.plan(asked),
                streams={"source": StreamData(nothing, np.arange(count), data.labels)},
                measure=lambda network: Measured((float(predict_features(network, data.train)[1].max()),), {}),
                scratch=Path(scratch), seed=seed, features={"source": data.train},
            )
        )  # fmt: skip
        spent = time.process_time() - started
    return spent, predict_features(network, data.test)[1].argmax(1)


def rival_head(data: Features) -> tuple[float, NDArray[np.int64]]:
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # of defaults that will be others: it is the defaults we want
        started = time.process_time()
        found = make_pipeline(StandardScaler(), LogisticRegressionCV(max_iter=10_000))
        found.fit(data.train, data.labels)
        spent = time.process_time() - started
    return spent, found.predict(data.test)


def heads(report: Report, given: argparse.Namespace) -> None:
    import torch
    from threadpoolctl import threadpool_limits

    from tlcore.registry import Registry

    shared = Path(os.environ.get("TLCORE_SHARED", "../shared")).resolve() / "data"
    names = given.sets or (list(PHOTOGRAPHS) if shared.is_dir() else ["random"])
    report.say(
        "\nHeads: processor seconds, test accuracy in %; medians and means of the repeats, one thread\n"
    )
    report.say(
        f"{'set':15}{'a class':>8}{'images':>7} {'LogisticRegressionCV':>24}"
        + "".join(f"{name:>30}" for name in TUNERS)
    )
    ratios: dict[str, list[float]] = {name: [] for name in TUNERS}
    gains: dict[str, list[float]] = {name: [] for name in TUNERS}
    registry = Registry.discover(cache_folder=given.store)
    tuners = {name: registry.build("tuner", name, {}) for name in TUNERS}
    sets = {
        name: random_features() if name == "random" else real_features(shared, name, given.store)
        for name in names
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    first = random_features(3, 10, 64)
    for way in ("rival", *TUNERS):  # imports and first calls are not what is compared
        _fitted(way, first, 0, tuners)
    with threadpool_limits(1):  # of libraries that are loaded by now
        for name, features in sets.items():
            for shots in SHOTS:
                _one_size(name, features, shots, given.repeats, tuners, ratios, gains, report)
    torch.set_num_threads(threads)
    report.say()
    for name in TUNERS:
        report.ratio(f"{name} / LogisticRegressionCV, CPU, over the rows", ratios[name], HEAD_LIMIT)
        within = sum(value <= HEAD_LIMIT for value in ratios[name])
        report.say(f"{'  rows within the limit':54}{within:3} of {len(ratios[name])}")
        gain = float(np.mean(gains[name]))
        report.say(
            f"{name + ', points of accuracy above it, mean':54}{gain:+6.2f} ({min(gains[name]):+.2f} to "
            f"{max(gains[name]):+.2f})   equal or better: {'holds' if gain >= EQUAL else 'does not hold'}"
        )


def _one_size(
    name: str, features: Features, shots: int, repeats: int, tuners: dict[str, Any],
    ratios: dict[str, list[float]], gains: dict[str, list[float]], report: Report,
) -> None:  # fmt: skip
    ways = ["rival", *TUNERS]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    accuracy: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(repeats):
        data = features.drawn(shots, number)
        for way in ways[number % 3 :] + ways[: number % 3]:
            spent, answers = _fitted(way, data, number, tuners)
            seconds[way].append(spent)
            accuracy[way].append(100 * float((answers == data.truth).mean()))
    line = f"{name:15}{shots or 'all':>8}{len(data.labels):>7} "
    line += f"{statistics.median(seconds['rival']):>15.2f} {np.mean(accuracy['rival']):>8.1f}"
    for way in TUNERS:
        shares = [one / other for one, other in zip(seconds[way], seconds["rival"], strict=True)]
        ratios[way].append(statistics.median(shares))
        gains[way].append(float(np.mean(accuracy[way]) - np.mean(accuracy["rival"])))
        line += f"{statistics.median(seconds[way]):>14.3f} {np.mean(accuracy[way]):>6.1f}  x{statistics.median(shares):<6.2f}"
    report.say(line)


def _fitted(way: str, data: Features, seed: int, tuners: dict[str, Any]) -> tuple[float, NDArray[np.int64]]:
    return rival_head(data) if way == "rival" else our_head(tuners[way], data, seed)
