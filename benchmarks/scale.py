"""A stream of features that never is in memory as a whole, scored in one process: time and memory by its length.

    python -m benchmarks.scale [--images 125000 250000 500000 1000000] [--dim 1280] [--classes 100] [--batch 2048]

Each length runs in a process of its own, so that its peak of resident memory is its own. Batches are drawn
(float32 features about a mean per class, and the probabilities of a source head), go into the moments of their
folds, and are forgotten; then every installed scorer that needs no single image's features scores the moments.
Drawing is the benchmark's own work and is timed apart. Printed are the seconds of moments and scores, the
seconds per 100,000 images, which are the same for all lengths where time is linear, and the peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import TlcoreError, UserError
from tlcore.features.folds import FOLDS, fold_of
from tlcore.features.moments import Moments, MomentsBuilder
from tlcore.protocols import Evidence, Scorer
from tlcore.registry import Registry

IMAGES = (125_000, 250_000, 500_000, 1_000_000)
LIMIT_MIB = 1536
SOURCE_CLASSES = 20


class _Stream:
    """Batches that are drawn when they are asked for; `seconds` and `cpu_seconds` are what drawing took."""

    def __init__(self, labels: NDArray[np.int64], dim: int, classes: int, batch: int) -> None:
        self._draw = np.random.default_rng(0)
        self._labels, self._batch = labels, batch
        self._means = self._draw.standard_normal((classes, dim), dtype=np.float32) * np.float32(0.2)
        self._scale = (1 / np.sqrt(1 + np.arange(dim))).astype(np.float32)
        self.seconds = self.cpu_seconds = 0.0

    def __iter__(self) -> Any:
        for start in range(0, len(self._labels), self._batch):
            began, cpu = time.perf_counter(), time.process_time()
            codes = self._labels[start : start + self._batch]
            rows = self._draw.standard_normal((len(codes), self._means.shape[1]), dtype=np.float32)
            rows *= self._scale
            rows += self._means[codes]
            mass = self._draw.random((len(codes), SOURCE_CLASSES), dtype=np.float32)
            mass[np.arange(len(codes)), codes % SOURCE_CLASSES] += 4
            mass /= mass.sum(axis=1, keepdims=True)
            self.seconds += time.perf_counter() - began
            self.cpu_seconds += time.process_time() - cpu
            yield start, rows, codes, mass


def measure(images: int, dim: int, classes: int, batch: int) -> dict[str, Any]:
    """One length, in this process: seconds, scores, peak of resident memory in MiB."""
    scorers = _scorers()
    labels = np.random.default_rng(1).integers(0, classes, images)
    stream = _Stream(labels, dim, classes, batch)
    began, cpu = time.perf_counter(), time.process_time()
    number = fold_of(labels)
    builders: list[MomentsBuilder] = []
    for start, rows, codes, mass in stream:
        if not builders:
            builders = [MomentsBuilder(classes, shift=rows.mean(axis=0)) for _ in range(FOLDS)]
        for fold, builder in enumerate(builders):
            chosen = np.flatnonzero(number[start : start + len(rows)] == fold)
            if chosen.size:
                builder.add(rows[chosen], codes[chosen], mass[chosen])
    folds = tuple(builder.moments() for builder in builders)
    del builders
    moments_seconds = time.perf_counter() - began - stream.seconds
    moments_cpu = time.process_time() - cpu - stream.cpu_seconds
    began, cpu = time.perf_counter(), time.process_time()
    evidence = Evidence(
        moments=Moments.merge(folds), labels=labels, folds=folds, features=_never, source_probabilities=_never
    )
    scores: dict[str, float | str] = {}
    for scorer in scorers:
        try:
            scores[scorer.card.name] = scorer.score(evidence)
        except TlcoreError as error:
            scores[scorer.card.name] = error.what
    return {
        "images": images,
        "drawing": stream.seconds,
        "moments": moments_seconds,
        "scoring": time.perf_counter() - began,
        "moments_cpu": moments_cpu,
        "scoring_cpu": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (1024 if sys.platform != "darwin" else 2**20),
        "scores": scores,
    }


def _scorers() -> list[Scorer]:
    """All that need sums alone, with their defaults."""
    registry = Registry.discover()
    built = [cast(Scorer, registry.build("scorer", name, {})) for name in registry.names("scorer")]
    return [scorer for scorer in built if "features" not in scorer.card.traits]


def _never() -> Any:
    raise UserError("not from moments: it wants single images, and a stream keeps none")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=list(IMAGES))
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--one", action="store_true", help="measure the first length here, and print JSON")
    given = parser.parse_args(arguments)
    shape = (given.dim, given.classes, given.batch)
    if given.one:
        print(json.dumps(measure(given.images[0], *shape)))
        return
    print(f"{given.dim} features, {given.classes} classes, batches of {given.batch}, {FOLDS} folds")
    heads = ("images", "drawing", "moments", "CPU", "scoring", "CPU", "per 100,000", "CPU", "peak")
    print(" ".join(f"{head:>11}" for head in heads))
    rows = []
    for images in given.images:
        command = [sys.executable, "-m", "benchmarks.scale", "--one", "--images", str(images)]
        command += ["--dim", str(given.dim), "--classes", str(given.classes), "--batch", str(given.batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stderr)
        row = json.loads(done.stdout)
        rows.append(row)
        times = [row[name] for name in ("drawing", "moments", "moments_cpu", "scoring", "scoring_cpu")]
        times += [row[name] / images * 100_000 for name in ("moments", "moments_cpu")]
        shown = [f"{images:,}", *(f"{seconds:.1f} s" for seconds in times), f"{row['peak_mib']:.0f} MiB"]
        print(" ".join(f"{text:>11}" for text in shown), flush=True)
    for name, score in rows[-1]["scores"].items():
        print(f"  {name}: {score if isinstance(score, str) else format(score, '.6g')}")
    peak = max(row["peak_mib"] for row in rows)
    print(f"peak {peak:.0f} MiB: {'within' if peak <= LIMIT_MIB else 'OVER'} {LIMIT_MIB} MiB")
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        wall, cpu = (
            last[name] / last["images"] / first[name] * first["images"] for name in ("moments", "moments_cpu")
        )
        print(
            f"moments of an image cost {wall:.2f} times as much (CPU {cpu:.2f}) among {last['images']:,} "
            f"as among {first['images']:,}"
        )


if __name__ == "__main__":
    main()
