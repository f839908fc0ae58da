"""Ten candidates ranked in one run against ten runs of one candidate each, as whole processes.

    python -m benchmarks.ten_candidates [--images 2000] [--repeats 5] [--models 10] [--side 500]

Both sides do the same: `tlcore rank` on the same JPEG files and the same weights, each with an empty store, from
the start of the process to its end. One run loads, checks and decodes once for all candidates, and starts once;
ten runs do so ten times. The networks are small ones of timm with random weights, as people put on devices: the
larger the networks, the more of both sides is the forward passes, and the nearer the ratio is to 1.

Each repeat runs both sides in turn, the one that goes first alternating, so that a busy machine slows both. The
median, the least and the greatest ratio of all repeats are given, by wall clock and by CPU seconds of the processes
and their children; above 1 one run is faster. The goal is 1.5 at 2,000 images. The scores of both sides are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.commands import rank, shown

NETWORKS = (
    "mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_small_100", "lcnet_050", "lcnet_075", "lcnet_100",
    "tinynet_e", "tinynet_d", "mobilenetv2_035", "regnetx_002",
)  # fmt: skip
CLASSES = 10
GOAL = 1.5


def write_images(folder: Path, count: int, side: int) -> None:
    """JPEGs of `side` x 3/4 `side` with structure at all scales, so that decoding costs what photographs cost."""
    draw = np.random.default_rng(0)
    width, height = side, 3 * side // 4
    for number in range(count):
        values = np.full((height, width, 3), 255 * (number % CLASSES) / (2 * CLASSES))
        for cell in (2, 8, 32, 128):
            coarse = draw.integers(0, 256, (height // cell + 2, width // cell + 2, 3), dtype=np.uint8)
            values += 0.12 * np.asarray(Image.fromarray(coarse).resize((width, height)), dtype=np.float64)
        place = folder / f"class{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(place / f"{number:06}.jpg", quality=90)


def write_zoo(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Seeded random weights with the index that the `local` source reads."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    index: dict[str, Any] = {}
    for name in names:
        torch.manual_seed(0)
        network = timm.create_model(name)
        wanted = timm.data.resolve_model_data_config(network)
        save_file(network.state_dict(), folder / f"{name}.safetensors")
        index[name] = {
            "file": f"{name}.safetensors", "architecture": name, "kwargs": {}, "num_classes": network.num_classes,
            "input_size": list(wanted["input_size"]), "mean": list(wanted["mean"]), "std": list(wanted["std"]),
            "interpolation": wanted["interpolation"], "pretrained_on": "nothing", "modality": "image",
            "known_to_timm": True, "licence": "Apache-2.0",
        }  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return [folder / f"{name}.safetensors" for name in names]


Scores = dict[str, dict[str, float]]


def ranked(data: Path, models: list[Path]) -> tuple[Scores, float, float]:
    """Scores by candidate, wall and CPU seconds of one run after another, each with an empty store."""
    scores: Scores = {}
    wall = cpu = 0.0
    for place in models:
        with tempfile.TemporaryDirectory() as home:
            arguments = ["--data", str(data), "--models", f"local:{place}"]
            done = rank(arguments, {**os.environ, "TLCORE_HOME": home})
        scores |= {entry["candidate"]: entry["scores"] for entry in done.entries}
        wall, cpu = wall + done.wall, cpu + done.cpu
    return scores, wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5, help="pairs of one run and the separate runs")
    parser.add_argument(
        "--models", type=int, default=len(NETWORKS), choices=range(2, len(NETWORKS) + 1), metavar="2…10"
    )
    parser.add_argument("--side", type=int, default=500, help="longer side of the JPEGs, pixels")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, zoo = Path(folder) / "images", Path(folder) / "zoo"
        write_images(data, given.images, given.side)
        files = write_zoo(zoo, NETWORKS[: given.models])
        wall, cpu, difference = [], [], 0.0
        for number in range(given.repeats):
            sides = {"one run": [zoo], f"{len(files)} runs": files}
            order = list(sides) if number % 2 == 0 else list(sides)[::-1]
            found = {name: ranked(data, sides[name]) for name in order}
            one, many = (found[name] for name in sides)
            if one[0].keys() != many[0].keys() or len(one[0]) != len(files):
                raise SystemExit(f"not all candidates were ranked: {sorted(one[0])} and {sorted(many[0])}")
            wall.append(many[1] / one[1])
            cpu.append(many[2] / one[2])
            apart = (abs(s - many[0][c][n]) for c, scores in one[0].items() for n, s in scores.items())
            difference = max(difference, *apart)
            print(
                f"{number + 1}/{given.repeats}: one run {one[1]:.1f} s (CPU {one[2]:.1f}), "
                f"{len(files)} runs {many[1]:.1f} s (CPU {many[2]:.1f})",
                flush=True,
            )
    print(f"{len(files)} candidates, {given.images} images of {given.side} px, {os.cpu_count()} cores")
    print(f"wall ratio {shown(wall, 2)}, CPU ratio {shown(cpu, 2)}, scores at most {difference:.1e} apart")
    print(f"goal {GOAL} in wall time: {'reached' if statistics.median(wall) >= GOAL else 'missed'}")


if __name__ == "__main__":
    main()
