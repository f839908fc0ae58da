from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tlcore.data.folder import read_folder
from tlcore_data.image_folder import ImageFolder, tlcore_data_sources


def test_the_strategy_reads_as_the_shared_reader(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(name.encode())
    loaded = ImageFolder(path=str(tmp_path)).load()
    assert loaded.table.equals(read_folder(str(tmp_path)).table)
    assert ImageFolder(path=str(tmp_path), folders="ignored").load().classes == ()
    assert tlcore_data_sources() == [ImageFolder]


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValidationError, match="shuffle"):
        ImageFolder(path="x", shuffle=True)  # type: ignore[call-arg]
