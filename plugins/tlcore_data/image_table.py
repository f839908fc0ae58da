"""The data check: the table by its schema, every file, classes, splits and copies."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, CheckLimits, DataCheck
from tlcore.values import DataReport, Dataset, Problem

if TYPE_CHECKING:
    import polars as pl

    from tlcore.data.image_file import BadImage, ImageFacts


class ImageTable(DataCheck):
    """Finds what would spoil a run; the findings themselves are in `tlcore.data.findings`.

    The schema comes first, and a broken one ends the check. Then every file is read to its end, once. Classes,
    copies and sizes are those of the rows that are left when unusable and leaking ones are gone.
    """

    card: ClassVar[Card] = Card(
        name="image-table",
        summary="schema, decodability, sizes, copies across splits, class counts",
        reference="pandera.polars.DataFrameSchema on tlcore.values.Dataset; each file read to its end by Pillow",
    )

    workers: int = Field(0, ge=0, le=1024, description="threads that read files; 0: one per core")
    tiny: int = Field(16, ge=1, description="pixels; an image with a shorter side is reported")
    imbalance: float = Field(
        10.0, gt=1, description="largest over smallest training class from which on it is reported"
    )

    def check(self, dataset: Dataset, limits: CheckLimits) -> DataReport:
        from tlcore.data import findings, label_findings

        table = dataset.table
        problems = list(findings.schema_problems(table, dataset.task))
        if table.height == 0:
            problems.append(Problem(code="no-rows", severity="error", message="no images"))
        if problems:
            return DataReport(
                problems=tuple(problems), rows=table.height, classes=dataset.classes, task=dataset.task
            )
        facts, bad = self._inspect(table, limits)
        problems += findings.bad_files(bad)
        if dataset.task == "regression":
            problems += label_findings.not_finite(_without(table, problems))
        left = _without(table, problems)
        problems += findings.tiny_images(facts, self.tiny)
        problems += findings.misnamed(dict(left.select("sample_id", "uri").iter_rows()), facts)
        problems += findings.copies(left)
        problems += findings.unlabelled(_without(left, problems))
        left = _without(left, problems)
        classes = dataset.task == "classification"
        if classes:
            problems += findings.class_problems(
                left, dataset.classes, fewest=limits.min_images_per_class, imbalance=self.imbalance
            )
        problems += label_findings.label_findings(
            left, dataset.classes, dataset.task, fewest=limits.min_images_per_class
        )
        kept = [facts[sample] for sample in left["sample_id"]]
        return DataReport(
            problems=tuple(problems),
            rows=left.height,
            dropped=table.height - left.height,
            classes=dataset.classes,
            counts=findings.class_counts(left)
            if classes
            else label_findings.label_counts(left, dataset.classes, dataset.task),
            images={} if classes else label_findings.place_images(left),
            task=dataset.task,
            sizes=findings.size_summary(kept),
            modes=dict(Counter(fact.mode for fact in kept).most_common()),
        )

    def _inspect(
        self, table: pl.DataFrame, limits: CheckLimits
    ) -> tuple[dict[str, ImageFacts], dict[str, BadImage]]:
        """By sample_id: what each file is, or why it cannot be used."""
        from tlcore.data.image_file import BadImage, inspect

        def look(uri: str) -> ImageFacts | BadImage:
            try:
                return inspect(uri, max_pixels=limits.max_pixels)
            except BadImage as error:
                return error

        with ThreadPoolExecutor(self.workers or os.cpu_count() or 1, thread_name_prefix="check") as pool:
            found = dict(zip(table["sample_id"], pool.map(look, table["uri"]), strict=True))
        facts = {sample: result for sample, result in found.items() if not isinstance(result, BadImage)}
        return facts, {sample: result for sample, result in found.items() if isinstance(result, BadImage)}


def _without(table: pl.DataFrame, problems: list[Problem]) -> pl.DataFrame:
    """The rows that no problem drops."""
    import polars as pl

    gone = [row for problem in problems for row in problem.rows]
    return table.filter(~pl.col("sample_id").is_in(gone))


@hookimpl
def tlcore_data_checks() -> list[type[DataCheck]]:
    return [ImageTable]
