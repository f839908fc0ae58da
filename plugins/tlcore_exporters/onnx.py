"""ONNX: one file with weights, normalisation, softmax, class names and the resize rule in it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tlcore.errors import PluginError, UserError
from tlcore.export.metadata import INPUT, FileMetadata, output_name, write_properties
from tlcore.export.session import FileSession
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Exporter, ExportJob
from tlcore.values import Exported

if TYPE_CHECKING:
    from tlcore.export.inference_graph import InferenceGraph
    from tlcore.export.trial import Trial

logger = logging.getLogger(__name__)

FILE_NAME = "model.onnx"
TORCHSCRIPT_MAX_OPSET = 20
"""Newest opset that torch's TorchScript-based exporter implements."""
_PROTOBUF_LIMIT = 2**31 - 2**26
"""Bytes of weights that fit a single protobuf file (2 GiB), less 64 MiB for the graph."""


class Onnx(Exporter):
    """uint8 RGB [n, height, width, 3] "image" -> float32 [n, K] "probabilities", dynamic n; numbers are "values" [n, 1].

    Captured by torch.export; a network that it refuses (control flow that depends on values) goes through the
    TorchScript tracer, with a warning. A capture counts only when ONNX Runtime gives the network's
    probabilities on synthetic images in batches of 1 and 7. Source paths and traces are taken out of the file.
    """

    card: ClassVar[Card] = Card(
        name="onnx",
        summary="One ONNX file: preprocessing constants, network, softmax and class names",
        reference="ONNX IR and operator specification, onnx.ai/onnx/repo-docs/IR.html",
    )

    opset: int | None = Field(
        None, ge=18, le=23, description="ONNX operator set; None: what torch recommends"
    )
    batch_size: int = Field(32, ge=1, le=4096, description="images that the file is run on at a time")

    def export(self, job: ExportJob) -> Exported:
        """Write `job.folder`/model.onnx under a temporary name, prove it opens and answers, then rename it.

        Raises:
            UserError: weights that do not fit a single file of 2 GiB, reserved metadata keys.
            PluginError: neither capture gives a file that ONNX Runtime runs as the network does (both causes).
        """
        from tlcore.export.inference_graph import InferenceGraph
        from tlcore.export.trial import make_trial

        graph = InferenceGraph(job.network, job.preprocess, job.temperature, job.task)
        size = sum(tensor.nbytes for tensor in graph.state_dict().values())
        if size > _PROTOBUF_LIMIT:
            raise UserError(
                f"the weights take {size / 2**30:.1f} GiB, and a single ONNX file holds 2 GiB",
                where=f"exporter {self.card.name}",
                hint="choose a smaller source model (--models)",
            )
        properties = write_properties(
            FileMetadata(
                classes=job.classes,
                preprocess=job.preprocess,
                temperature=job.temperature,
                task=job.task,
                run_id=job.metadata.get("run_id", ""),
                extra=dict(job.metadata),
            )
        )
        unit = float(job.network.output_scale) if job.task == "regression" else 1.0
        trial = make_trial(graph, job.preprocess, len(job.classes), unit)
        job.folder.mkdir(parents=True, exist_ok=True)
        target = job.folder / FILE_NAME
        draft = job.folder / f".{FILE_NAME}.{os.getpid()}.tmp"
        try:
            opset = self._capture(graph, properties, trial, draft)
            digest = hashlib.sha256(draft.read_bytes()).hexdigest()
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        if not trial.steady.any():
            logger.warning(
                "rounding alone changes the network's answers on synthetic images; the parity gate decides alone"
            )
        return Exported(
            path=FILE_NAME, format="onnx", bytes=target.stat().st_size, opset=opset, sha256=digest
        )

    def predict(self, path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return FileSession(path).run(pixels, batch_size=self.batch_size)

    def _capture(
        self,
        graph: InferenceGraph,
        properties: dict[str, str],
        trial: Trial,
        draft: Path,
    ) -> int:
        """The first capture whose file answers as the network does stays in `draft`; returns its opset."""
        from tlcore.export.onnx_model import finish
        from tlcore.export.trial import prove

        ways = {"torch.export": _by_torch_export}
        if self.opset is None or self.opset <= TORCHSCRIPT_MAX_OPSET:
            ways["TorchScript"] = _by_torchscript
        causes: list[str] = []
        for name, way in ways.items():
            try:
                with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # deprecation and tracing notes; the trial decides
                    model = way(graph, trial.images[:2], self.opset)
                content = finish(model, properties)
            except Exception as error:  # noqa: BLE001 - an exporter may raise anything; the cause is kept
                causes.append(_cause(name, error))
                continue
            _write(draft, content)  # a full disk is no fault of the capture
            try:
                prove(draft, trial)
            except (PluginError, UserError) as error:
                causes.append(_cause(name, error))
                continue
            return int(next(entry.version for entry in model.opset_import if entry.domain == ""))
        raise PluginError(
            "the network cannot be written as ONNX; " + "; ".join(causes),
            distribution="tlcore",
            where=f"exporter {self.card.name}",
            hint="try another opset (18 to 20 allow both captures), or choose another source model (--models)",
        )


def _cause(name: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    logger.warning("capture by %s failed: %s", name, reason)
    return f"{name}: {reason}"


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _by_torch_export(graph: InferenceGraph, example: NDArray[np.uint8], opset: int | None) -> Any:
    """The `onnx.ModelProto` by torch.export. The example has more than one image: 1 would be taken as constant."""
    import torch

    program = torch.onnx.export(
        graph,
        (torch.from_numpy(example),),
        dynamo=True,
        verbose=False,
        input_names=[INPUT],
        output_names=[output_name(graph.task)],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=opset,
        external_data=False,
    )
    assert program is not None  # None only where a file was asked for
    return program.model_proto


def _by_torchscript(graph: InferenceGraph, example: NDArray[np.uint8], opset: int | None) -> Any:
    """The `onnx.ModelProto` by the TorchScript tracer: branches are fixed as the example takes them."""
    import onnx
    import torch

    buffer = io.BytesIO()
    torch.onnx.export(
        graph,
        (torch.from_numpy(example),),
        buffer,  # type: ignore[arg-type]  # the tracer takes any binary stream
        dynamo=False,
        input_names=[INPUT],
        output_names=[output_name(graph.task)],
        dynamic_axes={INPUT: {0: "batch"}, output_name(graph.task): {0: "batch"}},
        opset_version=opset,
    )
    return onnx.load_from_string(buffer.getvalue())


@hookimpl
def tlcore_exporters() -> list[type[Exporter]]:
    return [Onnx]
