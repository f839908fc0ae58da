"""A column of labels as it was written: classes, numbers or tags."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import polars as pl

from tlcore.errors import UserError
from tlcore.values import Task

__all__ = ["SEPARATOR", "read_labels"]

SEPARATOR = "|"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_SHOWN = 5


def read_labels(
    labels: pl.Series,
    *,
    task: Literal["auto"] | Task = "auto",
    separator: str | None = None,
    column: str = "label",
    where: str = "",
) -> tuple[Task, list[Any]]:
    """What the labels are, and one str, float or sorted list of tags for each row; None where there is none.

    "auto" takes a column of floats for numbers, and text too where every label reads as a number and one of them at
    least has a decimal point; a column of lists, or text beside a given `separator`, for tags; everything else,
    whole numbers too, for classes. In text, NaN and infinity are numbers beside others.

    Args:
        labels: text without surrounding spaces and null for an empty cell; floats; or lists.
        separator: between the tags of a text; SEPARATOR where tags are asked for and none is given.
        column: its name, for errors.

    Raises:
        UserError: labels that do not fit the task, with rows from 1; a separator where labels are no tags.
    """
    listed = isinstance(labels.dtype, pl.List)
    if task == "auto":
        task = "multi-label" if listed or separator is not None else _numbers_or_classes(labels)
    elif separator is not None and task != "multi-label":
        raise UserError(
            f"a separator is for tags, and the labels are read as {task}",
            where=where,
            hint="leave one of them out",
        )
    if task == "multi-label":
        if not listed and _numbers_or_classes(labels) == "regression":
            raise UserError(
                f'the column "{column}" holds numbers, not tags',
                where=where,
                hint="task = regression, or leave the task out; tags are lists, or text with a separator between them",
            )
        return task, _tags(labels, separator or SEPARATOR, where)
    if listed:
        raise UserError(f'the column "{column}" holds lists, which are tags: task = multi-label', where=where)
    if task == "regression":
        return task, _numbers(labels, column, where)
    if labels.dtype.is_float():
        labels = labels.cast(pl.String)
    return task, labels.to_list()


def _numbers_or_classes(labels: pl.Series) -> Task:
    if labels.dtype.is_float():
        return "regression"
    cells = labels.drop_nulls().unique().to_list()
    finite = [cell for cell in cells if not _NOT_FINITE.fullmatch(cell)]
    numeric = bool(finite) and all(_NUMBER.fullmatch(cell) for cell in finite)
    return "regression" if numeric and any("." in cell for cell in finite) else "classification"


def _numbers(labels: pl.Series, column: str, where: str) -> list[float | None]:
    if labels.dtype.is_float():
        return [None if cell is None else float(cell) for cell in labels]
    cells = labels.to_list()
    wrong = [
        (row, cell)
        for row, cell in enumerate(cells, 1)
        if cell is not None and not (_NUMBER.fullmatch(cell) or _NOT_FINITE.fullmatch(cell))
    ]
    if wrong:
        raise UserError(
            f'{len(wrong)} labels in the column "{column}" are no numbers: {_rows(wrong)}',
            where=where,
            hint="mend them, or leave their cells empty (a decimal point, no unit); or task = classification",
        )
    return [None if cell is None else float(cell) for cell in cells]


def _tags(labels: pl.Series, separator: str, where: str) -> list[list[str] | None]:
    """Sorted, each tag once; a text that holds nothing but separators has none."""
    found: list[list[str] | None] = []
    blank = []
    for row, cell in enumerate(labels.to_list(), 1):
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            found.append(None)
            continue
        parts: Sequence[Any] = cell if isinstance(cell, list) else str(cell).split(separator)
        names = {"" if part is None else str(part).strip() for part in parts}
        if isinstance(cell, list) and "" in names:
            blank.append((row, str(cell)))
        found.append(sorted(names - {""}))
    if blank:
        raise UserError(
            f"{len(blank)} lists of tags hold a blank tag: {_rows(blank)}",
            where=where,
            hint="mend these rows",
        )
    return found


def _rows(found: Sequence[tuple[int, str]]) -> str:
    shown = ", ".join(f"row {row} ({cell})" for row, cell in found[:_SHOWN])
    return shown + (", …" if len(found) > _SHOWN else "")
