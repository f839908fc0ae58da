"""The run's table in the store, and which of its rows are what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tlcore.data.strata import strata
from tlcore.errors import PluginError, UserError
from tlcore.selection.subsets import stratified
from tlcore.stages.base import StageContext
from tlcore.stages.values import CheckedData, LoadedData, PixelFiles
from tlcore.values import SOURCE, TARGET, Candidate, Dataset, Preprocess

__all__ = [
    "ROWS", "copies_of", "load_table", "pixels_for", "pixels_of_rows", "preprocess_of", "rows_of", "save_table",
    "scoring_rows", "target_sample",
]  # fmt: skip

_TABLE = "table.parquet"
ROWS = "rows.npy"
"""Beside the pixels of a sample: the rows of the table that it is of."""


def save_table(folder: Path, dataset: Dataset) -> None:
    dataset.table.select(Dataset.COLUMNS).write_parquet(folder / _TABLE)


def load_table(folder: Path, value: LoadedData | CheckedData) -> Dataset:
    return Dataset(value.name, pl.read_parquet(folder / _TABLE), value.classes, value.task)


def copies_of(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each of these rows, equal where the files' bytes are; of its own where there is no file."""
    digests = dataset.table["sha256"].gather(rows).fill_null("").to_list()
    names = [digest or str(place) for place, digest in enumerate(digests)]
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)


def rows_of(
    dataset: Dataset, split: str, domain: str = SOURCE, *, labelled: bool = False
) -> NDArray[np.int64]:
    """Positions in the table of one split and domain, in table order; the pixels lie in the same order.

    SOURCE stands for all source domains together. labelled: those that have a label (`Dataset.labelled`).
    """
    names = dataset.table["domain"]
    inside = names != TARGET if domain == SOURCE else names == domain
    chosen = (dataset.table["split"] == split) & inside
    if labelled:
        chosen &= pl.Series(dataset.labelled())
    return np.flatnonzero(chosen.to_numpy()).astype(np.int64)


def scoring_rows(dataset: Dataset, limit: int, seed: int) -> NDArray[np.int64]:
    """Positions, ascending, of the rows that scores look at: the labelled training images of the source domain.

    Where there are more than `limit`, at most so many (but two of each class), the same share of every class; numbers
    and tags are parted as `tlcore.data.strata` does.
    """
    rows = rows_of(dataset, "train", labelled=True)
    if len(rows) <= limit:
        return rows
    return rows[stratified(strata(dataset.targets()[rows], dataset.task), limit, seed)]


def target_sample(dataset: Dataset, limit: int, seed: int) -> NDArray[np.int64]:
    """Positions, ascending, of at most `limit` target images outside the test split: those of val, then of train.

    Validation images come first since no adapter has seen them; of too many the seed draws.
    """
    rng = np.random.default_rng([seed, 7])
    chosen: list[NDArray[np.int64]] = []
    for split in ("val", "train"):
        rows, left = rows_of(dataset, split, TARGET), limit - sum(map(len, chosen))
        chosen.append(rows if len(rows) <= left else rng.choice(rows, left, replace=False))
    return np.sort(np.concatenate(chosen))


def preprocess_of(candidate: Candidate) -> Preprocess:
    if candidate.preprocess is None:
        raise UserError("the candidate says no input size", where=candidate.name)
    return candidate.preprocess


def pixels_for(context: StageContext, preprocess: Preprocess, name: str = "pixels") -> NDArray[np.uint8]:
    """The exact pixels of all rows of the table, uint8 [rows, height, width, 3], in the input `name`, mapped into memory.

    Raises:
        PluginError: the stage was given the pixels of another rule, or those for scoring.
    """
    pixels, files = _mapped(context, preprocess, name)
    if files.purpose != "exact":
        raise PluginError(f"pixels for {files.purpose} were given where exact ones are needed")
    return pixels


def pixels_of_rows(
    context: StageContext, preprocess: Preprocess, rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels for scoring (exact ones will do), mapped into memory, and where in them the given rows of the table lie.

    Raises:
        PluginError: the stage was given the pixels of another rule, or of rows that do not hold all of these.
    """
    pixels, files = _mapped(context, preprocess)
    if files.purpose == "exact":
        return pixels, rows
    known = np.load(context.folder("pixels") / ROWS, allow_pickle=False)
    if not np.isin(rows, known).all():
        raise PluginError(f"the pixels of {files.images} rows were given; they lack rows that are needed")
    return pixels, np.searchsorted(known, rows).astype(np.int64)


def _mapped(
    context: StageContext, preprocess: Preprocess, name: str = "pixels"
) -> tuple[NDArray[np.uint8], PixelFiles]:
    from tlcore.data.images import load_pixels

    files = context.read(name, PixelFiles)
    if files.rule != preprocess.decode_key():
        raise PluginError(f"pixels for {files.rule} were given where {preprocess.decode_key()} is needed")
    return load_pixels(context.folder(name) / files.file), files
