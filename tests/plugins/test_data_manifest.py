from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tlcore.errors import PluginError, UnknownName, UserError
from tlcore_data.manifest import Manifest


def files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def manifest(root: Path, text: str | bytes) -> Manifest:
    (root / "list.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return Manifest(path=str(root / "list.csv"))


def failure(root: Path, text: str | bytes) -> UserError:
    with pytest.raises(UserError) as caught:
        manifest(root, text).load()
    assert caught.value.where.endswith("list.csv")
    return caught.value


def test_a_csv_with_all_columns(tmp_path: Path) -> None:
    files(tmp_path, "x/1.jpg", "2.jpg", "3.jpg")
    text = (
        "\ufeffuri,label,split,domain,sample_id\n"
        'x/1.jpg,007,Train,photo,one\n"2.jpg", bee ,validation,target,two\n3.jpg,,,,three\n'
    )
    loaded = manifest(tmp_path, text).load()
    assert loaded.name == "list"
    assert loaded.classes == ("007", "bee")
    assert loaded.table.drop("uri", "sha256").rows() == [
        ("one", "007", "train", "photo"),
        ("two", "bee", "val", "target"),
        ("three", None, None, "source"),
    ]
    assert loaded.table["uri"][0] == str(tmp_path / "x" / "1.jpg")
    assert loaded.table["sha256"].str.len_chars().to_list() == [64] * 3


def test_a_parquet_manifest_reads_alike_whatever_its_types(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg", "2.jpg")
    table = pl.DataFrame({"uri": ["1.jpg", "2.jpg"], "label": [7, None], "split": pl.Series(["train", ""])})
    table.with_columns(pl.col("split").cast(pl.Categorical)).write_parquet(tmp_path / "list.parquet")
    loaded = Manifest(path=str(tmp_path / "list.parquet")).load()
    assert loaded.table.select("sample_id", "label", "split").rows() == [
        ("1.jpg", "7", "train"),
        ("2.jpg", None, None),
    ]


def test_absolute_paths_and_another_root(tmp_path: Path) -> None:
    files(tmp_path / "images", "1.jpg", "2.jpg")
    (tmp_path / "list.csv").write_text(f"uri\n{tmp_path}/images/1.jpg\n2.jpg\n")
    loaded = Manifest(path=str(tmp_path / "list.csv"), root=str(tmp_path / "images")).load()
    assert loaded.table["sample_id"].to_list() == ["1.jpg", "2.jpg"]


def test_an_unknown_column_offers_the_nearest(tmp_path: Path) -> None:
    error = failure(tmp_path, "uri,labels\n1.jpg,a\n")
    assert isinstance(error, UnknownName)
    assert error.nearest == "label"


def test_the_uri_column_is_required(tmp_path: Path) -> None:
    assert 'the column "uri" is missing' in failure(tmp_path, "label\na\n").what


def test_missing_files_are_named_by_row(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg")
    error = failure(tmp_path, f"uri\n1.jpg\ngone.jpg\n{'x' * 400}.jpg\n")
    assert error.what.startswith("2 rows name a missing file")
    assert "row 2 (gone.jpg)" in error.what


@pytest.mark.parametrize(
    "uri", ["../secret.jpg", "/etc/hostname", "a/../../secret.jpg", "link.jpg", "linked/secret.jpg"]
)
def test_a_path_that_leaves_its_root_is_refused(tmp_path: Path, uri: str) -> None:
    root = tmp_path / "root"
    files(root, "1.jpg", "a/2.jpg")
    files(tmp_path, "secret.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "linked").symlink_to(tmp_path)
    error = failure(root, f"uri\n1.jpg\n{uri}\n")
    assert f"leave the root {root}: row 2 ({uri})" in error.what


def test_web_addresses_are_refused(tmp_path: Path) -> None:
    assert "no path of a local file" in failure(tmp_path, "uri\nhttps://example.org/1.jpg\n").what


def test_repeated_ids_and_images_are_named_with_their_rows(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg", "2.jpg")
    error = failure(tmp_path, "uri,sample_id\n1.jpg,a\n2.jpg,a\n")
    assert "the same sample_id occurs more than once: a in rows 1, 2" in error.what
    error = failure(tmp_path, "uri\n1.jpg\n2.jpg\n./1.jpg\n")
    assert "the same image occurs more than once: 1.jpg in rows 1, 3" in error.what


def test_an_unknown_split_is_named_with_the_known_ones(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg", "2.jpg")
    error = failure(tmp_path, "uri,split\n1.jpg,train\n2.jpg,dev\n")
    assert "row 2 (dev)" in error.what
    assert "validation" in error.choices


def test_an_empty_uri_is_named_by_row(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg")
    assert 'the column "uri" is empty in 1 rows: row 2' in failure(tmp_path, "uri,label\n1.jpg,a\n,b\n").what


@pytest.mark.parametrize(
    "content", [b"", b"uri,label\na,b,c\nd,e,f\n", b"uri\n\xff\xfe\n", b"uri,uri\na,b\n"]
)
def test_a_file_that_is_no_csv_is_explained(tmp_path: Path, content: bytes) -> None:
    failure(tmp_path, content)


def test_a_manifest_without_rows_is_refused(tmp_path: Path) -> None:
    assert "no rows" in failure(tmp_path, "uri,label\n").what


def test_a_file_that_is_no_parquet_and_other_endings_are_explained(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="not a readable parquet file"):
        Manifest(path=str(tmp_path / "a.parquet")).load()
    pl.DataFrame({"uri": [["a"]]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(UserError, match="plain values"):
        Manifest(path=str(tmp_path / "b.parquet")).load()
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(UserError, match=r"ends in .csv, .parquet or .pq"):
        Manifest(path=str(tmp_path / "a.xlsx")).load()
    with pytest.raises(UserError, match="no such file; did you mean"):
        Manifest(path=str(tmp_path / "a.xlsy")).load()


def test_labels_may_be_numbers_in_a_column_of_another_name(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    (tmp_path / "list.csv").write_text("uri,age,label\n1.jpg,30.5,old\n2.jpg,,young\n3.jpg,7,young\n")
    loaded = Manifest(path=str(tmp_path / "list.csv"), label="age").load()
    assert (loaded.task, loaded.classes) == ("regression", ("age",))
    assert loaded.table["label"].to_list() == [30.5, None, 7.0]
    assert loaded.labelled().tolist() == [True, False, True]
    assert loaded.targets()[0] == 30.5 and loaded.targets()[1] != loaded.targets()[1]
    with pytest.raises(PluginError, match="no classes"):
        loaded.labels()
    with pytest.raises(UnknownName, match="aeg"):
        Manifest(path=str(tmp_path / "list.csv"), label="aeg").load()


def test_labels_may_be_tags_of_text_or_of_lists(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    (tmp_path / "list.csv").write_text("uri,label\n1.jpg,b|a\n2.jpg,\n3.jpg,|\n")
    pl.DataFrame({"uri": ["1.jpg", "2.jpg", "3.jpg"], "label": [["b", "a"], None, []]}).write_parquet(
        tmp_path / "list.parquet"
    )
    text = Manifest(path=str(tmp_path / "list.csv"), separator="|").load()
    lists = Manifest(path=str(tmp_path / "list.parquet")).load()
    assert text.task == lists.task == "multi-label" and text.classes == ("a", "b")
    assert text.fingerprint == lists.fingerprint
    assert text.targets()[[0, 2]].tolist() == [[1, 1], [0, 0]] and text.targets()[1] != pytest.approx(0)
    assert text.labelled().tolist() == [True, False, True]


def test_whole_numbers_are_classes_unless_somebody_says_numbers(tmp_path: Path) -> None:
    files(tmp_path, "1.jpg", "2.jpg")
    made = manifest(tmp_path, "uri,label\n1.jpg,7\n2.jpg,10\n")
    assert (made.load().task, made.load().classes) == ("classification", ("10", "7"))
    asked = made.model_copy(update={"task": "regression"}).load()
    assert asked.targets().tolist() == [7, 10] and asked.fingerprint != made.load().fingerprint
