from __future__ import annotations

from collections import defaultdict

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tlcore.data.schema import SCHEMA, class_names
from tlcore.data.splits import assign_splits
from tlcore.errors import UserError
from tlcore.values import SOURCE, TARGET, Dataset

Cell = str | None
Row = tuple[Cell, Cell, str, str]
"""label, split, domain, content"""


def dataset(rows: list[Row]) -> Dataset:
    columns = {
        "sample_id": [f"s{index}" for index in range(len(rows))],
        "uri": [f"/{index}.png" for index in range(len(rows))],
        "label": [row[0] for row in rows],
        "split": [row[1] for row in rows],
        "domain": [row[2] for row in rows],
        "sha256": [row[3] for row in rows],
    }
    return Dataset("d", pl.DataFrame(columns, schema=SCHEMA), class_names(columns["label"]))


def plain(counts: dict[str, int], split: Cell = None, domain: str = SOURCE) -> list[Row]:
    return [
        (name, split, domain, f"{domain}{name}{n}") for name, count in counts.items() for n in range(count)
    ]


def tally(made: Dataset, domain: str = SOURCE) -> dict[Cell, dict[str, int]]:
    counts: dict[Cell, dict[str, int]] = defaultdict(lambda: {"train": 0, "val": 0, "test": 0})
    for label, split in made.rows(domain=domain).select("label", "split").iter_rows():
        counts[label][split] += 1
    return dict(counts)


cell = st.sampled_from
rows_of = st.lists(
    st.tuples(
        cell(["a", "b", "c", None]),
        cell([None, None, "train", "val", "test"]),
        cell([SOURCE, TARGET]),
        cell([f"{n:02d}" for n in range(30)]),
    ),
    min_size=1,
    max_size=60,
)
shares = st.floats(0.0, 0.45)


def made_or_skip(data: Dataset, validation: float, test: float, seed: int) -> Dataset:
    try:
        return assign_splits(data, validation=validation, test=test, seed=seed)
    except UserError:
        assume(False)
        raise


@given(rows=rows_of, validation=shares, test=shares, seed=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_every_row_gets_a_split_and_given_val_and_test_stay(
    rows: list[Row], validation: float, test: float, seed: int
) -> None:
    data = dataset(rows)
    made = made_or_skip(data, validation, test, seed)
    assert made.table.drop("split").equals(data.table.drop("split"))
    for (_, before, domain, _), after in zip(rows, made.table["split"], strict=True):
        assert after in {"train", "val", "test"}
        given_here = {row[1] for row in rows if row[2] == domain}
        if before in {"val", "test"} or (before == "train" and {"val", "test"} <= given_here):
            assert after == before


@given(rows=rows_of, validation=shares, test=shares, seed=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_identical_bytes_land_in_one_split_unless_given_apart(
    rows: list[Row], validation: float, test: float, seed: int
) -> None:
    given_splits = defaultdict(set)
    for _, split, _, content in rows:
        if split is not None:
            given_splits[content].add(split)
    made = made_or_skip(dataset(rows), validation, test, seed)
    after = defaultdict(set)
    for content, split in made.table.select("sha256", "split").iter_rows():
        after[content].add(split)
    for content, splits in after.items():
        assert len(splits) == 1 or len(given_splits[content]) > 1


@given(rows=rows_of, seed=st.integers(0, 3), data=st.data())
@settings(max_examples=100, deadline=None)
def test_the_order_of_rows_does_not_matter(rows: list[Row], seed: int, data: st.DataObject) -> None:
    table = dataset(rows)
    order = data.draw(st.permutations(range(len(rows))))
    moved = Dataset("d", table.table[list(order)], table.classes)
    first = made_or_skip(table, 0.2, 0.2, seed)
    second = assign_splits(moved, validation=0.2, test=0.2, seed=seed)
    assert second.table.equals(first.table[list(order)])


@given(
    counts=st.dictionaries(cell(list("abcdefgh")), st.integers(1, 40), min_size=1),
    validation=st.floats(0.01, 0.45),
    test=st.floats(0.01, 0.45),
    seed=st.integers(0, 5),
)
@settings(max_examples=150, deadline=None)
def test_small_classes_reach_every_split_and_large_ones_keep_their_shares(
    counts: dict[str, int], validation: float, test: float, seed: int
) -> None:
    made = tally(assign_splits(dataset(plain(counts)), validation=validation, test=test, seed=seed))
    for name, n in counts.items():
        got = made[name]
        assert got["train"] >= 1
        if n >= 3:
            assert min(got.values()) >= 1
        if n == 2:
            assert got == {"train": 1, "val": 0, "test": 1}
        if n >= 20:
            assert abs(got["test"] - test * n) <= 1
            assert abs(got["val"] - validation * n) <= 1


def test_copies_count_as_one_image_of_their_class() -> None:
    rows = plain({"a": 2, "b": 10})
    made = tally(assign_splits(dataset(rows + rows[:1] * 5), validation=0.2, test=0.2, seed=0))
    assert made["a"]["val"] == 0
    assert sorted([made["a"]["train"], made["a"]["test"]]) == [1, 6]


def test_val_is_carved_out_of_train_where_train_and_test_are_given() -> None:
    rows = plain({"a": 20, "b": 40}, "train") + [("a", "test", SOURCE, "t1"), ("b", "test", SOURCE, "t2")]
    made = tally(assign_splits(dataset(rows), validation=0.25, test=0.3, seed=1))
    assert made == {"a": {"train": 15, "val": 5, "test": 1}, "b": {"train": 30, "val": 10, "test": 1}}


def test_test_is_carved_out_of_train_where_train_and_val_are_given() -> None:
    rows = [*plain({"a": 20}, "train"), ("a", "val", SOURCE, "v1")]
    made = tally(assign_splits(dataset(rows), validation=0.25, test=0.3, seed=1))
    assert made == {"a": {"train": 14, "val": 1, "test": 6}}


@pytest.mark.parametrize("split", [None, "train"])
def test_with_nothing_or_only_train_given_all_three_are_made(split: Cell) -> None:
    made = tally(assign_splits(dataset(plain({"a": 20}, split)), validation=0.25, test=0.25, seed=1))
    assert made == {"a": {"train": 10, "val": 5, "test": 5}}


def test_rows_without_a_split_go_to_train_where_all_three_are_given() -> None:
    rows: list[Row] = [("a", split, SOURCE, f"g{split}") for split in ("train", "val", "test")]
    made = assign_splits(dataset(rows + plain({"a": 4})), validation=0.2, test=0.2, seed=0)
    assert made.table["split"].to_list() == ["train", "val", "test"] + ["train"] * 4


def test_a_domain_without_training_images_is_refused() -> None:
    with pytest.raises(UserError, match="source images have no training split"):
        assign_splits(dataset(plain({"a": 4}, "test")), validation=0.2, test=0.2, seed=0)


def test_shares_that_leave_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="leave nothing to train on"):
        assign_splits(dataset(plain({"a": 4})), validation=0.6, test=0.4, seed=0)


def test_another_seed_is_another_draw() -> None:
    data = dataset(plain({"a": 40}))
    first, second, again = (assign_splits(data, validation=0.2, test=0.2, seed=s).table for s in (0, 1, 0))
    assert first.equals(again)
    assert not first.equals(second)


def test_target_labels_never_decide_between_training_and_validation() -> None:
    # The test split is given, so labels have no say at all: permuting them must not move a row.
    names = ["a"] * 10 + ["b"] * 30
    rows: list[Row] = [(name, "train", TARGET, f"{n}") for n, name in enumerate(names)]
    rows += [("a", "test", TARGET, "t"), *plain({"a": 5, "b": 5})]
    hidden = dataset(rows).without_target_labels()
    seen = assign_splits(dataset(rows), validation=0.3, test=0.2, seed=0)
    blind = assign_splits(hidden, validation=0.3, test=0.2, seed=0)
    assert seen.table["split"].equals(blind.table["split"])
    assert tally(blind, TARGET)[None]["val"] == 12


def test_the_target_test_split_keeps_the_class_balance() -> None:
    rows = plain({"a": 10, "b": 40}, domain=TARGET) + plain({"a": 5, "b": 5})
    made = tally(assign_splits(dataset(rows), validation=0.2, test=0.3, seed=0), TARGET)
    assert (made["a"]["test"], made["b"]["test"]) == (3, 12)
    assert made["a"]["val"] + made["b"]["val"] == 10


def test_a_target_without_labels_is_split_by_its_shares() -> None:
    rows: list[Row] = [(None, None, TARGET, str(n)) for n in range(50)]
    made = tally(assign_splits(dataset(rows + plain({"a": 5})), validation=0.2, test=0.3, seed=0), TARGET)
    assert made == {None: {"train": 25, "val": 10, "test": 15}}


def test_an_image_of_both_domains_lands_in_one_split() -> None:
    rows = plain({"a": 30}) + [(None, None, TARGET, f"{SOURCE}a{n}") for n in range(30)]
    table = assign_splits(dataset(rows), validation=0.3, test=0.3, seed=0).table
    assert table["split"][:30].to_list() == table["split"][30:].to_list()


def test_files_that_could_not_be_hashed_are_not_taken_for_copies() -> None:
    made = assign_splits(dataset([("a", None, SOURCE, "")] * 20), validation=0.25, test=0.25, seed=0)
    assert tally(made)["a"] == {"train": 10, "val": 5, "test": 5}
