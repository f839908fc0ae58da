from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcore.data.schema import LABEL_TYPES, SCHEMA
from tlcore.data.splits import assign_splits
from tlcore.data.tag_splits import iterative_stratification
from tlcore.values import Dataset

SHARES = {"train": 0.65, "test": 0.2, "val": 0.15}


@settings(max_examples=50)
@given(
    st.lists(st.sets(st.sampled_from("abcde")), min_size=1, max_size=80),
    st.lists(st.sampled_from(["train", "val", "test", None]), max_size=20),
)
def test_every_image_gets_one_split_and_given_ones_stay(
    own: list[set[str]], given_: list[str | None]
) -> None:
    tags = {f"i{k}": sorted(some) for k, some in enumerate(own)}
    settled = {name: split for name, split in zip(tags, given_, strict=False) if split is not None}
    made = iterative_stratification(tags, settled, SHARES)
    assert set(made) == set(tags) - set(settled)
    assert set(made.values()) <= set(SHARES)
    assert made == iterative_stratification(tags, settled, SHARES)


def test_each_tag_is_shared_out_as_the_images_are() -> None:
    tags = {
        f"i{k}": [name for name, every in (("a", 2), ("b", 5), ("c", 20)) if k % every == 0]
        for k in range(400)
    }
    made = iterative_stratification(tags, {}, SHARES)
    for tag, count in (("a", 200), ("b", 80), ("c", 20)):
        found = Counter(made[image] for image, own in tags.items() if tag in own)
        assert all(abs(found[split] - share * count) <= 1.5 for split, share in SHARES.items()), (tag, found)
    total = Counter(made.values())
    assert all(abs(total[split] - share * 400) <= 3 for split, share in SHARES.items())


def test_of_a_tag_of_two_images_one_is_trained_and_one_tested_on() -> None:
    made = iterative_stratification({"x": ["rare"], "y": ["rare"]}, {}, SHARES)
    assert sorted(made.values()) == ["test", "train"]


def table(labels: list[object], task: str, classes: tuple[str, ...], domain: str = "source") -> Dataset:
    n = len(labels)
    columns = {
        "sample_id": [f"s{k}" for k in range(n)], "uri": [f"/s{k}" for k in range(n)], "label": labels, "split": [None] * n,
        "domain": [domain] * n, "sha256": [f"{k:064x}" for k in range(n)],
    }  # fmt: skip
    frame = pl.DataFrame(columns, schema={**SCHEMA, "label": LABEL_TYPES[task]})  # type: ignore[index]
    return Dataset("d", frame, classes, task)  # type: ignore[arg-type]


def test_numbers_are_split_evenly_over_their_range_whatever_the_order_of_rows() -> None:
    data = table([float(k) for k in range(200)], "regression", ("age",))
    made = assign_splits(data, validation=0.15, test=0.2, seed=0)
    for split, share in SHARES.items():
        numbers = made.targets(made.table.filter(pl.col("split") == split))
        assert len(numbers) == pytest.approx(share * 200, abs=10)
        assert numbers.mean() == pytest.approx(99.5, abs=6)
    turned = Dataset("d", data.table.reverse(), data.classes, data.task)
    again = assign_splits(turned, validation=0.15, test=0.2, seed=0)
    assert again.table.sort("sample_id").equals(made.table.sort("sample_id"))


def test_tags_are_split_with_another_draw_for_another_seed() -> None:
    data = table([["a"] if k % 2 else ["b", "c"] for k in range(60)], "multi-label", ("a", "b", "c"))
    first, second = (
        assign_splits(data, validation=0.15, test=0.2, seed=seed).table["split"] for seed in (0, 1)
    )
    assert not first.equals(second)
    assert first.value_counts().sort("split").equals(second.value_counts().sort("split"))


def test_the_tags_of_a_target_balance_its_test_split_alone() -> None:
    source = table([["a"] if k % 2 else ["b"] for k in range(20)], "multi-label", ("a", "b"))
    target = table([["a"], None, ["b"], []] * 10, "multi-label", ("a", "b"), "target")
    renamed = target.table.with_columns(
        ("t" + pl.col("sample_id")).alias("sample_id"), ("f" + pl.col("sha256").str.slice(1)).alias("sha256")
    )
    data = Dataset("d", pl.concat([source.table, renamed]), source.classes, source.task)
    made = assign_splits(data, validation=0.15, test=0.2, seed=0)
    test = made.table.filter((pl.col("domain") == "target") & (pl.col("split") == "test"))
    assert test.height == 8
    assert Counter(str(label) for label in test["label"].to_list()) == {
        "['a']": 2,
        "['b']": 2,
        "[]": 2,
        "None": 2,
    }
    assert made.table["split"].null_count() == 0
