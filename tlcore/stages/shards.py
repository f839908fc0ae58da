"""Features in shards: each made by a stage of its own, their moments added up in a tree.

A shard's entry holds the features of its images and the moments of each fold among them (fold-0.npz, …); the
fold of an image follows from the labels of all images, so that shards agree on it. A merged entry holds the
added moments and says where its shards are: no feature is copied, or even read, unless a scorer asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlcore.features.files import StoredFeatures, load_features
from tlcore.features.folds import FOLDS, fold_of
from tlcore.features.moments import Moments, MomentsBuilder
from tlcore.features.shards import shard_bounds
from tlcore.stages.base import StageContext
from tlcore.stages.values import FeatureFiles
from tlcore.values import Ref

if TYPE_CHECKING:
    from tlcore.features.extract import ExtractedFeatures

__all__ = ["engine_notes", "joined", "merge", "save_folds", "shard_of", "stored_folds", "stored_parts"]


def shard_of(context: StageContext, images: int) -> slice:
    """Which of the images this job is about: all of them without the option `shard`, [number, shards]."""
    if "shard" not in context.job.options:
        return slice(0, images)
    index, count = context.option("shard")
    return slice(*shard_bounds(images, count)[index])


def save_folds(
    folder: Path, extracted: ExtractedFeatures, labels: NDArray[np.int64], part: slice, classes: int
) -> None:
    """Write the moments of each fold among the images `part`; `labels` [n] are those of the images of all shards."""
    number = fold_of(labels)[part]
    own = labels[part]
    features, probabilities = extracted.features, extracted.probabilities
    centre = features.mean(axis=0, dtype=np.float64)
    for fold in range(FOLDS):
        chosen = np.flatnonzero(number == fold)
        if chosen.size:
            builder = MomentsBuilder(classes, shift=centre)
            mass = None if probabilities is None else probabilities[chosen]
            builder.add(features[chosen], own[chosen], mass)
            builder.moments().save(_file(folder, fold))


def merge(context: StageContext) -> FeatureFiles:
    """Add up the moments of several shards, or of merged ones. Inputs: parts, in the order of their images."""
    parts = [context.store.read(ref, FeatureFiles) for ref in context.refs("parts")]
    folders = [context.store.folder(ref) for ref in context.refs("parts")]
    for fold in range(FOLDS):
        having = [_file(folder, fold) for folder in folders if _file(folder, fold).is_file()]
        if having:
            Moments.merge(map(Moments.load, having)).save(_file(context.work.folder, fold))
        context.progress(fold + 1, FOLDS, "adding moments")
    images = sum(part.images for part in parts)
    seconds = sum(part.seconds for part in parts)
    shards: list[Ref] = []
    for ref, part in zip(context.refs("parts"), parts, strict=True):
        shards += part.shards or (ref,)
    return parts[0].model_copy(
        update={
            "images": images,
            "images_per_second": round(images / max(seconds, 1e-9), 2),
            "seconds": seconds,
            "shards": tuple(shards),
            "engine": "+".join(sorted({name for part in parts for name in part.engine.split("+")})),
            "engine_note": next((part.engine_note for part in parts if part.engine_note), ""),
        }
    )


def engine_notes(files: FeatureFiles) -> tuple[str, ...]:
    """What a reader of a score must know of the engines behind it: a fallback, and shards that ran different ones."""
    notes = [f"engine {files.engine_note}"] if files.engine_note else []
    several = files.engine.split("+")
    if len(several) > 1:
        notes.append(
            f"engines differ between shards ({', '.join(several)}): the scores hang on who computed which"
        )
    return tuple(notes)


def stored_parts(context: StageContext, name: str) -> tuple[StoredFeatures, ...]:
    """The features of the input `name`, shard by shard, memory-mapped; one part where there are no shards."""
    refs = context.read(name, FeatureFiles).shards or (context.ref(name),)
    return tuple(load_features(context.store.folder(ref)) for ref in refs)


def stored_folds(context: StageContext, name: str) -> tuple[Moments, ...]:
    """The moments of each fold that lie beside the features of the input `name`; none where there are no shards."""
    files = (_file(context.folder(name), fold) for fold in range(FOLDS))
    return tuple(Moments.load(file) for file in files if file.is_file())


def joined(parts: Sequence[StoredFeatures]) -> StoredFeatures:
    """All parts as one, in order. More than one are copied into memory."""
    if len(parts) == 1:
        return parts[0]
    masses = [part.probabilities for part in parts if part.probabilities is not None]
    return StoredFeatures(
        np.concatenate([part.features for part in parts]),
        np.concatenate(masses) if len(masses) == len(parts) else None,
        tuple(name for part in parts for name in part.sample_ids),
    )


def _file(folder: Path, fold: int) -> Path:
    return folder / f"fold-{fold}.npz"
