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
    classes = class_names(own.filter(pl.col("domain") != TARGET)["label"])
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
    if strange and new_classes:
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
