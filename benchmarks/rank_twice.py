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
import os
import tempfile
from pathlib import Path

from benchmarks.commands import Ranked, rank, shown
from benchmarks.ten_candidates import write_images, write_zoo

NETWORKS = (
    "mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv2_100", "efficientnet_b0", "regnety_004",
    "ghostnet_100", "convnext_atto", "resnet18", "vit_tiny_patch16_224", "mobilevitv2_050",
)  # fmt: skip


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
        runs: dict[str, list[Ranked]] = {"first time": [], "again": []}
        for number in range(given.repeats):
            path = os.pathsep.join(filter(None, [given.plugin, os.environ.get("PYTHONPATH", "")]))
            home = str(Path(folder) / f"store{number}")
            for name, found in runs.items():
                found.append(rank(arguments, {**os.environ, "TLCORE_HOME": home, "PYTHONPATH": path}))
                print(f"{number + 1}/{given.repeats} {name}: {found[-1].wall:.1f} s", flush=True)
    print(f"{len(found[-1].entries)} candidates ranked on {os.cpu_count()} cores")
    for name, found in runs.items():
        print(f"{name}: {shown([r.wall for r in found], 1)} s, CPU {shown([r.cpu for r in found], 1)} s")


if __name__ == "__main__":
    main()
