"""Exact LogME from moments against the classic algorithm, timed in turn in one process.

    python benchmarks/logme_vs_reference.py [--repeats 5]

The reference is written here from the paper (You et al. 2021, algorithm 1): a singular value
decomposition of the features, then for each class the fixed point of alpha and beta, one class after
another. Its evidence counts the rank where public code counts the width, so that it is right for n < D
too. Ours is timed with everything it needs: moments of the features, then the score. Both see float32
features as they are (`centred=False`), and the difference of the two scores is printed.

A ratio above 1 says that ours is faster. Each pair runs in turn, so that a busy machine slows both; the
median, the least and the greatest ratio of all pairs are given, by wall clock and by CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tlcore.features.moments import Moments
from tlcore_scorers.logme import class_evidence

SIZES = ((300, 1280, 5), (1000, 512, 10), (2000, 512, 100), (3000, 1024, 37))
"""Images, features, classes."""


def classic(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> float:
    """LogME by the alternating fixed point: mean over classes of the evidence per image."""
    rows = features.astype(np.float64)
    n = len(rows)
    left, singular, _ = np.linalg.svd(rows, full_matrices=False)
    sigma = singular**2
    total = 0.0
    for label in range(classes):
        target = (labels == label).astype(np.float64)
        energy = (left.T @ target) ** 2
        outside = max(float(target @ target - energy.sum()), 0.0)
        alpha = beta = 1.0
        for _ in range(100):
            t = alpha / beta
            gamma = (sigma / (sigma + t)).sum()
            weights = (sigma * energy / (sigma + t) ** 2).sum()
            residual = outside + (energy * (t / (sigma + t)) ** 2).sum()
            alpha = gamma / (weights + 1e-12)
            beta = (n - gamma) / (residual + 1e-12)
            if abs(alpha / beta - t) <= 1e-3 * t:
                break
        total += (
            0.5 * sigma.size * np.log(alpha)
            + 0.5 * n * np.log(beta / (2 * np.pi))
            - 0.5 * np.log(alpha + beta * sigma).sum()
            - 0.5 * beta * residual
            - 0.5 * alpha * weights
        ) / n
    return float(total / classes)


def ours(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> float:
    return float(class_evidence(Moments.of(features, labels, classes), centred=False).per_row.mean())


def timed(work: Callable[[], float]) -> tuple[float, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    value = work()
    return value, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="pairs per size")
    repeats = parser.parse_args().repeats
    print("n      D     K    classic s  ours s  wall ratio (range)      CPU ratio (range)       difference")
    for n, d, k in SIZES:
        draw = np.random.default_rng(0)
        labels = np.arange(n) % k
        centres = draw.normal(size=(k, d)) * 0.2
        spread = np.geomspace(1, 0.1, d)
        features = ((centres[labels] + draw.normal(size=(n, d))) * spread).astype(np.float32)
        classic(features, labels, k), ours(features, labels, k)  # warm up: threads and memory
        pairs = []
        for _ in range(repeats):
            pairs.append(
                (timed(lambda: classic(features, labels, k)), timed(lambda: ours(features, labels, k)))  # noqa: B023
            )
        wall = [a[1] / b[1] for a, b in pairs]
        cpu = [a[2] / b[2] for a, b in pairs]
        print(
            f"{n:<6} {d:<5} {k:<4} {statistics.median(a[1] for a, _ in pairs):<10.3f} "
            f"{statistics.median(b[1] for _, b in pairs):<7.3f} "
            f"{_shown(wall)} {_shown(cpu)} {abs(pairs[0][0][0] - pairs[0][1][0]):.1e}"
        )


def _shown(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):5.2f} ({min(ratios):.2f} … {max(ratios):.2f})".ljust(23)


if __name__ == "__main__":
    main()
