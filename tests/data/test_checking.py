from __future__ import annotations

import pytest

from tlcore.data.checking import apply_report
from tlcore.data.schema import image_table
from tlcore.errors import UserError
from tlcore.values import DataReport, Dataset, Problem


def dataset(count: int = 100) -> Dataset:
    ids = [f"{index}.jpg" for index in range(count)]
    return image_table("photos", sample_ids=ids, uris=ids, labels=["a"] * count, splits=[None] * count)


def truncated(*numbers: int) -> Problem:
    names = tuple(f"{number}.jpg" for number in numbers)
    return Problem(
        code="truncated-file",
        severity="error",
        message="truncated images",
        count=len(names),
        examples=tuple(f"{name}: truncated file" for name in names[:5]),
        rows=names,
    )


def test_unusable_rows_up_to_the_share_are_dropped() -> None:
    kept = apply_report(dataset(), DataReport(problems=(truncated(3),)), max_bad_share=0.01)
    assert kept.table.height == 99
    assert "3.jpg" not in kept.table["sample_id"]


def test_more_unusable_files_than_allowed_stop_the_run_by_name() -> None:
    empty = Problem(
        code="empty-file",
        severity="error",
        message="empty files",
        examples=("99.jpg: empty file",),
        rows=("99.jpg",),
    )
    report = DataReport(problems=(truncated(*range(7)), empty))
    with pytest.raises(UserError) as caught:
        apply_report(dataset(), report, max_bad_share=0.05)
    assert caught.value.what.startswith("8 of 100 images cannot be used (8.0%; allowed: 5.0%)")
    assert "0.jpg: truncated file" in caught.value.what
    assert "99.jpg: empty file" in caught.value.what
    assert "4.jpg" not in caught.value.what
    assert "data.max_bad_share" in caught.value.hint
    assert "--max-bad-share 0.08" in caught.value.hint
    assert apply_report(dataset(), report, max_bad_share=0.08).table.height == 92


def test_leaking_copies_are_dropped_and_do_not_count_as_unusable() -> None:
    leak = Problem(code="leak", severity="warning", message="leak", rows=tuple(f"{n}.jpg" for n in range(40)))
    assert apply_report(dataset(), DataReport(problems=(leak,)), max_bad_share=0.0).table.height == 60


def test_an_error_that_no_dropping_mends_stops_the_run() -> None:
    one = Problem(code="one-class", severity="error", message="only one class", examples=("ants",))
    with pytest.raises(UserError, match=r"photos: only one class \(ants\)"):
        apply_report(dataset(), DataReport(problems=(one,)), max_bad_share=1.0)


def test_warnings_without_rows_change_nothing() -> None:
    data = dataset()
    tiny = Problem(code="tiny-image", severity="warning", message="tiny images")
    assert apply_report(data, DataReport(problems=(tiny,)), max_bad_share=0.0) is data
