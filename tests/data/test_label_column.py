from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from tlcore.data.label_column import read_labels
from tlcore.errors import UserError


def text(*cells: str | None) -> pl.Series:
    return pl.Series("label", cells, dtype=pl.String)


@pytest.mark.parametrize(
    ("cells", "task"),
    [
        (("1.5", "2", None), "regression"),
        (("1.5e3", "-2.", "nan"), "regression"),
        (("7", "12"), "classification"),
        (("1e3", "2e3"), "classification"),
        (("1.5", "two"), "classification"),
        (("1.2.3", "1.2.4"), "classification"),
        (("nan", "inf"), "classification"),
        ((None, None), "classification"),
    ],
)
def test_numbers_have_a_decimal_point_somewhere_and_everything_else_names_classes(
    cells: tuple[str | None, ...], task: str
) -> None:
    assert read_labels(text(*cells))[0] == task


def test_classes_stay_the_text_that_they_are() -> None:
    assert read_labels(text("007", None, "7")) == ("classification", ["007", None, "7"])
    assert read_labels(text("1.50", "2.0"), task="classification")[1] == ["1.50", "2.0"]


def test_numbers_of_text_and_of_floats_are_the_same() -> None:
    expected = ("regression", [1.5, None, -20.0])
    assert read_labels(text("1.5", None, "-2e1")) == expected
    assert read_labels(pl.Series([1.5, None, -20.0])) == expected
    assert read_labels(text("3", "4"), task="regression") == ("regression", [3.0, 4.0])


def test_tags_are_sorted_once_each_and_the_separator_alone_means_none_of_them() -> None:
    cells = text("b| a |b", "|", None, "c")
    expected: list[Any] = [["a", "b"], [], None, ["c"]]
    assert read_labels(cells, separator="|") == ("multi-label", expected)
    assert read_labels(cells, task="multi-label") == ("multi-label", expected)
    lists = pl.Series([["b", "a", "b"], [], None, ["c"]])
    assert read_labels(lists) == ("multi-label", expected)
    assert read_labels(text("a;b"), separator=";")[1] == [["a", "b"]]


def test_labels_that_do_not_fit_the_task_are_named_by_row() -> None:
    with pytest.raises(
        UserError, match=r'2 labels in the column "age" are no numbers: row 2 \(old\), row 3'
    ) as caught:
        read_labels(text("1.5", "old", "1 000"), task="regression", column="age", where="list.csv")
    assert caught.value.where == "list.csv"
    with pytest.raises(UserError, match="holds lists"):
        read_labels(pl.Series([["a"]]), task="classification")
    with pytest.raises(UserError, match="separator is for tags"):
        read_labels(text("a"), task="classification", separator="|")
    with pytest.raises(UserError, match="blank tag: row 1"):
        read_labels(pl.Series([["a", " "]]))


@pytest.mark.parametrize("labels", [pl.Series([1.5, None, 2.0]), text("1.5", None, "2")])
@pytest.mark.parametrize("separator", [None, ";"])
def test_a_column_of_numbers_is_not_taken_for_tags(labels: pl.Series, separator: str | None) -> None:
    with pytest.raises(UserError, match='column "age" holds numbers, not tags') as caught:
        read_labels(labels, task="multi-label", separator=separator, column="age", where="list.csv")
    assert caught.value.where == "list.csv" and "task = regression" in (caught.value.hint or "")
