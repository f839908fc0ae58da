"""The constants of tlcore/features/engines/cost.py: what each engine takes on one thread of this machine.

    python -m benchmarks.engine_costs [--models resnet18 …] [--compile resnet18 …] [--repeats 5]

Random weights, 224 px, 32 images, the least processor time of `repeats` runs (children counted: compilers),
then a fit with non-negative constants of least relative error per engine. Prints the measured table, the
constants, and for every network what they predict.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # compilers as children whose time is counted
os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

MODELS = (
    "resnet18", "resnet50", "mobilenetv3_small_100", "mobilenetv2_100", "efficientnet_b0", "regnety_002",
    "vit_tiny_patch16_224", "deit_small_patch16_224", "convnext_atto", "mixer_s32_224",
)  # fmt: skip
COMPILED = ("resnet18", "mobilenetv3_small_100", "efficientnet_b0", "vit_tiny_patch16_224", "convnext_atto")
KINDS = ("dense", "depthwise", "linear", "attention", "norm", "elementwise")
BATCH = 32


def processor_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = processor_seconds()
    found = call()
    return found, processor_seconds() - started


def measure(name: str, engines: list[str], repeats: int) -> tuple[Any, dict[str, tuple[float, float]]]:
    """The work of one image, and (set-up, per image) seconds by engine."""
    import timm
    import torch

    from tlcore.features.engines.choice import prepare
    from tlcore.features.engines.graph import feature_graph
    from tlcore.features.engines.hardware import Hardware
    from tlcore.features.engines.work import CountWork

    torch.manual_seed(0)
    hardware = Hardware.of("cpu")
    images = torch.randn(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    graph = feature_graph(timm.create_model(name, pretrained=False), images[:1], head=True)
    with torch.no_grad(), CountWork() as counted:
        graph(images[:1])
    work = counted.per_image(1)
    found = {}
    for engine in engines:
        way, setup = timed(functools.partial(prepare, engine, graph, images[:2], work, BATCH, hardware))
        order = torch.channels_last if way.channels_last else torch.contiguous_format
        ready = images.to(dtype=way.dtype).contiguous(memory_format=order)
        run = functools.partial(way.run, ready)
        setup += timed(run)[1]
        least = min(timed(run)[1] for _ in range(repeats))
        found[engine] = (setup - least, least / BATCH)
        print(f"{name:26}{engine:13}{setup - least:8.2f} s{least / BATCH * 1e3:9.2f} ms/image", flush=True)
    return work, found


def fit(rows: list[tuple[Any, float, float]]) -> tuple[dict[str, float], list[float]]:
    """Non-negative constants, and predicted over measured time per image, for (work, set-up, per image)."""
    import numpy as np
    from scipy.optimize import nnls

    table = np.array([[getattr(work, kind) for kind in KINDS] for work, _, _ in rows])
    times = np.array([image for _, _, image in rows])
    rates, _ = nnls(table / times[:, None], np.ones(len(rows)))
    operators = np.array([[1.0, work.operators] for work, _, _ in rows])
    setup, _ = nnls(operators, np.array([spent for _, spent, _ in rows]))
    constants = dict(zip(KINDS, rates, strict=True)) | {"setup": setup[0], "setup_operator": setup[1]}
    return constants, list(table @ rates / times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--compile", nargs="*", default=list(COMPILED), help="networks that are compiled too")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    from tlcore.features.engines.choice import ENGINES, missing
    from tlcore.features.engines.hardware import Hardware
    from tlcore.stages.machine import settle

    settle(1, "cpu")
    hardware = Hardware.of("cpu")
    print(hardware)
    usable = [engine for engine in ENGINES if not missing(engine, hardware)]
    rows: dict[str, list[tuple[Any, float, float]]] = {engine: [] for engine in usable}
    for name in given.models:
        engines = [engine for engine in usable if engine != "compiled" or name in given.compile]
        work, found = measure(name, engines, given.repeats)
        for engine, (setup, image) in found.items():
            rows[engine].append((work, setup, image))
    for engine, measured in rows.items():
        if measured:
            constants, ratios = fit(measured)
            print(engine, ", ".join(f"{kind}={value:.3g}" for kind, value in constants.items()))
            print("  predicted / measured:", " ".join(f"{ratio:.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
