"""Labels and probabilities, numbers or tags for image files from an exported file alone: no torch, no run store."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tlcore.data.image_file import IMAGE_SUFFIXES, MAX_PIXELS, BadImage, open_rgb
from tlcore.data.images import to_pixels
from tlcore.errors import UnknownName, UserError
from tlcore.export.metadata import FileMetadata
from tlcore.export.session import FileSession
from tlcore.values import Json, Value

__all__ = ["Prediction", "Predictor", "Scored", "expand", "prediction_document"]


TAGGED = 0.5
"""A tag is given to an image where its probability is at least this."""


class Scored(Value):
    """One class and its probability."""

    label: str
    probability: float


class Prediction(Value):
    """What the file says about one image, or why it says nothing.

    `probabilities` holds every class, best first; it is empty, and `label` and `probability` are None, where
    `error` says why. Of a file of tags `tags` are those of at least 0.5 and `probabilities` holds each tag's own; of
    one that answers numbers there is a `value` alone.
    """

    uri: str
    value: float | None = None
    tags: tuple[str, ...] | None = None
    label: str | None = None
    probability: float | None = None
    probabilities: tuple[Scored, ...] = Field((), description="all classes, best first")
    error: str | None = None

    def top(self, count: int) -> tuple[Scored, ...]:
        """The `count` best classes."""
        return self.probabilities[:count]


class Predictor:
    """An exported file, ready to answer.

    Args:
        path: the ONNX file.
        max_pixels: width x height above which an image is not decoded.
        batch_size: images decoded and run at a time; bounds the memory.

    Raises:
        UserError: no such file (the nearest is offered), not an ONNX file, or none that tlcore wrote.
    """

    def __init__(self, path: str | Path, *, max_pixels: int = MAX_PIXELS, batch_size: int = 32) -> None:
        self._session = FileSession(path)
        self._max_pixels = max_pixels
        self._batch_size = batch_size

    @property
    def path(self) -> Path:
        return self._session.path

    @property
    def metadata(self) -> FileMetadata:
        return self._session.metadata

    def predict(self, paths: Sequence[str | Path]) -> list[Prediction]:
        """One prediction per path, in order. An image that cannot be read is a row with an error."""
        predictions: list[Prediction] = []
        for start in range(0, len(paths), self._batch_size):
            predictions += self._predict_batch(
                [str(path) for path in paths[start : start + self._batch_size]]
            )
        return predictions

    def probabilities(self, paths: Sequence[str | Path]) -> NDArray[np.float32]:
        """Probabilities, or numbers, [n, K] by the resize rule that the *file* carries: what the parity gate compares.

        Raises:
            BadImage: an image that cannot be read.
        """
        batches = [np.empty((0, len(self.metadata.classes)), np.float32)]
        for start in range(0, len(paths), self._batch_size):
            pixels = np.stack([self._pixels(str(path)) for path in paths[start : start + self._batch_size]])
            batches.append(self._session.run(pixels, batch_size=self._batch_size))
        return np.concatenate(batches)

    def _predict_batch(self, uris: list[str]) -> list[Prediction]:
        pixels: list[NDArray[np.uint8]] = []
        rows: list[Prediction | None] = []
        for uri in uris:
            try:
                pixels.append(self._pixels(uri))
                rows.append(None)
            except BadImage as error:
                rows.append(Prediction(uri=uri, error=error.reason))
        answers: Iterator[NDArray[np.float32]] = iter(())
        if pixels:
            answers = iter(self._session.run(np.stack(pixels), batch_size=self._batch_size))
        return [
            row if row is not None else self._prediction(uri, next(answers))
            for uri, row in zip(uris, rows, strict=True)
        ]

    def _pixels(self, uri: str) -> NDArray[np.uint8]:
        return to_pixels(open_rgb(uri, max_pixels=self._max_pixels), self.metadata.preprocess)

    def _prediction(self, uri: str, answer: NDArray[np.float32]) -> Prediction:
        if not np.isfinite(answer).all():
            what = "number" if self.metadata.task == "regression" else "probabilities"
            return Prediction(uri=uri, error=f"the model gives no finite {what} for this image")
        if self.metadata.task == "regression":
            return Prediction(uri=uri, value=float(answer[0]))
        order = np.argsort(-answer, kind="stable")
        scored = tuple(
            Scored(label=self.metadata.classes[index], probability=float(answer[index])) for index in order
        )
        if self.metadata.task == "multi-label":
            chosen = tuple(one.label for one in scored if one.probability >= TAGGED)
            return Prediction(uri=uri, tags=chosen, probabilities=scored)
        return Prediction(
            uri=uri, label=scored[0].label, probability=scored[0].probability, probabilities=scored
        )


def expand(inputs: Iterable[str | Path]) -> list[str]:
    """Image files for what a person names: files as they are, folders (with subfolders) and globs by suffix.

    Each file once, in the order of `inputs`; the files of a folder or glob by name. Hidden files
    and folders are left out.

    Raises:
        UserError: a folder or pattern without images, or a file that does not exist (the nearest is offered).
    """
    found: dict[str, None] = {}
    for given in map(str, inputs):
        path = Path(given)
        if path.is_file():
            found[given] = None
        elif path.is_dir():
            images = _images_in(path)
            if not images:
                raise UserError(
                    "holds no image",
                    where=given,
                    choices=sorted(IMAGE_SUFFIXES),
                    hint="name image files or a folder of images",
                )
            found.update(dict.fromkeys(images))
        elif glob.has_magic(given):
            names = glob.glob(given, recursive=True)  # noqa: PTH207 - pathlib takes no absolute pattern
            matches = [name for name in sorted(names) if _is_image(Path(name))]
            if not matches:
                raise UserError(
                    "no image matches this pattern",
                    where=given,
                    hint="quote the pattern and check its folder",
                )
            found.update(dict.fromkeys(matches))
        else:
            siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UnknownName(
                "file or folder",
                path.name,
                difflib.get_close_matches(path.name, siblings, n=5),
                where=str(path.parent),
                hint="name image files, a folder or a pattern",
            )
    return list(found)


def prediction_document(
    predictions: Sequence[Prediction], *, model: str, top: int = 5, metadata: FileMetadata | None = None
) -> dict[str, Json]:
    """The one JSON document of `tlcore predict --json`.

    {"model", "predictions": [{"image", "label", "probability", "top": [{"label", "probability"}], "error"}]}; of tags
    each has "tags" in place of "label" and "probability"; of numbers {"image", NAME: number, "error"} where NAME is
    what the number is called.

    metadata: of the file, which says what its columns are; classes where None.
    """
    task = "classification" if metadata is None else metadata.task
    if task == "regression" and metadata is not None:
        name = metadata.classes[0] if metadata.classes[0] not in {"image", "error"} else "value"
        numbers = [{"image": row.uri, name: row.value, "error": row.error} for row in predictions]
        return {"model": model, "predictions": numbers}
    if task == "multi-label":
        tags = [
            {
                "image": row.uri,
                "tags": None if row.tags is None else list(row.tags),
                "top": [scored.model_dump() for scored in row.top(top)],
                "error": row.error,
            }
            for row in predictions
        ]
        return {"model": model, "predictions": tags}
    return {
        "model": model,
        "predictions": [
            {
                "image": row.uri,
                "label": row.label,
                "probability": row.probability,
                "top": [scored.model_dump() for scored in row.top(top)],
                "error": row.error,
            }
            for row in predictions
        ],
    }


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES


def _images_in(folder: Path) -> list[str]:
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if _is_image(path) and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
