from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tlcore.data.checking import apply_report
from tlcore.data.schema import SCHEMA, combine
from tlcore.errors import UserError
from tlcore.protocols import CheckLimits
from tlcore.values import DataReport, Dataset, Problem
from tlcore_data.image_folder import ImageFolder
from tlcore_data.image_table import ImageTable


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def pictures(root: Path, counts: dict[str, int]) -> Path:
    """Different images: {"train/a": 4} makes train/a/0.png … train/a/3.png."""
    seed = 0
    for folder, count in counts.items():
        for index in range(count):
            picture(root / folder / f"{index}.png", seed)
            seed += 1
    return root


def check(root: Path, **limits: int) -> DataReport:
    return ImageTable().check(combine(ImageFolder(path=str(root)).load()), CheckLimits(**limits))


def find(report: DataReport, code: str) -> Problem:
    found = [problem for problem in report.problems if problem.code == code]
    assert len(found) == 1, [problem.code for problem in report.problems]
    return found[0]


def test_a_clean_folder_has_no_problems_and_a_full_report(tmp_path: Path) -> None:
    report = check(pictures(tmp_path, {"train/a": 4, "train/b": 3, "test/a": 2, "test/b": 1}))
    assert report.problems == ()
    assert (report.rows, report.dropped, report.classes) == (10, 0, ("a", "b"))
    assert report.counts == {"source/train": {"a": 4, "b": 3}, "source/test": {"a": 2, "b": 1}}
    assert report.modes == {"RGB": 10}
    assert report.sizes == {
        "width_min": 40, "width_median": 40, "width_max": 40,
        "height_min": 30, "height_median": 30, "height_max": 30,
    }  # fmt: skip


def test_every_kind_of_unusable_file_is_named_with_its_reason(tmp_path: Path) -> None:
    root = pictures(tmp_path, {"a": 5, "b": 5})
    whole = picture(root / "a" / "cut.jpg", 90, (300, 200)).read_bytes()
    (root / "a" / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (root / "a" / "text.jpg").write_text("no image at all")
    (root / "b" / "nothing.jpg").touch()
    picture(root / "b" / "large.png", 91, (300, 300))
    report = check(root, max_pixels=60_000)
    expected = {
        "truncated-file": "a/cut.jpg",
        "not-an-image-file": "a/text.jpg",
        "empty-file": "b/nothing.jpg",
        "too-large-file": "b/large.png",
    }
    for code, sample in expected.items():
        problem = find(report, code)
        assert (problem.severity, problem.count, problem.rows) == ("error", 1, (sample,))
        assert problem.examples[0].startswith(f"{sample}: ")
    assert (report.rows, report.dropped) == (10, 4)
    dataset = combine(ImageFolder(path=str(root)).load())
    with pytest.raises(UserError, match="4 of 14 images cannot be used"):
        apply_report(dataset, report, max_bad_share=0.01)
    assert apply_report(dataset, report, max_bad_share=0.3).table.height == 10


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    dataset = ImageFolder(path=str(pictures(tmp_path, {"a": 3, "b": 3}))).load()
    (tmp_path / "a" / "1.png").unlink()
    report = ImageTable().check(dataset, CheckLimits())
    assert find(report, "missing-file").examples == ("a/1.png: no such file",)


def test_copies_across_splits_cost_the_copy_nearer_to_training(tmp_path: Path) -> None:
    root = pictures(tmp_path, {"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 2, "test/a": 2, "test/b": 2})
    (root / "train/a/leak.png").write_bytes((root / "test/a/0.png").read_bytes())
    (root / "val/b/leak.png").write_bytes((root / "test/b/1.png").read_bytes())
    (root / "train/b/leak.png").write_bytes((root / "val/b/0.png").read_bytes())
    report = check(root)
    leak = find(report, "leak")
    assert (leak.severity, leak.count) == ("warning", 3)
    assert set(leak.rows) == {"train/a/leak.png", "val/b/leak.png", "train/b/leak.png"}
    assert "train/a/leak.png = test/a/0.png" in leak.examples
    assert report.dropped == 3


def test_copies_inside_a_split_are_information_only(tmp_path: Path) -> None:
    root = pictures(tmp_path, {"a": 4, "b": 4})
    (root / "a" / "copy.png").write_bytes((root / "a" / "0.png").read_bytes())
    problem = find(check(root), "copies")
    assert (problem.severity, problem.examples, problem.rows) == ("info", ("a/0.png = a/copy.png",), ())


def test_the_same_image_in_two_classes_is_a_warning_that_names_both(tmp_path: Path) -> None:
    root = pictures(tmp_path, {"a": 4, "b": 4})
    (root / "b" / "twin.png").write_bytes((root / "a" / "0.png").read_bytes())
    problem = find(check(root), "label-conflict")
    assert problem.severity == "warning"
    assert problem.examples == ("a/0.png (a) = b/twin.png (b)",)


@pytest.mark.parametrize(
    ("counts", "code", "example"),
    [
        ({"ants": 5}, "one-class", "ants"),
        ({"ants": 5, "bees": 1}, "small-class", "bees: 1"),
        ({"train/ants": 5, "test/ants": 3, "test/bee": 3}, "class-not-in-split", "bee"),
    ],
)
def test_classes_that_cannot_be_learnt_stop_the_run(
    tmp_path: Path, counts: dict[str, int], code: str, example: str
) -> None:
    root = pictures(tmp_path, counts)
    report = check(root)
    problem = find(report, code)
    assert (problem.severity, problem.examples, problem.rows) == ("error", (example,), ())
    with pytest.raises(UserError, match=example):
        apply_report(ImageFolder(path=str(root)).load(), report, max_bad_share=0.5)


def test_two_copies_of_one_image_are_a_class_of_one(tmp_path: Path) -> None:
    root = pictures(tmp_path, {"a": 4, "b": 1})
    (root / "b" / "copy.png").write_bytes((root / "b" / "0.png").read_bytes())
    assert find(check(root), "small-class").examples == ("b: 1",)


def test_a_class_of_unusable_files_alone_is_seen_to_be_empty(tmp_path: Path) -> None:
    root = pictures(tmp_path, {"a": 4, "b": 4, "c": 1})
    (root / "c" / "0.png").write_bytes(b"")
    assert find(check(root), "small-class").examples == ("c: 0",)


def test_a_class_missing_from_test_is_a_warning(tmp_path: Path) -> None:
    problem = find(check(pictures(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 3})), "class-not-in-split")
    assert (problem.severity, problem.examples) == ("warning", ("b",))
    assert problem.message.endswith("test")


def test_imbalance_tiny_images_and_wrong_endings_are_reported(tmp_path: Path) -> None:
    root = pictures(tmp_path, {"a": 30, "b": 3})
    picture(root / "a" / "small.png", 77, (9, 50))
    picture(root / "a" / "lie.png", 78).rename(root / "a" / "lie.jpg")
    report = check(root)
    assert find(report, "imbalance").examples == ("a: 32", "b: 3")
    assert find(report, "tiny-image").examples == ("a/small.png: 9 x 50",)
    assert find(report, "wrong-ending").examples == ("a/lie.jpg: PNG",)
    assert report.dropped == 0


def test_target_images_have_no_say_about_classes(tmp_path: Path) -> None:
    source = pictures(tmp_path / "s", {"a": 3, "b": 3})
    target = tmp_path / "t"
    for index in range(3):
        picture(target / f"{index}.png", 500 + index)
    both = combine(ImageFolder(path=str(source)).load(), ImageFolder(path=str(target), labelled=False).load())
    report = ImageTable().check(both, CheckLimits())
    assert report.problems == ()
    assert report.counts["target/none"] == {"(no label)": 3}


def test_source_rows_without_a_label_are_dropped_and_none_with_one_is_an_error(tmp_path: Path) -> None:
    dataset = ImageFolder(path=str(pictures(tmp_path, {"a": 3, "b": 3}))).load()
    some = pl.when(pl.col("sample_id") == "a/0.png").then(None).otherwise(pl.col("label")).alias("label")
    partly = Dataset("d", dataset.table.with_columns(some), dataset.classes)
    assert find(ImageTable().check(partly, CheckLimits()), "unlabelled").rows == ("a/0.png",)
    bare = Dataset("d", dataset.table.with_columns(pl.lit(None, pl.String).alias("label")), ())
    report = ImageTable().check(bare, CheckLimits())
    assert find(report, "no-labels").severity == "error"
    assert report.dropped == 0


def test_a_broken_schema_is_reported_rule_by_rule() -> None:
    table = pl.DataFrame(
        {
            "sample_id": ["x", "x", "y"],
            "uri": ["/1.png", None, " "],
            "label": ["a", "", "b"],
            "split": ["train", "dev", None],
            "domain": ["source"] * 3,
            "sha256": ["", "0" * 64, "zz"],
        },
        schema=SCHEMA,
    )
    report = ImageTable().check(Dataset("d", table, ("a", "b")), CheckLimits())
    found = {problem.code: problem for problem in report.problems}
    assert set(found) == {
        "schema-sample_id-field-uniqueness", "schema-uri-not-nullable", "schema-uri-not-blank",
        "schema-label-not-blank", "schema-split-split-name", "schema-sha256-sha256-digest",
    }  # fmt: skip
    assert {problem.severity for problem in report.problems} == {"error"}
    assert found["schema-sample_id-field-uniqueness"].examples == ("row 1: x", "row 2: x")
    assert found["schema-uri-not-nullable"].examples == ("row 2",)
    assert found["schema-split-split-name"].message == (
        'values of the column "split" that are other than train, val, test'
    )
    with pytest.raises(UserError, match="dev"):
        apply_report(Dataset("d", table, ("a", "b")), report, max_bad_share=1.0)


def test_wrong_columns_and_types_are_reported() -> None:
    table = pl.DataFrame(
        {"sample_id": [1], "uri": ["/1"], "label": ["a"], "split": ["train"], "domain": ["s"], "x": [0]}
    )
    codes = {problem.code for problem in ImageTable().check(Dataset("d", table, ()), CheckLimits()).problems}
    assert codes == {"schema-missing-column", "schema-unknown-column", "schema-sample_id-type"}


def test_no_rows_is_an_error() -> None:
    report = ImageTable().check(Dataset("d", pl.DataFrame(schema=SCHEMA), ()), CheckLimits())
    assert find(report, "no-rows").severity == "error"
