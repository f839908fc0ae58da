from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tlcore.data.folder import read_folder
from tlcore.errors import UserError
from tlcore_data.digits import Digits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "digits"
    Digits(path=str(path)).load()
    return path


def test_ten_scans_a_class_are_for_training_and_the_rest_is_halved(folder: Path) -> None:
    table = Digits(path=str(folder)).load().table
    assert table.height == 1797
    counts = {(label, split): n for label, split, n in table.group_by("label", "split").len().rows()}
    for digit in range(10):
        assert counts[str(digit), "train"] == 10
        assert abs(counts[str(digit), "val"] - counts[str(digit), "test"]) <= 1


def test_the_files_are_the_scans(folder: Path) -> None:
    scans = load_digits()
    for path in sorted(folder.glob("*/*/*.png"))[::97]:
        number = int(path.stem)
        assert path.parent.name == str(scans.target[number])
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((32, 32), "L")
            back = np.asarray(image.resize((8, 8), Image.Resampling.BOX)).astype(float)
        assert np.corrcoef(back.ravel(), scans.images[number].ravel())[0, 1] > 0.97


def test_it_is_read_as_any_folder_and_written_once(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    loaded = Digits(path=str(folder)).load()
    assert loaded.table.equals(read_folder(str(folder)).table)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before
    assert not (folder.parent / ".digits.partial").exists()


@pytest.mark.slow
def test_the_same_seed_writes_the_same_bytes_even_over_a_broken_attempt(folder: Path, tmp_path: Path) -> None:
    left = tmp_path / ".again.partial" / "train" / "0"
    left.mkdir(parents=True)
    (left / "half.png").touch()

    def digest(dataset_path: Path) -> str:
        table = Digits(path=str(dataset_path)).load().table
        return hashlib.sha256("".join(table["sample_id"] + table["sha256"]).encode()).hexdigest()

    assert digest(tmp_path / "again") == digest(folder)


def test_a_folder_of_something_else_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="something else lies here"):
        Digits(path=str(tmp_path)).load()
    with pytest.raises(UserError, match="written with other options"):
        Digits(path=str(folder), per_class=5).load()


def test_a_place_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        Digits(path=str(tmp_path / "file" / "digits")).load()
