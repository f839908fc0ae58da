"""From JPEG files to features: tlcore against the plain timm loop, and against what its parts take alone.

    python -m benchmarks.extraction [--models resnet18 …] [--images 1000] [--repeats 5] [--engine auto] [--threads 0]
    python -m benchmarks.extraction --parts …

Ways, each in a process of its own, in turn, the order rotating, so that a change of the machine's speed meets all:

    plain-0, -1, -2   timm's create_dataset and create_loader with 0, 1 or 2 workers, eager float32; the best counts
    tlcore            decode for scores, then extract: the product's path; the engine's set-up and check included
    decode            the same decoding alone
    forward           the chosen engine alone: set up before, the same normalised batch again and again
    warm              extract from pixels that are decoded already; set-up and check included

Shown: median seconds and quartiles, processor seconds (children's too), and of the ratios
    plain / tlcore, (decode + forward) / tlcore, forward / warm
the median over the repeats with the least and the greatest. The plain loop has the wait policy of threads that tlcore
sets for itself (without it, it is slower). "decode" is tlcore's own decoding, written to its memory map.
Images are JPEGs of 500 x 375 px with structure at all scales; weights are random. Neither changes the time.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ten_candidates import write_images

MODELS = ("resnet18", "mobilenetv3_small_100", "efficientnet_b0", "vit_tiny_patch16_224")
PLAIN = ("plain-0", "plain-1", "plain-2")
PARTS = ("tlcore", "decode", "forward", "warm")
WAYS = (*PLAIN, *PARTS)
LONGER, BATCH = 500, 64
TARGETS = {"resnet18": 3.0, "vit_tiny_patch16_224": 3.0, "mobilenetv3_small_100": 2.0}
"""Least plain / tlcore where the processor multiplies bfloat16; 1.7 elsewhere."""


def plain(model: str, folder: Path, workers: int) -> Callable[[], str]:
    """The loop that a user of timm would write."""
    import timm
    import torch
    from timm.data import create_dataset, create_loader, resolve_data_config

    network: Any = timm.create_model(model, pretrained=False).eval()
    config = resolve_data_config({}, model=network)

    def once() -> str:
        loader = create_loader(
            create_dataset("", root=str(folder)), input_size=config["input_size"], batch_size=BATCH,
            interpolation=config["interpolation"], mean=config["mean"], std=config["std"],
            crop_pct=config["crop_pct"], num_workers=workers, device=torch.device("cpu"),
        )  # fmt: skip
        found = []
        with torch.inference_mode():
            for images, _ in loader:
                found.append(network.forward_head(network.forward_features(images), pre_logits=True))
        torch.cat(found)
        del loader
        gc.collect()  # ends the workers, so that their processor time is counted
        return "eager"

    return once


def product(model: str, folder: Path, way: str, engine: str) -> Callable[[], str]:
    """The product's path, or one of its parts."""
    import timm
    import torch
    from timm.data import resolve_data_config

    from tlcore.data.images import decode, load_pixels
    from tlcore.data.scoring_pixels import scoring_pixels
    from tlcore.features.engines.choice import prepare, to_try
    from tlcore.features.engines.graph import feature_graph
    from tlcore.features.engines.hardware import Hardware
    from tlcore.features.engines.work import CountWork
    from tlcore.features.extract import extract
    from tlcore.features.normalisation import normalised_rows
    from tlcore.values import Preprocess

    network: Any = timm.create_model(model, pretrained=False).eval()
    config = resolve_data_config({}, model=network)
    rule = Preprocess(
        height=config["input_size"][1], width=config["input_size"][2], crop_pct=config["crop_pct"],
        interpolation=config["interpolation"], mean=config["mean"], std=config["std"],
    )  # fmt: skip
    files = [str(path) for path in sorted(folder.rglob("*.jpg"))]

    def decoded(place: Path) -> Path:
        return decode(files, [rule], folder=place, read=scoring_pixels)[rule.decode_key()]

    def extracted(pixels: Path) -> str:
        found = extract(network, load_pixels(pixels), rule, head=True, engine=engine)
        return found.engine + (f" ({found.note})" if found.note else "")

    if way == "decode":

        def only_decode() -> str:
            with tempfile.TemporaryDirectory() as place:
                decoded(Path(place))
            return ""

        return only_decode
    if way == "tlcore":

        def whole() -> str:
            with tempfile.TemporaryDirectory() as place:
                return extracted(decoded(Path(place)))

        return whole
    pixels = decoded(folder.parent / f"pixels-{model}-{way}-{os.getpid()}")
    if way == "warm":
        return lambda: extracted(pixels)
    rows = np.arange(min(BATCH, len(files)))
    images = normalised_rows(load_pixels(pixels), rows, rule)
    graph = feature_graph(network, images[:1], head=True)
    with torch.no_grad(), CountWork() as counted:
        graph(images[:1])
    hardware, work = Hardware.of("cpu"), counted.per_image(1)
    chosen = to_try(engine, work, len(files), hardware)[0]
    prepared = prepare(chosen, graph, images[:2], work, BATCH, hardware)
    order = torch.channels_last if prepared.channels_last else torch.contiguous_format
    ready = images.to(dtype=prepared.dtype).contiguous(memory_format=order)

    def forward() -> str:
        for start in range(0, len(files), BATCH):
            prepared.run(ready if prepared.batch else ready[: len(files) - start])
        return chosen

    return forward


def serve(way: str, given: argparse.Namespace) -> None:
    """One way in this process: for every line read, one run and one line of JSON."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    model, folder = given.models[0], Path(given.folder)
    if way.startswith("plain"):
        import torch

        if given.threads:
            torch.set_num_threads(given.threads)
        once = plain(model, folder, int(way[-1]))
    else:
        from tlcore.stages.machine import settle

        settle(given.threads, "cpu")
        once = product(model, folder, way, given.engine)
    once()
    print("ready", flush=True)
    for _ in sys.stdin:
        before, wall = os.times(), time.perf_counter()
        engine = once()
        seconds = time.perf_counter() - wall
        spent = sum(os.times()[:4]) - sum(before[:4])
        print(json.dumps({"seconds": seconds, "processor": spent, "engine": engine}), flush=True)


def measure(model: str, folder: Path, given: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Runs by way."""
    command = [sys.executable, "-m", "benchmarks.extraction", "--models", model, "--folder", str(folder)]
    command += ["--engine", given.engine, "--threads", str(given.threads)]
    ways = PARTS if given.parts else WAYS
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    repeats = range(given.repeats)
    for numbers in [[number] for number in repeats] if given.parts else [repeats]:
        _measure(command, ways, numbers, found)
    return found


def _measure(
    command: list[str], ways: tuple[str, ...], numbers: Iterable[int], found: dict[str, list[dict[str, Any]]]
) -> None:
    """These repeats, by one process for each way."""
    servers: dict[str, subprocess.Popen[str]] = {}
    try:
        for way in ways:  # one after the other: starting takes processor time
            servers[way] = subprocess.Popen(
                [*command, "--serve", way],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            _line(servers[way], way)
        for number in numbers:
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                server = servers[way]
                assert server.stdin is not None
                server.stdin.write("go\n")
                server.stdin.flush()
                found[way].append(json.loads(_line(server, way)))
    finally:
        for server in servers.values():
            server.kill()
            server.wait()


def _line(server: subprocess.Popen[str], way: str) -> str:
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        raise SystemExit(f"the way {way} ended; see: python -m benchmarks.extraction --serve {way} …")
    return line


def report(model: str, found: dict[str, list[dict[str, Any]]], images: int) -> None:
    from tlcore.features.engines.hardware import Hardware

    seconds = {way: statistics.median(run["seconds"] for run in runs) for way, runs in found.items()}
    print(f"\n{model}, engine {found['tlcore'][0]['engine']}")
    for way, runs in found.items():
        times = sorted(run["seconds"] for run in runs)
        low, _, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
        spent = statistics.median(run["processor"] for run in runs)
        print(
            f"  {way:9}{seconds[way]:8.2f} s [{low:.2f}, {high:.2f}]  processor {spent:7.2f} s"
            f"{seconds[way] / images * 1e3:8.2f} ms/image"
        )
    rival = found[min(PLAIN, key=lambda way: seconds[way])] if PLAIN[0] in found else []
    target = TARGETS.get(model, 1.7) if Hardware.of("cpu").bf16 != "none" else 1.7
    took = {name: [run["seconds"] for run in runs] for name, runs in {**found, "plain": rival}.items()}
    floor = [decode + forward for decode, forward in zip(took["decode"], took["forward"], strict=True)]
    for text, above, below, least in (
        ("plain / tlcore", took["plain"], took["tlcore"], target),
        ("(decode + forward) / tlcore", floor, took["tlcore"], 0.85),
        ("forward / warm", took["forward"], took["warm"], 0.85),
    ):
        if not above:
            continue
        ratios = [one / other for one, other in zip(above, below, strict=True)]
        value = statistics.median(ratios)
        print(
            f"  {text:28}{value:6.2f} [{min(ratios):.2f}, {max(ratios):.2f}]  "
            f"{'reaches' if value >= least else 'misses'} {least}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--folder", default="", help="of JPEG files in a class folder; made when not given")
    parser.add_argument(
        "--parts",
        action="store_true",
        help="without the plain loop, and each repeat in new processes: a process keeps its luck with memory",
    )
    parser.add_argument("--serve", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given)
        return
    from tlcore.features.engines.hardware import Hardware

    print(Hardware.of("cpu"))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(given.folder or f"{made}/images")
        if not given.folder:
            write_images(folder, given.images, LONGER)
        images = len(list(folder.rglob("*.jpg")))
        for model in given.models:
            report(model, measure(model, folder, given), images)


if __name__ == "__main__":
    main()
