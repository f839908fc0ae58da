"""How long ONNX Runtime takes for one image, measured on this machine."""

from __future__ import annotations

import contextlib
import functools
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlcore.errors import PluginError
from tlcore.values import Interval, Preprocess, Value

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Latency", "measure_latency", "processor"]

RUNS = 30
"""Timed runs at most."""
LEAST_RUNS = 7
"""Timed runs, however long they take: a median of fewer would follow a single disturbance."""
SECONDS = 3.0
"""Seconds after which no further run is begun once there are LEAST_RUNS."""
WARM_UP = 3
"""Runs before the first timed one: memory is laid out, kernels are chosen."""

INPUT = "image"


class Latency(Value):
    """Time for one image.

    Attributes:
        milliseconds: median over `runs`.
        quartiles: milliseconds, the middle half of the runs.
        threads: of ONNX Runtime; 0: all cores.
        processor: the machine's processor by name.
        file_bytes: size of the measured ONNX file.
    """

    milliseconds: float
    quartiles: Interval
    runs: int
    threads: int
    processor: str
    file_bytes: int


def measure_latency(
    network: nn.Module, preprocess: Preprocess, *, threads: int = 0, where: str = ""
) -> Latency:
    """The median time of ONNX Runtime on the CPU for one image, of the graph that an exported file holds.

    The graph takes uint8 pixels and normalises them; `network` stands where the file has the network with its new
    head. What its weights are plays no part: numbers too small for the processor's fast path count as zero.

    Args:
        network: on the CPU, without a head: features [n, d].
        threads: of ONNX Runtime; 0: all cores.
        where: whose network it is, for errors.

    Raises:
        PluginError: it cannot be exported, or ONNX Runtime cannot run the file.
    """
    import onnxruntime

    from tlcore.export.denormals import denormals_kept

    try:
        content = _exported(network, preprocess)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # failures arrive as exceptions
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        with denormals_kept():
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            times = _timed(session, preprocess)
    except Exception as error:  # exporter, runtime and network may raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PluginError(f"its latency cannot be measured: {reason[:300]}", where=where) from error
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return Latency(
        milliseconds=round(middle, 4),
        quartiles=Interval(low=round(low, 4), high=round(high, 4)),
        runs=len(times),
        threads=threads,
        processor=processor(),
        file_bytes=len(content),
    )


@functools.cache
def processor() -> str:
    """The processor's name and how many of its cores this machine has: what a latency depends on."""
    import os

    return f"{_processor_name()}, {os.cpu_count()} cores"


def _processor_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Hardware", "cpu model") and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown processor"


def _exported(network: nn.Module, preprocess: Preprocess) -> bytes:
    """The ONNX file's bytes, the number of images left open as in a deployed file."""
    import torch

    from tlcore.export.inference_graph import InferenceGraph

    # Two images: a single one would be taken as constant.
    example = torch.zeros(2, preprocess.height, preprocess.width, 3, dtype=torch.uint8)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation and tracing notes
        program = torch.onnx.export(
            InferenceGraph(network, preprocess),
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
        )
    assert program is not None  # None only where a file was asked for
    content: bytes = program.model_proto.SerializeToString()
    return content


def _timed(session: Any, preprocess: Preprocess) -> list[float]:
    """Milliseconds of single runs after the warm-up."""
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (1, preprocess.height, preprocess.width, 3), dtype=np.uint8)
    for _ in range(WARM_UP):
        session.run(None, {INPUT: pixels})
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < LEAST_RUNS or (len(times) < RUNS and time.perf_counter() - started < SECONDS):
        before = time.perf_counter()
        session.run(None, {INPUT: pixels})
        times.append((time.perf_counter() - before) * 1e3)
    return times
