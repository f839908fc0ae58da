"""Seconds of `tlcore models` over all pretrained models of timm, filtered: whole processes, an empty hub cache.

    python -m benchmarks.listing [--repeats 5]

Given are the median, least and greatest wall and CPU seconds; most of both is importing torch and timm. The goal is
an answer in seconds for 1,000 models without loading a weight.
"""

from __future__ import annotations

import argparse
import os
import tempfile

from benchmarks.commands import call, shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TLCORE_HOME": f"{home}/store", "HF_HOME": f"{home}/hub"}
        runs = [call(["models", "timm:*", "--max-params", "5"], environment) for _ in range(given.repeats)]
    document = runs[0][0]
    kept, left = len(document["models"]), len(document["left_out"])
    wall, cpu = [run[1] for run in runs], [run[2] for run in runs]
    print(
        f"{kept + left:,} models, {kept:,} of them inside the limit: {shown(wall, 1)} s, CPU {shown(cpu, 1)} s"
    )


if __name__ == "__main__":
    main()
