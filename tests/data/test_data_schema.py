from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import pytest

from tlcore.data.schema import SCHEMA, class_names, combine, image_table, sha256_files
from tlcore.errors import UserError
from tlcore.values import Dataset


def dataset(name: str, labels: list[str | None], domains: list[str] | None = None) -> Dataset:
    ids = [f"{index}.png" for index in range(len(labels))]
    uris = [f"/{name}/{sample}" for sample in ids]
    return image_table(
        name, sample_ids=ids, uris=uris, labels=labels, splits=[None] * len(ids), domains=domains
    )


def test_hashes_are_those_of_the_bytes_and_an_unreadable_file_has_none(tmp_path: Path) -> None:
    contents = [b"", b"abc", b"x" * 3_000_000]
    for index, content in enumerate(contents):
        (tmp_path / str(index)).write_bytes(content)
    paths = [str(tmp_path / name) for name in ("0", "1", "2", "gone")]
    assert sha256_files(paths) == [hashlib.sha256(content).hexdigest() for content in contents] + [""]
    assert sha256_files([]) == []


def test_classes_are_sorted_and_encode_labels() -> None:
    data = dataset("d", ["bee", None, "ant", "bee"])
    assert data.classes == ("ant", "bee") == class_names(["bee", "ant", None])
    assert data.labels() == [1, -1, 0, 1]
    assert data.table.schema == pl.Schema(SCHEMA)
    assert data.table["domain"].unique().to_list() == ["source"]


def test_one_dataset_alone_keeps_its_target_rows_and_a_single_other_domain_becomes_source() -> None:
    data = combine(dataset("d", ["a", "b", None, "a"], ["photo", "photo", "Target", "target"]))
    assert data.table["domain"].to_list() == ["source", "source", "target", "target"]
    assert data.classes == ("a", "b") and data.source_domains == ("source",)


def test_several_labelled_domains_keep_their_names() -> None:
    data = combine(dataset("d", ["a", "b", None, "a"], ["photo", " art ", "Target", "photo"]))
    assert data.table["domain"].to_list() == ["photo", "art", "target", "photo"]
    assert data.source_domains == ("art", "photo")
    assert data.rows(domain="source").height == 3 and data.rows(domain="photo").height == 2


def test_any_domain_of_a_table_can_be_the_target() -> None:
    rows = dataset("d", ["a", "b", None, "a"], ["photo", "art", "Sketch", "photo"])
    data = combine(rows, target_domain="sketch")
    assert data.table["domain"].to_list() == ["photo", "art", "target", "photo"]
    with pytest.raises(UserError, match='no image has the domain "clipart"') as caught:
        combine(rows, target_domain="clipart")
    assert caught.value.choices == ("Sketch", "art", "photo")


def test_labels_of_new_classes_are_dropped_where_that_is_said() -> None:
    rows = dataset("d", ["ant", "bee", "wasp", "ant"], ["source", "source", "target", "target"])
    data = combine(rows, new_classes=True)
    assert data.table["label"].to_list() == ["ant", "bee", None, "ant"] and data.classes == ("ant", "bee")


def test_the_rows_of_a_target_get_its_domain_and_ids_of_their_own() -> None:
    data = combine(dataset("s", ["a", "b"]), dataset("t", [None, "b", "a"]))
    assert data.table["sample_id"].to_list() == [
        "0.png", "1.png", "target:0.png", "target:1.png", "target:2.png",
    ]  # fmt: skip
    assert data.table["domain"].to_list() == ["source"] * 2 + ["target"] * 3
    assert data.classes == ("a", "b")
    again = combine(data, dataset("t", [None]))
    assert again.table["sample_id"].is_unique().all()


def test_a_target_without_labels_is_fine() -> None:
    data = combine(dataset("s", ["a", "b"]), dataset("t", [None, None]))
    assert data.rows(domain="target")["label"].null_count() == 2


@pytest.mark.parametrize("in_one_manifest", [False, True])
def test_target_classes_that_the_source_lacks_are_named(in_one_manifest: bool) -> None:
    with pytest.raises(UserError) as caught:
        if in_one_manifest:
            combine(dataset("d", ["ant", "bee", "wasp"], ["source", "source", "target"]))
        else:
            combine(dataset("s", ["ant", "bee"]), dataset("t", ["ant", "wasp", None]))
    assert 'lacks: "wasp"' in caught.value.what
    assert caught.value.choices == ("ant", "bee")
    assert "ignored" in caught.value.hint
