"""The self-description of an exported file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.errors import UserError
from tlcore.export.metadata import FileMetadata, read_properties, write_properties
from tlcore.values import Preprocess

RULE = Preprocess(height=64, width=48, resize="squash", crop_pct=0.9, interpolation="bicubic")


@given(
    classes=st.lists(st.text(), min_size=1, max_size=5).map(tuple),
    extra=st.dictionaries(st.text().filter(lambda key: not key.startswith("tlcore.")), st.text(), max_size=3),
    run_id=st.text(),
)
def test_what_is_written_is_read_back(classes: tuple[str, ...], extra: dict[str, str], run_id: str) -> None:
    metadata = FileMetadata(classes=classes, preprocess=RULE, run_id=run_id, extra=extra)
    properties = write_properties(metadata)
    assert all(isinstance(value, str) for value in properties.values())
    assert read_properties(properties, "model.onnx") == metadata


def test_a_file_without_our_metadata_is_refused_with_the_way_on() -> None:
    with pytest.raises(UserError, match="no tlcore metadata") as caught:
        read_properties({"author": "somebody"}, "other.onnx")
    assert caught.value.where == "other.onnx"
    assert "tlcore runs" in caught.value.hint


def test_another_layout_names_both_versions() -> None:
    properties = write_properties(FileMetadata(classes=("a",), preprocess=RULE, tlcore_version="9.9"))
    with pytest.raises(UserError, match="layout '2', written by tlcore 9.9"):
        read_properties({**properties, "tlcore.format": "2"}, "model.onnx")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tlcore.classes", "not json"),
        ("tlcore.classes", "[]"),
        ("tlcore.classes", "3"),
        ("tlcore.preprocess", "{}"),
        ("tlcore.colour_order", "BGR"),
    ],
)
def test_damaged_metadata_is_a_user_error(key: str, value: str) -> None:
    properties = write_properties(FileMetadata(classes=("a",), preprocess=RULE))
    with pytest.raises(UserError, match="cannot be read"):
        read_properties({**properties, key: value}, "model.onnx")
    del properties[key]
    with pytest.raises(UserError, match="cannot be read"):
        read_properties(properties, "model.onnx")


def test_reserved_keys_are_refused() -> None:
    with pytest.raises(UserError, match="tlcore.classes"):
        write_properties(FileMetadata(classes=("a",), preprocess=RULE, extra={"tlcore.classes": "x"}))
