"""An exported ONNX file, open in ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import PluginError, UnknownName, UserError
from tlcore.export.metadata import INPUT, FileMetadata, read_properties

__all__ = ["FileSession"]


class FileSession:
    """Runs one exported file.

    Attributes:
        path: the file.
        metadata: what the file says about itself.

    Raises:
        UnknownName: no such file (the nearest ONNX file of the folder is offered).
        UserError: not an ONNX file, no tlcore metadata, or other inputs and outputs than tlcore writes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._session = _open(self.path)
        self.metadata: FileMetadata = read_properties(
            self._session.get_modelmeta().custom_metadata_map, str(self.path)
        )
        self._check_signature()

    def run(self, pixels: NDArray[np.uint8], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Probabilities, or numbers, [n, K] for uint8 RGB pixels [n, height, width, 3], `batch_size` images at a time.

        Raises:
            UserError: pixels of another type or size than the file was made for.
            PluginError: ONNX Runtime failed on this input, or the file answered in another shape.
        """
        wanted = (self.metadata.preprocess.height, self.metadata.preprocess.width, 3)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != wanted:
            raise UserError(
                f"takes uint8 pixels [n, {wanted[0]}, {wanted[1]}, 3], got {pixels.dtype} {list(pixels.shape)}",
                where=str(self.path),
                hint="prepare images by the rule in the file's metadata",
            )
        answers = [np.empty((0, len(self.metadata.classes)), np.float32)]
        for start in range(0, len(pixels), batch_size):
            batch = np.ascontiguousarray(pixels[start : start + batch_size])
            try:
                (answer,) = self._session.run([self.metadata.output], {INPUT: batch})
            except Exception as error:  # the runtime's error classes share no other base
                raise PluginError(
                    f"ONNX Runtime failed on {len(batch)} images: {error}", where=str(self.path)
                ) from error
            if answer.shape != (len(batch), len(self.metadata.classes)):
                raise PluginError(
                    f"the file answers {list(answer.shape)} for {len(batch)} images "
                    f"and {len(self.metadata.classes)} classes",
                    where=str(self.path),
                )
            answers.append(answer)
        return np.concatenate(answers)

    def _check_signature(self) -> None:
        """The graph must take and give what the metadata promises."""
        rule, classes = self.metadata.preprocess, len(self.metadata.classes)
        ports = (*self._session.get_inputs(), *self._session.get_outputs())
        found = [f"{port.name}: {port.type} {port.shape[1:]}" for port in ports]
        wanted = [
            f"{INPUT}: tensor(uint8) {[rule.height, rule.width, 3]}",
            f"{self.metadata.output}: tensor(float) {[classes]}",
        ]
        if found != wanted:
            raise UserError(
                f"the graph has {'; '.join(found)} and the metadata says {'; '.join(wanted)}",
                where=str(self.path),
                hint="use a file that a tlcore run exported; the newest one is shown by: tlcore runs show last",
            )


def _open(path: Path) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU, quiet."""
    if not path.is_file():
        if path.is_dir():
            inside = sorted(entry.name for entry in path.glob("*.onnx"))
            raise UserError("is a folder, not an ONNX file", where=str(path), choices=inside)
        known = [entry.name for entry in path.parent.glob("*.onnx")] if path.parent.is_dir() else []
        raise UnknownName(
            "ONNX file",
            path.name,
            known,
            where=str(path.parent),
            hint="the newest exported file is shown by: tlcore runs show last",
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # failures arrive as exceptions; the log would repeat them on stderr
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's error classes share no other base
        reason = "empty file" if path.stat().st_size == 0 else str(error).splitlines()[0]
        raise UserError(
            f"is not an ONNX file that ONNX Runtime can open ({reason})",
            where=str(path),
            hint="use a file that a tlcore run exported; the newest one is shown by: tlcore runs show last",
        ) from error
