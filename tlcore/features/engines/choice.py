"""Which engine: known ones, what keeps one from running here, and the one place that prepares them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tlcore.errors import UnknownName, UserError
from tlcore.features.engines.cost import cheapest
from tlcore.features.engines.graph import FeatureGraph, Prepared
from tlcore.features.engines.hardware import Hardware
from tlcore.features.engines.work import Work

__all__ = ["AUTO", "ENGINES", "check_engine", "lacking", "missing", "prepare", "to_try"]

AUTO = "auto"
ENGINES = ("eager", "folded", "bf16", "onnxruntime", "compiled")


def missing(engine: str, hardware: Hardware) -> str:
    """What keeps `engine` from running on this hardware; "" where nothing does."""
    if engine == "bf16" and hardware.bf16 == "none":
        return f"this {hardware.device} multiplies no bfloat16 in hardware"
    if engine == "onnxruntime" and not hardware.onnxruntime:
        return "the package onnxruntime is not installed"
    if engine in ("onnxruntime", "compiled") and hardware.device != "cpu":
        return f"it runs on the CPU, not on {hardware.device}"
    if engine == "compiled" and not hardware.compiler:
        return "torch.compile finds no C++ compiler (g++, clang++ or $CXX)"
    return ""


def lacking(engine: str, planned: Hardware, here: Hardware) -> str:
    """What keeps `engine` from running here as it would on the hardware that the job was planned for."""
    if engine == "compiled" and planned.bf16 != "none" and here.bf16 == "none":
        return missing("bf16", here)  # there it computes in bfloat16
    return missing(engine, here)


def check_engine(engine: str, hardware: Hardware) -> None:
    """Nothing, where `engine` is "auto" or can run.

    Raises:
        UnknownName: no such engine.
        UserError: one that cannot run here, with the reason and those that can.
    """
    if engine == AUTO:
        return
    if engine not in ENGINES:
        raise UnknownName("engine", engine, (AUTO, *ENGINES), where="selection.engine")
    reason = missing(engine, hardware)
    if reason:
        raise UserError(
            f'the engine "{engine}" cannot run here: {reason}',
            where="selection.engine",
            choices=(AUTO, *(name for name in ENGINES if not missing(name, hardware))),
            hint="leave selection.engine at auto",
        )


def to_try(engine: str, work: Work, images: int, hardware: Hardware) -> Sequence[str]:
    """Engines in the order in which they are tried: the wanted one, then the safe ones."""
    if engine == AUTO:
        engine = cheapest([name for name in ENGINES if not missing(name, hardware)], work, images, hardware)
    return tuple(dict.fromkeys((engine, "folded", "eager")))


def prepare(
    engine: str, graph: FeatureGraph, example: Tensor, work: Work, batch: int, hardware: Hardware
) -> Prepared:
    """`graph` made ready by one of `ENGINES`. Whatever torch, the exporter or the network raises is raised.

    Args:
        example: float32 images [n, 3, H, W] on the device.
        batch: images that will go through together.
    """
    from tlcore.features.engines import bfloat16, compiled, float32, onnx_runtime

    match engine:
        case "folded":
            twin, count = float32.fold(graph, example)
            prepared = float32.eager(twin)
            return Prepared(prepared.run, folded=count)
        case "bf16":
            return bfloat16.bfloat16(
                graph, example, attention_matrix=work.attention_matrix, matrix_unit=hardware.bf16 == "matrix"
            )
        case "onnxruntime":
            return onnx_runtime.onnx_runtime(graph, example)
        case "compiled":
            return compiled.compiled(graph, example, batch=batch, narrow=hardware.bf16 != "none")
        case _:
            return float32.eager(graph)
