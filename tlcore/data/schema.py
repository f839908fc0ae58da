"""The table of a run: its columns, its rows' content hashes, its classes, and one table from two."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import polars as pl

from tlcore.errors import UserError
from tlcore.values import SOURCE, TARGET, Dataset

__all__ = ["SCHEMA", "SPLITS", "class_names", "combine", "image_table", "sha256_files"]

SPLITS = ("train", "val", "test")

SCHEMA: dict[str, type[pl.DataType]] = dict.fromkeys(Dataset.COLUMNS, pl.String)
"""Polars type of each column of `Dataset.table`, in order."""

_CHUNK = 1 << 20


def image_table(
    name: str,
    *,
    sample_ids: Sequence[str],
    uris: Sequence[str],
    labels: Sequence[str | None],
    splits: Sequence[str | None],
    domains: Sequence[str] | None = None,
    workers: int = 0,
) -> Dataset:
    """A Dataset of these rows, with the files' hashes. All sequences are as long as `uris`.

    Args:
        domains: SOURCE for every row where None.
        workers: hashing threads; 0 for one per core.
    """
    columns = (sample_ids, uris, labels, splits, domains or [SOURCE] * len(uris), sha256_files(uris, workers))
    table = pl.DataFrame(dict(zip(Dataset.COLUMNS, columns, strict=True)), schema=SCHEMA)
    return Dataset(name=name, table=table, classes=class_names(labels))


def class_names(labels: Iterable[str | None]) -> tuple[str, ...]:
    """The distinct labels in code-point order; the position is the encoded label."""
    return tuple(sorted({label for label in labels if label is not None}))


def sha256_files(paths: Sequence[str], workers: int = 0) -> list[str]:
    """SHA-256 of each file's bytes as hex digits, in order; "" where a file cannot be read."""
    with ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="sha256") as pool:
        return list(pool.map(_sha256, paths, chunksize=64))


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a plain open is half the cost for small files
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return ""  # the data check names the file and the reason
    return digest.hexdigest()


def combine(source: Dataset, target: Dataset | None = None) -> Dataset:
    """The one table of a run.

    Rows of `source` keep the domain "target" where a manifest says so (in any case: "Target"); every other
    domain name becomes "source". Rows of `target` get the domain "target" and a prefixed sample_id.
    The classes are those of the source rows.

    Raises:
        UserError: labels of target rows that no source row has.
    """
    own = source.table.with_columns(
        pl.when(pl.col("domain").str.strip_chars().str.to_lowercase() == TARGET)
        .then(pl.lit(TARGET))
        .otherwise(pl.lit(SOURCE))
        .alias("domain")
    ).select(Dataset.COLUMNS)
    classes = class_names(own.filter(pl.col("domain") == SOURCE)["label"])
    table, where = own, source.name
    if target is not None:
        where = target.name
        prefix, taken = "target:", set(own["sample_id"])
        while any(prefix + sample in taken for sample in target.table["sample_id"]):
            prefix += ":"
        theirs = target.table.with_columns(
            (prefix + pl.col("sample_id")).alias("sample_id"), pl.lit(TARGET).alias("domain")
        )
        table = pl.concat([own, theirs.select(Dataset.COLUMNS)])
    strange = sorted(set(class_names(table.filter(pl.col("domain") == TARGET)["label"])) - set(classes))
    if strange:
        shown = ", ".join(f'"{name}"' for name in strange[:5]) + (", …" if len(strange) > 5 else "")
        raise UserError(
            f"the target has {len(strange)} class{'es' if len(strange) > 1 else ''} that the source lacks: {shown}",
            where=where,
            choices=classes,
            hint="rename them as the source does, or leave the labels out: for a target folder whose "
            'subfolders are not classes, set data.target = {name = "image-folder", path = …, folders = "ignored"}',
        )
    return replace(source, table=table, classes=classes)
