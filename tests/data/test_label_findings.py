from __future__ import annotations

import math

from tests.data.test_tag_splits import table
from tlcore.data.findings import copies, schema_problems
from tlcore.data.label_findings import label_counts, label_findings, not_finite, place_images
from tlcore.values import Dataset, Problem


def found(data: Dataset) -> dict[str, Problem]:
    problems = label_findings(data.table, data.classes, data.task, fewest=2)
    return {problem.code: problem for problem in problems}


def test_numbers_are_told_with_range_and_mean() -> None:
    problems = found(table([1.0, 2.0, 6.0, None], "regression", ("age",)))
    assert set(problems) == {"numbers"}
    assert problems["numbers"].message == 'labels read as numbers: "age" from 1 to 6, mean 3, deviation 2.646'
    assert problems["numbers"].count == 3


def test_a_constant_number_and_too_few_of_them_end_a_run() -> None:
    assert found(table([2.5] * 5, "regression", ("age",)))["constant-target"].severity == "error"
    assert found(table([2.5], "regression", ("age",)))["few-labels"].severity == "error"
    assert found(table([None, None], "regression", ("age",)))["no-labels"].severity == "error"


def test_numbers_that_are_not_finite_are_rows_to_drop() -> None:
    (problem,) = not_finite(table([1.0, math.nan, math.inf, None], "regression", ("age",)).table)
    assert (problem.severity, problem.rows) == ("error", ("s1", "s2"))


def test_tags_are_counted_and_rare_and_universal_ones_named() -> None:
    data = table([["a", "b"], ["b"], ["b", "c"], ["b", "c"]], "multi-label", ("a", "b", "c"))
    problems = found(data)
    assert problems["tags"].examples == ("b: 4", "c: 2", "a: 1")
    assert problems["rare-tag"].examples == ("a: 1",)
    assert problems["constant-tag"].examples == ("b",)
    assert found(table([[], []], "multi-label", ()))["no-tags"].severity == "error"


def test_counts_are_by_tag_and_images_by_place() -> None:
    data = table([["a", "b"], [], None, ["b"]], "multi-label", ("a", "b"))
    assert label_counts(data.table, data.classes, data.task) == {
        "source/none": {"(no label)": 1, "(no tag)": 1, "a": 1, "b": 2}
    }
    assert place_images(data.table) == {"source/none": 3}
    numbers = table([1.0, None], "regression", ("age",))
    assert label_counts(numbers.table, ("age",), "regression") == {"source/none": {"(no label)": 1, "age": 1}}


def test_many_whole_numbers_as_classes_are_pointed_at() -> None:
    names = tuple(str(k) for k in range(25))
    assert found(table(list(names), "classification", names))["whole-numbers"].severity == "info"
    assert not found(table(["1", "2"], "classification", ("1", "2")))


def test_the_schema_asks_for_the_type_of_the_task() -> None:
    assert schema_problems(table([1.0], "regression", ("age",)).table, "regression") == ()
    assert schema_problems(table([["a"], None], "multi-label", ("a",)).table, "multi-label") == ()
    (problem,) = schema_problems(table(["a"], "classification", ("a",)).table, "regression")
    assert (problem.code, problem.message) == (
        "schema-label-type",
        'values of the column "label" that are no numbers',
    )


def test_copies_with_other_tags_or_numbers_are_named() -> None:
    import polars as pl

    data = table([["a"], ["b"]], "multi-label", ("a", "b")).table.with_columns(
        pl.lit("f" * 64).alias("sha256")
    )
    assert {p.code for p in copies(data)} == {"label-conflict", "copies"}
