from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tlcore.data.folder import read_folder
from tlcore.errors import UserError

Rows = list[tuple[str, str | None, str | None]]


def lay(root: Path, *names: str) -> Path:
    """Files by name; the reader never opens them, so any bytes do."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def rows(root: Path, **options: bool | str) -> Rows:
    table = read_folder(str(root), **options).table  # type: ignore[arg-type]
    assert all(Path(uri).is_absolute() for uri in table["uri"])
    return table.select("sample_id", "label", "split").rows()


def test_a_folder_per_class_without_splits(tmp_path: Path) -> None:
    lay(tmp_path, "bee/2.jpg", "ant/1.PNG", "ant/deep/er/3.webp")
    assert rows(tmp_path) == [
        ("ant/1.PNG", "ant", None),
        ("ant/deep/er/3.webp", "ant", None),
        ("bee/2.jpg", "bee", None),
    ]
    assert read_folder(str(tmp_path)).classes == ("ant", "bee")
    assert read_folder(str(tmp_path)).name == tmp_path.name


def test_splits_above_the_classes_under_all_their_names(tmp_path: Path) -> None:
    lay(tmp_path, "train/a/1.jpg", "Test/a/2.jpg", "valid/a/3.jpg", "validation/b/4.jpg", "val/b/5.jpg")
    assert {(sample, split) for sample, _, split in rows(tmp_path)} == {
        ("train/a/1.jpg", "train"),
        ("Test/a/2.jpg", "test"),
        ("valid/a/3.jpg", "val"),
        ("validation/b/4.jpg", "val"),
        ("val/b/5.jpg", "val"),
    }


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    lay(tmp_path, "train/1.jpg", "bus/2.jpg")
    assert [row[1:] for row in rows(tmp_path)] == [("bus", None), ("train", None)]


def test_split_folders_beside_class_folders_are_refused(tmp_path: Path) -> None:
    lay(tmp_path, "train/a/1.jpg", "extra/2.jpg")
    with pytest.raises(UserError, match=r"split folders \(train\) lie beside other folders \(extra\)"):
        rows(tmp_path)


def test_hidden_files_and_other_files_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lay(tmp_path, "a/1.jpg", "a/.2.jpg", ".git/x/3.jpg", "a/notes.txt", "README.md", "b/4.jpg", "docs/x.txt")
    with caplog.at_level(logging.WARNING):
        assert [row[0] for row in rows(tmp_path)] == ["a/1.jpg", "b/4.jpg"]
    assert "ignored 3 files" in caplog.text
    assert "2 .txt" in caplog.text
    assert "folders without images: docs" in caplog.text


def test_a_text_file_named_jpg_stays_in_the_table(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.jpg")
    assert len(read_folder(str(tmp_path)).table["sha256"][0]) == 64


def test_a_flat_folder_needs_labelled_false(tmp_path: Path) -> None:
    lay(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(UserError, match="no class folders") as caught:
        rows(tmp_path)
    assert "FOLDER/CLASS/image.jpg" in caught.value.hint
    assert rows(tmp_path, labelled=False) == [("1.jpg", None, None), ("2.jpg", None, None)]


def test_images_beside_class_folders_are_named(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.jpg", "b/2.jpg", "cover.jpg")
    with pytest.raises(UserError, match="1 images lie outside the class folders: cover.jpg"):
        rows(tmp_path)
    assert {row[1] for row in rows(tmp_path, labelled=False)} == {None}


def test_a_target_with_class_folders_keeps_its_labels(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.jpg", "b/2.jpg")
    assert [row[1] for row in rows(tmp_path, labelled=False)] == ["a", "b"]
    assert [row[1] for row in rows(tmp_path, folders="ignored")] == [None, None]


def test_an_unlabelled_target_may_have_splits(tmp_path: Path) -> None:
    lay(tmp_path, "train/1.jpg", "test/2.jpg")
    assert rows(tmp_path, labelled=False) == [("test/2.jpg", None, "test"), ("train/1.jpg", None, "train")]
    with pytest.raises(UserError, match="no class folders"):
        rows(tmp_path)


def test_a_missing_folder_offers_its_nearest_sibling(tmp_path: Path) -> None:
    (tmp_path / "hymenoptera").mkdir()
    with pytest.raises(UserError, match="no such folder") as caught:
        read_folder(str(tmp_path / "hymenopter"))
    assert f'did you mean "{tmp_path / "hymenoptera"}"' in caught.value.what


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    lay(tmp_path, "a.jpg")
    with pytest.raises(UserError, match="not a folder"):
        read_folder(str(tmp_path / "a.jpg"))


@pytest.mark.parametrize("path", ["", "  ", "a\0b"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="not a path"):
        read_folder(path)


def test_an_empty_folder_says_what_it_holds_and_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images in this folder") as caught:
        rows(tmp_path)
    assert ".jpg" in caught.value.choices
    lay(tmp_path, "a/1.heic", "a/2.heic")
    with pytest.raises(UserError, match="it holds 2 .heic"):
        rows(tmp_path)


def test_a_link_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    lay(tmp_path / "outside", "secret.jpg")
    root = lay(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    (root / "b" / "3.jpg").symlink_to(tmp_path / "outside" / "secret.jpg")
    (root / "c").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="2 links leave the folder: b/3.jpg, c"):
        rows(root)


def test_links_inside_the_root_are_safe(tmp_path: Path) -> None:
    root = lay(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    (root / "a" / "again.jpg").symlink_to(root / "a" / "1.jpg")
    (root / "b" / "loop").symlink_to(root)
    assert [row[0] for row in rows(root)] == ["a/1.jpg", "a/again.jpg", "b/2.jpg"]
    (tmp_path / "link").symlink_to(root)
    assert len(rows(tmp_path / "link")) == 3


def test_a_name_that_no_table_can_hold_is_refused(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/caf\xe9.jpg")).touch()
    with pytest.raises(UserError, match="cannot be shown") as caught:
        rows(tmp_path)
    str(caught.value).encode()
