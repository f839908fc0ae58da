"""The graph exported to ONNX and run by ONNX Runtime, float32, on the CPU."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from typing import Any

import torch
from torch import Tensor

from tlcore.export.denormals import denormals_kept
from tlcore.features.engines.graph import FeatureGraph, Prepared

__all__ = ["onnx_runtime"]

_EXPORTING = threading.Lock()  # torch's exporter keeps state of the process


def onnx_runtime(graph: FeatureGraph, example: Tensor) -> Prepared:
    """An ONNX Runtime session with as many threads as torch has. It folds batch norms by itself.

    Args:
        example: float32 [n, 3, H, W] with n > 1: a single image would be taken as constant.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # failures arrive as exceptions
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin while they wait take time from torch's, which normalise the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    content = _exported(graph, example)
    with denormals_kept():
        session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with denormals_kept():
            answers = session.run(None, {"images": images.numpy()})
        return tuple(torch.from_numpy(answer) for answer in answers)

    return Prepared(run, channels_last=False)


def _exported(graph: FeatureGraph, example: Tensor) -> bytes:
    with (
        _EXPORTING,
        contextlib.redirect_stdout(sys.stderr),
        warnings.catch_warnings(),
        _quiet("torch.onnx", "onnxscript"),
    ):
        warnings.simplefilter("ignore")  # notes on deprecation and tracing
        program = torch.onnx.export(
            graph,
            (torch.cat([example, example])[:2].contiguous(),),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            external_data=False,
        )
    assert program is not None  # None only where a file was asked for
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextlib.contextmanager
def _quiet(*names: str) -> Any:
    """What these loggers have to say below an error is about the exporter, not about the user's run."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
