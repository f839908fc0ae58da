"""LogME from moments against the LogME of the published package `transformer-ranker`, in one process.

    pip install --no-deps --target FOLDER transformer-ranker
    python -m benchmarks.logme_speed --rival FOLDER [--repeats 5] [--threads 1] [--only 1000x512x10]

Ours is timed with everything it needs: the moments of the features, batch by batch, then the score. Both get
the same float32 features in memory and score them as they are (`centred=False`, the paper's evidence). Runs
alternate and change places, so that a busy machine slows both. Given are medians over the repeats with
their least and greatest value, by CPU time and by wall clock; a ratio above 1 says that ours is faster.

Values must agree to 1e-4 where theirs are right, that is for n >= D; the command fails where they do not. For
n < D theirs counts log(alpha) for all D features and the determinant for n of them only, and both are shown.
Of the package only its module estimators/logme.py is loaded; what else it imports takes no part.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, PathDistribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIZES = ((1000, 512, 10), (5000, 2048, 37), (20000, 1280, 100), (2000, 2048, 1000))
"""Images, features, classes."""
INSTALL = "pip install --no-deps --target FOLDER transformer-ranker"
AGREEMENT = 1e-4
Score = Callable[[NDArray[np.float32], NDArray[np.int64], int], float]


@dataclass(frozen=True)
class Run:
    """One timed score: nats per image, CPU and wall seconds."""

    value: float
    cpu: float
    wall: float


def rival_score(folder: Path) -> tuple[Score, str]:
    """The package's LogME and its version."""
    module = folder / "transformer_ranker" / "estimators" / "logme.py"
    if not module.is_file():
        sys.exit(f"no transformer-ranker in {folder}\n  next: {INSTALL}")
    # A package of another name at the same place: its own __init__ would import transformers and datasets.
    package = types.ModuleType("rival_estimators")
    package.__path__ = [str(module.parent)]
    sys.modules[package.__name__] = package
    logme = importlib.import_module("rival_estimators.logme").LogME
    import torch

    def score(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> float:
        return float(logme().fit(embeddings=torch.from_numpy(features), labels=torch.from_numpy(labels)))

    return score, _version(folder)


def _version(folder: Path) -> str:
    try:
        return next(PathDistribution(info).version for info in folder.glob("transformer_ranker-*.dist-info"))
    except (StopIteration, PackageNotFoundError):
        return "of unknown version"


def our_score(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> float:
    from tlcore.features.moments import Moments
    from tlcore_scorers.logme import class_evidence

    return float(class_evidence(Moments.of(features, labels, classes), centred=False).per_row.mean())


def problem(n: int, d: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Gaussian classes whose features differ in variance, as those of a network do."""
    draw = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % classes
    features = draw.normal(size=(classes, d))[labels] * 0.2
    features += draw.normal(size=(n, d))
    return (features * np.geomspace(1, 0.1, d)).astype(np.float32), labels


def timed(score: Score, features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> Run:
    wall, cpu = time.perf_counter(), time.process_time()
    value = score(features, labels, classes)
    return Run(value, time.process_time() - cpu, time.perf_counter() - wall)


def compare(theirs: Score, size: tuple[int, int, int], repeats: int) -> tuple[list[Run], list[Run]]:
    """`repeats` runs of each in turn, the first one changing, after one run of both that is not counted."""
    features, labels = problem(*size)
    scores = (theirs, our_score)
    runs: tuple[list[Run], list[Run]] = ([], [])
    for score in scores:
        timed(score, features, labels, size[2])
    for repeat in range(repeats):
        for which in (0, 1) if repeat % 2 == 0 else (1, 0):
            runs[which].append(timed(scores[which], features, labels, size[2]))
    return runs


def spread(values: Sequence[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} … {max(values):.{digits}f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rival", type=Path, help=f"folder of the package: {INSTALL}")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each per size")
    parser.add_argument("--threads", type=int, default=1, help="of linear algebra, in both")
    parser.add_argument("--only", help="one size, as 1000x512x10")
    given = parser.parse_args(arguments)
    if given.rival is None:
        parser.error(f"--rival is missing; the rival is not part of tlcore\n  next: {INSTALL}")
    if given.repeats < 1 or given.threads < 1:
        parser.error("--repeats and --threads must be at least 1")
    sizes = [size for size in SIZES if given.only in (None, "x".join(map(str, size)))]
    if not sizes:
        parser.error(f"--only: one of {', '.join('x'.join(map(str, size)) for size in SIZES)}")
    theirs, version = rival_score(given.rival)

    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(given.threads)
    print(
        f"transformer-ranker {version} against tlcore; torch {torch.__version__}, numpy {np.__version__}, "
        f"{given.threads} thread(s) of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"median (least … greatest) of {given.repeats}"
    )
    print("n,D,K | CPU s theirs | CPU s ours | CPU ratio | wall ratio | value theirs | ours | difference")
    cpu, wall, apart = [0.0, 0.0], [0.0, 0.0], []
    with threadpool_limits(limits=given.threads, user_api="blas"):
        for size in sizes:
            runs = compare(theirs, size, given.repeats)
            for which in (0, 1):
                cpu[which] += statistics.median(run.cpu for run in runs[which])
                wall[which] += statistics.median(run.wall for run in runs[which])
            values = [found[0].value for found in runs]
            difference = abs(values[0] - values[1])
            right = size[0] >= size[1]
            print(
                f"{size[0]},{size[1]},{size[2]} | {spread([run.cpu for run in runs[0]])} | "
                f"{spread([run.cpu for run in runs[1]])} | "
                f"{spread([a.cpu / b.cpu for a, b in zip(*runs, strict=True)], 1)} | "
                f"{spread([a.wall / b.wall for a, b in zip(*runs, strict=True)], 1)} | "
                f"{values[0]:.6f} | {values[1]:.6f} | {difference:.1e}{'' if right else ' (n < D: theirs is wrong)'}",
                flush=True,
            )
            if right and not difference <= AGREEMENT:
                apart.append(size)
    print(f"sum of medians: CPU ratio {cpu[0] / cpu[1]:.1f}, wall ratio {wall[0] / wall[1]:.1f}")
    if apart:
        sys.exit(f"the values differ by more than {AGREEMENT} at {apart}")


if __name__ == "__main__":
    main()
