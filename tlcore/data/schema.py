"""The table of a run: its columns, its rows' content hashes, its classes, and one table from two."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import polars as pl

from tlcore.errors import UserError
from tlcore.values import SOURCE, TARGET, Dataset, Task

__all__ = [
    "LABEL_TYPES", "SCHEMA", "SPLITS", "class_names", "combine", "image_table", "label_names", "sha256_files",
]  # fmt: skip

SPLITS = ("train", "val", "test")

SCHEMA: dict[str, type[pl.DataType]] = dict.fromkeys(Dataset.COLUMNS, pl.String)
"""Polars type of each column of `Dataset.table`, in order, where labels are classes."""

LABEL_TYPES: dict[Task, Any] = {
    "classification": pl.String, "regression": pl.Float64, "multi-label": pl.List(pl.String),
}  # fmt: skip
"""Polars type of the column `label`."""

_CHUNK = 1 << 20


def image_table(
    name: str,
    *,
    sample_ids: Sequence[str],
    uris: Sequence[str],
    labels: Sequence[Any],
    splits: Sequence[str | None],
    domains: Sequence[str] | None = None,
    workers: int = 0,
    task: Task = "classification",
    target: str = "label",
) -> Dataset:
    """A Dataset of these rows, with the files' hashes. All sequences are as long as `uris`.

    Args:
        labels: a class name, a number or the names of tags per row, as `task` says; None where there is none.
        target: what the number is called, where labels are numbers.
        domains: SOURCE for every row where None.
        workers: hashing threads; 0 for one per core.
    """
    columns = (sample_ids, uris, labels, splits, domains or [SOURCE] * len(uris), sha256_files(uris, workers))
    schema = {**SCHEMA, "label": LABEL_TYPES[task]}
    table = pl.DataFrame(dict(zip(Dataset.COLUMNS, columns, strict=True)), schema=schema)
    classes = (target,) if task == "regression" else label_names(table["label"])
    return Dataset(name=name, table=table, classes=classes, task=task)


def label_names(labels: pl.Series) -> tuple[str, ...]:
    """The distinct classes, or tags, of a column `label`, in code-point order."""
    return class_names(labels.explode() if isinstance(labels.dtype, pl.List) else labels)


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


def combine(
    source: Dataset,
    target: Dataset | None = None,
    *,
    target_domain: str = TARGET,
    new_classes: bool = False,
) -> Dataset:
    """The one table of a run.

    Rows of `source` get the domain "target" where a manifest says `target_domain` (in any case: "Target"). Several
    other domain names are several source domains and stay as they are; a single one becomes "source". Rows of
    `target` get the domain "target" and a prefixed sample_id. The classes are those of the source rows.

    Args:
        new_classes: target rows of classes that no source row has lose their label: nothing can be right on them.

    Raises:
        UserError: labels of target rows that no source row has, unless new_classes; a target domain that is not there.
    """
    named = pl.col("domain").str.strip_chars()
    is_target = named.str.to_lowercase() == target_domain.strip().lower()
    own = source.table.with_columns(
        pl.when(is_target).then(pl.lit(TARGET)).otherwise(named).alias("domain")
    ).select(Dataset.COLUMNS)
    found = own["domain"].unique().sort().to_list()
    if target_domain != TARGET and TARGET not in found:
        raise UserError(
            f'no image has the domain "{target_domain}"',
            where=source.name,
            choices=found,
            hint="mend data.target_domain",
        )
    if len([name for name in found if name != TARGET]) == 1:
        single = pl.when(pl.col("domain") == TARGET).then(pl.lit(TARGET)).otherwise(pl.lit(SOURCE))
        own = own.with_columns(single.alias("domain"))
    numbers = source.task == "regression"
    classes = source.classes if numbers else label_names(own.filter(pl.col("domain") != TARGET)["label"])
    table, where = own, source.name
    if target is not None:
        where = target.name
        prefix, taken = "target:", set(own["sample_id"])
        while any(prefix + sample in taken for sample in target.table["sample_id"]):
            prefix += ":"
        theirs = _of_task(target, source).with_columns(
            (prefix + pl.col("sample_id")).alias("sample_id"), pl.lit(TARGET).alias("domain")
        )
        table = pl.concat([own, theirs.select(Dataset.COLUMNS)])
    theirs_named = () if numbers else label_names(table.filter(pl.col("domain") == TARGET)["label"])
    strange = sorted(set(theirs_named) - set(classes))
    if strange and new_classes and source.task == "multi-label":
        known = pl.col("label").list.eval(pl.element().filter(pl.element().is_in(classes)))
        table = table.with_columns(known.alias("label"))
    elif strange and new_classes:
        table = table.with_columns(
            pl.when(pl.col("label").is_in(strange)).then(None).otherwise(pl.col("label")).alias("label")
        )
    elif strange:
        shown = ", ".join(f'"{name}"' for name in strange[:5]) + (", …" if len(strange) > 5 else "")
        raise UserError(
            f"the target has {len(strange)} class{'es' if len(strange) > 1 else ''} that the source lacks: {shown}",
            where=where,
            choices=classes,
            hint='rename them as the source does; or say that they are new, adapt.label_sets = "open"; or leave the '
            "labels out: for a target folder whose subfolders are not classes, set "
            'data.target = {name = "image-folder", path = …, folders = "ignored"}',
        )
    return replace(source, table=table, classes=classes)


def _of_task(target: Dataset, source: Dataset) -> pl.DataFrame:
    """The target's rows with a column `label` of the source's kind.

    Raises:
        UserError: it has labels of another kind.
    """
    if target.task == source.task:
        return target.table
    if target.table["label"].is_null().all():
        return target.table.with_columns(pl.lit(None, dtype=LABEL_TYPES[source.task]).alias("label"))
    raise UserError(
        f"the labels of the target are read as {target.task}, those of the source as {source.task}",
        where=target.name,
        hint='name the same "task" for both, or leave the labels of the target out',
    )
