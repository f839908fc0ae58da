"""What tuners of image-text models have in common: prompts, the classifier that they make, cross-validation in-shot.

Import costs little: no torch, no scikit-learn.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from tlcore.errors import PluginError, UnknownName, UserError
from tlcore.protocols import TrainTask, Tuner
from tlcore.training.copies import different, held_out_parts, with_others
from tlcore.training.plan import HeadProblem, Solved
from tlcore.values import Head

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float64]

__all__ = [
    "TEMPLATES", "Prompts", "TextTuner", "in_shot_parts", "log_softmax", "prompts_of", "text_classifier", "unit_head",
    "unit_rows",
]  # fmt: skip

TEMPLATES = (
    "a photo of a {}.", "a photo of the {}.", "a bad photo of a {}.", "a good photo of a {}.",
    "a photo of the large {}.", "a photo of the small {}.", "a close-up photo of a {}.",
)  # fmt: skip
"""General ones of the 80 that CLIP was measured with on ImageNet (Radford et al. 2021, section 3.1.4)."""

Prompts = tuple[tuple[str, ...], ...]
"""The texts of each class."""


class TextTuner(Tuner):
    """A tuner whose head starts from what the text tower says of the classes. The options are the same everywhere."""

    searched: ClassVar[tuple[str, ...]] = ("scale",)

    templates: tuple[str, ...] = Field(
        TEMPLATES, min_length=1, description='sentences with "{}" in the place of the class name'
    )
    descriptions: dict[str, tuple[str, ...]] = Field(
        {},
        description='texts of a class in place of the templates, by class name ("{}" stands for it); '
        "or the path of a JSON or TOML file with such a table",
    )
    scale: float = Field(
        100.0,
        ge=1,
        le=1000,
        description="that cosines are multiplied by to be logits; 100 is what CLIP learned",
    )

    @field_validator("templates")
    @classmethod
    def _with_a_place(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [template for template in given if "{}" not in template]
        if wrong:
            raise ValueError(f'"{wrong[0]}" has no "{{}}" in the place of the class name')
        return given

    @field_validator("descriptions", mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        """The table itself: what a result depends on is the text, not the name of a file."""
        table = _table_in(Path(given).expanduser()) if isinstance(given, str | Path) else given
        if not isinstance(table, Mapping):
            return table
        return {name: (texts,) if isinstance(texts, str) else texts for name, texts in sorted(table.items())}

    def __hash__(self) -> int:
        return hash((type(self), self.model_dump_json()))  # a table has no hash of its own

    def prompts(self, task: TrainTask) -> Prompts:
        """The texts of each class of the task.

        Raises:
            UserError: a description of no class, or an empty one; labels that are no classes.
        """
        if task.task != "classification":
            raise UserError(
                f'the tuner "{self.card.name}" reads class names, and the labels are those of a {task.task} task',
                hint="take a tuner that promises it: tlcore plugins --kind tuner",
            )
        return prompts_of(task.classes, self.templates, self.descriptions)


def prompts_of(
    classes: Sequence[str], templates: Sequence[str], descriptions: Mapping[str, Sequence[str]] | None = None
) -> Prompts:
    """The texts of each class: its descriptions where it has some, else every template. "_" in names is a space.

    Raises:
        UnknownName: a description of a class that is none. UserError: one without any text.
    """
    said = dict(descriptions or {})
    for name, texts in said.items():
        if name not in classes:
            raise UnknownName("class", name, classes, where="descriptions")
        if not texts or not all(text.strip() for text in texts):
            raise UserError(f'the class "{name}" has an empty description', where="descriptions")
    return tuple(
        tuple(text.replace("{}", name.replace("_", " ").strip()) for text in said.get(name, templates))
        for name in classes
    )


def text_classifier(problem: HeadProblem, prompts: Prompts, scale: float) -> Float:
    """Weight [K, d]: `scale` times the direction of each class, the mean of its texts' embeddings brought to unit length
    (Radford et al. 2021, section 3.1.4).

    Raises:
        UserError: the model has no text tower; the embeddings of a class cancel.
        PluginError: a text tower that gives other than finite [p, d], d that of the features.
    """
    if problem.text is None:
        raise UserError(
            "the model has no text tower", hint="name an image-text model: --models open-clip:FOLDER"
        )
    texts = [text for own in prompts for text in own]
    found = np.asarray(problem.text(texts), dtype=np.float64)
    if found.shape != (len(texts), problem.features.shape[1]) or not np.isfinite(found).all():
        raise PluginError(
            f"the text tower gave {list(found.shape)} for {len(texts)} texts in a space of "
            f"{problem.features.shape[1]}, or values that are not finite"
        )
    ends = np.cumsum([len(own) for own in prompts])
    means = np.stack([part.mean(0) for part in np.split(unit_rows(found), ends[:-1])])
    silent = np.flatnonzero(np.linalg.norm(means, axis=1) < 1e-9)
    if silent.size:
        raise UserError(f'the texts of the class "{problem.classes[silent[0]]}" cancel each other')
    return scale * unit_rows(means)


def unit_rows(rows: NDArray[np.floating[Any]]) -> Float:
    """Rows [n, d] brought to unit length; a row of zeros stays one."""
    values = np.asarray(rows, dtype=np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(lengths > 0, lengths, 1.0))


def unit_head(weight: Float, bias: Float, notes: Mapping[str, float]) -> Solved:
    """The head W x / |x| + b. Biases are brought to a mean of zero, which changes no probability."""
    tensors = {"weight": weight, "bias": bias - bias.mean(), "centre": np.zeros(weight.shape[1])}
    return Solved(tensors, Head(kind="unit"), notes)


def in_shot_parts(
    labels: NDArray[np.int64], folds: int, seed: int, groups: NDArray[np.int64] | None = None
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(training, held-out) positions for cross-validation within the labelled images, each class spread evenly.

    Images of a class that has no other are never held out, copies (equal numbers in `groups`) together. Without a class
    of two images: no parts.
    """
    several = np.flatnonzero(with_others(labels, groups))
    if not several.size:
        return []
    counts = different(labels, groups)
    own = None if groups is None else groups[several]
    held = held_out_parts(labels[several], own, min(folds, int(counts[counts > 1].min())), seed)
    everything = np.arange(len(labels))
    return [(np.setdiff1d(everything, several[rows]), several[rows]) for rows in held]


def log_softmax(logits: Float) -> Float:
    """log softmax over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _table_in(path: Path) -> Any:
    try:
        content = path.read_text(encoding="utf-8")
        return tomllib.loads(content) if path.suffix == ".toml" else json.loads(content)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the descriptions cannot be read: {error}",
            where=str(path),
            hint='write {"class": ["text", "text"]} as JSON, or class = ["text"] as TOML',
        ) from error
