"""Whole `tlcore` processes, timed from their start to their end, and how repeats of a figure are shown."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ranked", "call", "rank", "shown"]

TLCORE = Path(sys.executable).with_name("tlcore")


@dataclass(frozen=True)
class Ranked:
    """The entries that were not skipped, as JSON has them; wall seconds, CPU seconds of the process and its children."""

    entries: list[dict[str, Any]]
    wall: float
    cpu: float


def call(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[Any, float, float]:
    """`tlcore … --json` as a process of its own: its document, wall seconds, CPU seconds of it and its children.

    A failure ends the benchmark with what it said.
    """
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(TLCORE), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout), time.perf_counter() - wall, cpu


def rank(arguments: Sequence[str], environment: Mapping[str, str]) -> Ranked:
    """One `tlcore rank`."""
    document, wall, cpu = call(["rank", *arguments], environment)
    return Ranked([entry for entry in document["ranking"] if entry["skipped"] is None], wall, cpu)


def shown(values: Sequence[float], digits: int) -> str:
    """Median (least to greatest)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
