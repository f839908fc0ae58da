"""What can be found out about labels that are numbers or tags, as pure functions from rows to problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import polars as pl

from tlcore.values import TARGET, Problem, Task

__all__ = ["label_counts", "label_findings", "not_finite", "place_images"]

_SHOWN = 5
_NO_SPLIT = "none"
_NO_LABEL = "(no label)"
NO_TAG = "(no tag)"
_FEWEST_TAGGED = 2
_MANY_NUMBERS = 20
"""From so many distinct whole numbers on they hardly name classes."""


def label_findings(
    table: pl.DataFrame, names: Sequence[str], task: Task, *, fewest: int
) -> Iterator[Problem]:
    """Findings about the labels of the source rows; of classes only whether they might be numbers.

    Args:
        table: the usable rows.
        names: `Dataset.classes`.
        fewest: different labelled images that there have to be at least.
    """
    source = table.filter((pl.col("domain") != TARGET) & pl.col("label").is_not_null())
    if task == "classification":
        yield from _whole_numbers(names)
        return
    distinct = source.unique("sha256", maintain_order=True)
    if not distinct.height:
        message = "no usable image has a label: expected a manifest with a label column"
        yield Problem(code="no-labels", severity="error", message=message)
        return
    if distinct.height < fewest:
        message = f"fewer than {fewest} different labelled images"
        yield Problem(code="few-labels", severity="error", message=message, count=distinct.height)
    if task == "regression":
        yield from _numbers(source, names[0], distinct.height)
    else:
        yield from _tags(source, distinct, names)
    for split in source["split"].drop_nulls().unique().sort():
        part = source.filter(pl.col("split") == split)
        if task == "multi-label":
            found = set(part["label"].explode().drop_nulls())
            absent = [tag for tag in names if tag not in found]
            if absent:
                yield _problem("tag-not-in-split", "warning", f"tags without an image in {split}", absent)


def not_finite(table: pl.DataFrame) -> Iterator[Problem]:
    """Numbers that are NaN or infinite; their rows are to be dropped."""
    wrong = table.filter(pl.col("label").is_not_null() & ~pl.col("label").is_finite())
    if wrong.height:
        rows = wrong["sample_id"].to_list()
        examples = [f"{sample}: {value}" for sample, value in wrong.select("sample_id", "label").iter_rows()]
        yield _problem("not-finite", "error", "labels that are not finite", examples, rows)


def label_counts(table: pl.DataFrame, names: Sequence[str], task: Task) -> dict[str, dict[str, int]]:
    """Rows per "domain/split" and name: of numbers how many there are, of tags how many rows have each; and those that
    have none. "none" stands for a row without a split."""
    counts: dict[str, dict[str, int]] = {}
    rows = table.select("domain", pl.col("split").fill_null(_NO_SPLIT), "label").iter_rows()
    found: dict[str, Counter[str]] = {}
    for domain, split, label in rows:
        here = found.setdefault(f"{domain}/{split}", Counter())
        if label is None:
            here[_NO_LABEL] += 1
        elif task == "regression":
            here[names[0]] += 1
        else:
            here.update(label or [NO_TAG])
    for place in sorted(found):
        counts[place] = dict(sorted(found[place].items()))
    return counts


def place_images(table: pl.DataFrame) -> dict[str, int]:
    """Rows with a label per "domain/split"."""
    labelled = table.filter(pl.col("label").is_not_null()).with_columns(pl.col("split").fill_null(_NO_SPLIT))
    grouped = labelled.group_by("domain", "split").len().sort("domain", "split")
    return {f"{domain}/{split}": count for domain, split, count in grouped.iter_rows()}


def _whole_numbers(classes: Sequence[str]) -> Iterator[Problem]:
    if len(classes) >= _MANY_NUMBERS and all(name.removeprefix("-").isdecimal() for name in classes):
        message = "classes that are whole numbers; where they measure something: task = regression"
        yield _problem("whole-numbers", "info", message, classes)


def _numbers(source: pl.DataFrame, name: str, distinct: int) -> Iterator[Problem]:
    values = source["label"]
    low, high = float(values.min()), float(values.max())  # type: ignore[arg-type]
    if low == high:
        message = (
            f'labels that are all the same: "{name}" is {low:g} everywhere, and there is nothing to learn'
        )
        yield Problem(code="constant-target", severity="error", message=message, count=source.height)
        return
    mean, deviation = float(values.mean()), float(values.std())  # type: ignore[arg-type]
    message = f'labels read as numbers: "{name}" from {low:g} to {high:g}, mean {mean:.4g}, deviation {deviation:.4g}'
    yield Problem(code="numbers", severity="info", message=message, count=source.height)


def _tags(source: pl.DataFrame, distinct: pl.DataFrame, names: Sequence[str]) -> Iterator[Problem]:
    # Each copy counts once: two copies of one image cannot be both trained and tested on.
    images = Counter(distinct["label"].explode().drop_nulls().to_list())
    if not images:
        yield Problem(
            code="no-tags", severity="error", message="no image has a tag: there is nothing to learn"
        )
        return
    mean = images.total() / distinct.height
    message = f"labels read as tags: {len(names)} of them, {mean:.2g} per image on average"
    shown = [f"{tag}: {count}" for tag, count in images.most_common()]
    yield Problem(
        code="tags", severity="info", message=message, count=source.height, examples=tuple(shown[:_SHOWN])
    )
    rare = [f"{tag}: {images[tag]}" for tag in names if images[tag] < _FEWEST_TAGGED]
    if rare:
        message = f"tags on fewer than {_FEWEST_TAGGED} different usable images"
        yield _problem("rare-tag", "warning", message, rare)
    everywhere = [tag for tag in names if images[tag] == distinct.height]
    if everywhere:
        yield _problem(
            "constant-tag", "warning", "tags that every image has: nothing tells them apart", everywhere
        )


def _problem(
    code: str, severity: str, message: str, examples: Sequence[str], rows: Sequence[str] = ()
) -> Problem:
    return Problem.model_validate(
        {
            "code": code, "severity": severity, "message": message, "count": len(examples),
            "examples": tuple(examples[:_SHOWN]), "rows": tuple(rows),
        }
    )  # fmt: skip
