"""From findings to consequences: which rows go, and when a run stops."""

from __future__ import annotations

import math
from dataclasses import replace

import polars as pl

from tlcore.errors import UserError
from tlcore.values import DataReport, Dataset, Problem

__all__ = ["apply_report"]

_SHOWN = 5


def apply_report(dataset: Dataset, report: DataReport, *, max_bad_share: float) -> Dataset:
    """The dataset without the rows that problems name.

    A problem of severity "error" with rows says that these files cannot be used: they count towards
    `max_bad_share` (of all rows). Rows of warnings (training copies of test images, rows without a label) go
    without counting.

    Raises:
        UserError: more unusable files than `max_bad_share` allows, with examples and reasons; or a problem of
            severity "error" that dropping rows does not mend (one class, a class with one image, no rows).
    """
    errors = [problem for problem in report.problems if problem.severity == "error"]
    unusable = {row for problem in errors for row in problem.rows}
    total = max(1, dataset.table.height)
    if len(unusable) / total > max_bad_share:
        raise UserError(
            f"{len(unusable)} of {total} images cannot be used ({len(unusable) / total:.1%}; "
            f"allowed: {max_bad_share:.1%}): {_examples([p for p in errors if p.rows])}",
            where=dataset.name,
            hint="mend or remove these files, or allow more with data.max_bad_share "
            f"(--max-bad-share {math.ceil(100 * len(unusable) / total) / 100:g})",
        )
    fatal = [problem for problem in errors if not problem.rows]
    if fatal:
        raise UserError(
            "; ".join(_sentence(problem) for problem in fatal),
            where=dataset.name,
            hint="mend the data and run the same command again",
        )
    dropped = {row for problem in report.problems for row in problem.rows}
    if not dropped:
        return dataset
    kept = dataset.table.filter(~pl.col("sample_id").is_in(list(dropped)))
    return replace(dataset, table=kept)


def _examples(problems: list[Problem]) -> str:
    """Up to five examples, every kind of problem once before any kind twice."""
    ranked = sorted(
        ((place, example) for problem in problems for place, example in enumerate(problem.examples)),
        key=lambda item: item[0],
    )
    shown = [example for _, example in ranked[:_SHOWN]]
    more = sum(problem.count for problem in problems) > len(shown)
    return "; ".join(shown) + ("; …" if more else "")


def _sentence(problem: Problem) -> str:
    shown = ", ".join(problem.examples[:_SHOWN])
    return f"{problem.message} ({shown})" if shown else problem.message
