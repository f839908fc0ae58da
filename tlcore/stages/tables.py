"""The run's table in the store, and which of its rows are what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tlcore.errors import PluginError, UserError
from tlcore.stages.base import StageContext
from tlcore.stages.values import CheckedData, LoadedData, PixelFiles
from tlcore.values import SOURCE, UNLABELLED, Candidate, Dataset, Preprocess

__all__ = ["load_table", "pixels_for", "preprocess_of", "rows_of", "save_table"]

_TABLE = "table.parquet"


def save_table(folder: Path, dataset: Dataset) -> None:
    dataset.table.select(Dataset.COLUMNS).write_parquet(folder / _TABLE)


def load_table(folder: Path, value: LoadedData | CheckedData) -> Dataset:
    return Dataset(value.name, pl.read_parquet(folder / _TABLE), value.classes)


def rows_of(
    dataset: Dataset, split: str, domain: str = SOURCE, *, labelled: bool = False
) -> NDArray[np.int64]:
    """Positions in the table of one split and domain, in table order; the pixels lie in the same order."""
    chosen = (dataset.table["split"] == split) & (dataset.table["domain"] == domain)
    if labelled:
        chosen &= pl.Series(np.asarray(dataset.labels()) != UNLABELLED)
    return np.flatnonzero(chosen.to_numpy()).astype(np.int64)


def preprocess_of(candidate: Candidate) -> Preprocess:
    if candidate.preprocess is None:
        raise UserError("the candidate says no input size", where=candidate.name)
    return candidate.preprocess


def pixels_for(context: StageContext, preprocess: Preprocess) -> NDArray[np.uint8]:
    """The decoded pixels of all rows, mapped into memory."""
    from tlcore.data.images import load_pixels

    files = context.read("pixels", PixelFiles)
    if files.rule != preprocess.decode_key():
        raise PluginError(f"pixels for {files.rule} were given where {preprocess.decode_key()} is needed")
    return load_pixels(context.folder("pixels") / files.file)
