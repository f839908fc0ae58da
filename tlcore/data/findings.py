"""What can be found out about a table of images, as pure functions from rows to problems.

Messages are noun phrases without a count ("truncated images"): the count and up to five examples stand in the
problem's own fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Literal

import polars as pl

from tlcore.data.image_file import BadImage, ImageFacts
from tlcore.data.schema import LABEL_TYPES, SPLITS
from tlcore.values import TARGET, Dataset, Problem, Task

__all__ = [
    "bad_files", "class_counts", "class_problems", "copies", "misnamed", "schema_problems", "size_summary",
    "tiny_images", "unlabelled",
]  # fmt: skip

_SHOWN = 5
_NO_SPLIT = "none"
_NO_LABEL = "(no label)"
Severity = Literal["error", "warning", "info"]

_BAD = {
    "missing": "missing files",
    "empty": "empty files",
    "not-an-image": "files that are not images",
    "truncated": "truncated images",
    "too-large": "images that are too large",
    "unreadable": "images that cannot be read",
}
_RULES = {
    "not_nullable": "null",
    "field_uniqueness": "repeated",
    "not_blank": "blank",
    "split_name": f"other than {', '.join(SPLITS)}",
    "sha256_digest": "no SHA-256 digest",
}
_KINDS = {"Float64": "numbers", "List(String)": "lists of text"}
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jfif"), "MPO": (".jpg", ".jpeg", ".jfif"), "PNG": (".png",), "BMP": (".bmp",),
    "WEBP": (".webp",), "GIF": (".gif",), "TIFF": (".tif", ".tiff"),
}  # fmt: skip


def _problem(
    code: str, severity: Severity, message: str, examples: Sequence[str], rows: Iterable[str] = ()
) -> Problem:
    return Problem(
        code=code,
        severity=severity,
        message=message,
        count=len(examples),
        examples=tuple(examples[:_SHOWN]),
        rows=tuple(rows),
    )


def schema_problems(table: pl.DataFrame, task: Task = "classification") -> tuple[Problem, ...]:
    """Every rule of the table's schema (pandera) that is broken; codes are "schema-COLUMN-RULE"."""
    import pandera.polars as pa
    from pandera.errors import SchemaErrors

    blank = pa.Check.str_matches(r"\s*\S", name="not_blank")
    digest = pa.Check.str_matches(r"([0-9a-f]{64})?$", name="sha256_digest")
    schema = pa.DataFrameSchema(
        {
            "sample_id": pa.Column(str, checks=blank, unique=True),
            "uri": pa.Column(str, checks=blank),
            "label": pa.Column(str, checks=blank, nullable=True)
            if task == "classification"
            else pa.Column(LABEL_TYPES[task], nullable=True),
            "split": pa.Column(str, checks=pa.Check.isin(SPLITS, name="split_name"), nullable=True),
            "domain": pa.Column(str, checks=blank),
            "sha256": pa.Column(str, checks=digest),
        },
        strict=True,
    )
    try:
        schema.validate(table, lazy=True)
    except SchemaErrors as errors:
        found = [_broken_rule(error, table) for error in errors.schema_errors]
        return tuple(problem for problem in found if problem is not None)
    return ()


def _broken_rule(error: Any, table: pl.DataFrame) -> Problem | None:
    reason = error.reason_code.name
    if reason == "COLUMN_NOT_IN_DATAFRAME":
        return _problem("schema-missing-column", "error", "missing columns", [str(error.failure_cases)])
    if reason == "COLUMN_NOT_IN_SCHEMA":
        known = ", ".join(Dataset.COLUMNS)
        return _problem(
            "schema-unknown-column", "error", f"columns other than {known}", [str(error.failure_cases)]
        )
    column = error.schema.name
    if reason == "WRONG_DATATYPE":
        return _problem(
            f"schema-{column}-type",
            "error",
            f'values of the column "{column}" that are no {_KINDS.get(str(error.schema.dtype), "text")}',
            [str(table[column].dtype)],
        )
    if not isinstance(error.check_output, pl.DataFrame):
        return None  # a check that could not run on a column of the wrong type, which is a problem of its own
    rule = getattr(error.check, "name", None) or str(error.check)
    wrong = table.with_row_index("row", offset=1).filter(~error.check_output["check_output"])
    shown = wrong.select("row", column).iter_rows()
    return _problem(
        f"schema-{column}-{rule.replace('_', '-')}",
        "error",
        f'values of the column "{column}" that are {_RULES.get(rule, rule)}',
        [f"row {row}" if value is None else f"row {row}: {value}" for row, value in shown],
    )


def bad_files(bad: Mapping[str, BadImage]) -> Iterator[Problem]:
    """One problem per kind of unusable file, its rows to be dropped; `bad` is keyed by sample_id."""
    for kind, message in _BAD.items():
        found = {sample: error.reason for sample, error in bad.items() if error.kind == kind}
        if found:
            examples = [f"{sample}: {reason}" for sample, reason in found.items()]
            yield _problem(f"{kind}-file", "error", message, examples, rows=found)


def tiny_images(facts: Mapping[str, ImageFacts], side: int) -> Iterator[Problem]:
    """Images with a side below `side` pixels."""
    tiny = [f"{s}: {f.width} x {f.height}" for s, f in facts.items() if min(f.width, f.height) < side]
    if tiny:
        yield _problem("tiny-image", "warning", f"images with a side below {side} pixels", tiny)


def misnamed(uris: Mapping[str, str], facts: Mapping[str, ImageFacts]) -> Iterator[Problem]:
    """Images of another format than their ending says; they are used."""
    lying = [
        f"{sample}: {facts[sample].format}"
        for sample, uri in uris.items()
        if not uri.lower().endswith(_SUFFIXES[facts[sample].format])
    ]
    if lying:
        yield _problem("wrong-ending", "info", "images of another format than their ending says", lying)


def copies(table: pl.DataFrame) -> Iterator[Problem]:
    """Files of the same bytes: across given splits (a leak), with different labels, inside one split.

    Of a leak the copies nearer to training are rows to drop: what is in test stays in test alone, what is in
    val does not stay in train. Rows without a split follow their copies when splits are made.
    """
    groups = (
        table.filter(pl.col("sha256") != "")
        .group_by("sha256", maintain_order=True)
        .agg("sample_id", "label", "split")
        .filter(pl.col("sample_id").list.len() > 1)
    )
    leaks: list[str] = []
    leaked: list[str] = []
    disagree: list[str] = []
    repeated: list[str] = []
    for _, samples, labels, splits in groups.iter_rows():
        given = {split for split in splits if split is not None}
        keep = max(given, key=SPLITS.index, default=None)
        gone = [s for s, split in zip(samples, splits, strict=True) if split not in (None, keep)]
        if gone:
            kept = samples[splits.index(keep)]
            leaked += gone
            leaks.append(f"{gone[0]} = {kept}")
        else:
            repeated.append(" = ".join(samples[:3]) + (" = …" if len(samples) > 3 else ""))
        names = {s: _said(label) for s, label in zip(samples, labels, strict=True) if label is not None}
        if len(set(names.values())) > 1:
            disagree.append(" = ".join(f"{s} ({label})" for s, label in list(names.items())[:3]))
    if leaks:
        message = "images that lie in two splits (same bytes); the copies nearer to training are left out"
        yield _problem("leak", "warning", message, leaks, rows=leaked)
    if disagree:
        yield _problem("label-conflict", "warning", "images with different labels (same bytes)", disagree)
    if repeated:
        yield _problem("copies", "info", "images that occur more than once (same bytes)", repeated)


def _said(label: Any) -> str:
    """A label as people read it."""
    if isinstance(label, list):
        return " and ".join(label) or "no tag"
    return label if isinstance(label, str) else f"{label:g}"


def unlabelled(table: pl.DataFrame) -> Iterator[Problem]:
    """Source rows without a label, where others have one: nothing can be learnt from them."""
    source = table.filter(pl.col("domain") != TARGET)
    bare = source.filter(pl.col("label").is_null())["sample_id"].to_list()
    if bare and len(bare) < source.height:
        message = "source images without a label; they are left out"
        yield _problem("unlabelled", "warning", message, bare, rows=bare)


def class_problems(
    table: pl.DataFrame, classes: Sequence[str], *, fewest: int, imbalance: float
) -> Iterator[Problem]:
    """Findings about the classes of the source rows and the splits that are given.

    Args:
        table: the usable rows.
        classes: the classes before unusable rows went.
        fewest: different images that a class needs at least.
        imbalance: largest over smallest training class from which on it is a finding.
    """
    source = table.filter((pl.col("domain") != TARGET) & pl.col("label").is_not_null())
    # Each copy counts once: two copies of one image cannot be both trained and tested on.
    distinct = dict(source.group_by("label").agg(pl.col("sha256").n_unique()).iter_rows())
    images: dict[str, int] = {label: distinct.get(label, 0) for label in sorted({*classes, *distinct})}
    if not distinct:
        expected = "expected a folder per class, or a manifest with a label column"
        yield Problem(code="no-labels", severity="error", message=f"no usable image has a label: {expected}")
        return
    if len(images) == 1:
        message = "only one class, and nothing to tell it from"
        yield _problem("one-class", "error", message, list(images))
    small = [f"{label}: {count}" for label, count in images.items() if count < fewest]
    if small:
        message = f"classes with fewer than {fewest} different usable images"
        yield _problem("small-class", "error", message, small)
    counts = class_counts(source)
    by_split = {key.rpartition("/")[2]: rows for key, rows in counts.items()}
    # Rows without a split go to train when no split is missing, so a class may still get there.
    marked = by_split.pop(_NO_SPLIT, None) is None
    for split, rows in by_split.items():
        absent = [label for label in images if label not in rows]
        if absent and (split != "train" or marked):
            severity: Severity = "error" if split == "train" else "warning"
            yield _problem("class-not-in-split", severity, f"classes without an image in {split}", absent)
    train = by_split.get("train") or distinct
    most, least = max(train, key=lambda name: train[name]), min(train, key=lambda name: train[name])
    if train[most] >= imbalance * train[least]:
        message = f"classes of very different size: {train[most] / train[least]:.0f} to 1"
        yield _problem(
            "imbalance", "warning", message, [f"{most}: {train[most]}", f"{least}: {train[least]}"]
        )


def class_counts(table: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Rows per "domain/split" and class; "none" stands for a row without a split, "(no label)" for one without a label."""
    counts: dict[str, dict[str, int]] = {}
    grouped = (
        table.with_columns(pl.col("split").fill_null(_NO_SPLIT), pl.col("label").fill_null(_NO_LABEL))
        .group_by("domain", "split", "label")
        .len()
        .sort("domain", "split", "label")
    )
    for domain, split, label, count in grouped.iter_rows():
        counts.setdefault(f"{domain}/{split}", {})[label] = count
    return counts


def size_summary(facts: Iterable[ImageFacts]) -> dict[str, float]:
    """Minimum, median and maximum of width and height, in pixels; empty without images."""
    found = list(facts)
    if not found:
        return {}
    summary: dict[str, float] = {}
    for side, values in (("width", [f.width for f in found]), ("height", [f.height for f in found])):
        summary |= {f"{side}_min": min(values), f"{side}_median": median(values), f"{side}_max": max(values)}
    return summary
