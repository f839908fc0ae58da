"""Seconds of `tlcore rank` the first time and again, as a user would call it: whole processes, one store.

    python -m benchmarks.rank_twice [--images 300] [--repeats 5]                   # ten networks of timm
    python -m benchmarks.rank_twice --data PHOTOS --models local:WEIGHTS [--plugin FOLDER]

Without --data there are JPEGs of 500 x 375 pixels with structure at all scales, and ten networks from
mobilenetv3_small_100 to resnet18 with random weights, for which the time is that of trained ones. Each repeat has an
empty store: the command runs twice. Given are the median, least and greatest wall and CPU seconds of the repeats;
the goal is 60 s the first time and 5 s the second, for 300 images and ten candidates on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.ten_candidates import TLCORE, write_images, write_zoo

NETWORKS = (
    "mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv2_100", "efficientnet_b0", "regnety_004",
    "ghostnet_100", "convnext_atto", "resnet18", "vit_tiny_patch16_224", "mobilevitv2_050",
)  # fmt: skip


def timed(arguments: list[str], environment: dict[str, str]) -> tuple[int, float, float]:
    """Ranked candidates, wall seconds, CPU seconds of the process and its children."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(TLCORE), "rank", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    ranked = sum(entry["skipped"] is None for entry in json.loads(done.stdout)["ranking"])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ranked, time.perf_counter() - wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=300, help="how many to make where --data is not given")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", help="as for tlcore rank")
    parser.add_argument("--models", action="append", default=[], help="as for tlcore rank")
    parser.add_argument("--plugin", default="", help="folder that a plugin package was installed in")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, models = given.data, given.models
        if not data:
            write_images(Path(folder) / "images", given.images, 500)
            data = str(Path(folder) / "images")
        if not models:
            write_zoo(Path(folder) / "zoo", NETWORKS)
            models = [f"local:{Path(folder) / 'zoo'}"]
        arguments = ["--data", data, *(part for model in models for part in ("--models", model))]
        runs: dict[str, list[tuple[float, float]]] = {"first time": [], "again": []}
        for number in range(given.repeats):
            path = os.pathsep.join(filter(None, [given.plugin, os.environ.get("PYTHONPATH", "")]))
            home = str(Path(folder) / f"store{number}")
            for name, found in runs.items():
                ranked, *seconds = timed(arguments, {**os.environ, "TLCORE_HOME": home, "PYTHONPATH": path})
                found.append((seconds[0], seconds[1]))
                print(f"{number + 1}/{given.repeats} {name}: {found[-1][0]:.1f} s", flush=True)
    print(f"{ranked} candidates ranked on {os.cpu_count()} cores")
    for name, found in runs.items():
        wall, cpu = zip(*found, strict=True)
        print(f"{name}: {_shown(wall)} s, CPU {_shown(cpu)} s")


def _shown(values: tuple[float, ...]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
