from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from tlcore.training.resume import _Writer, load_state, save_state

STATE = {"weight": torch.arange(300_000.0).view(300, 1000), "plain": {"step": 3, "name": "x"}}


def test_what_is_kept_is_found_again_bit_for_bit(tmp_path: Path) -> None:
    save_state(tmp_path, STATE)
    found = load_state(tmp_path)
    assert found is not None and found["plain"] == STATE["plain"]
    assert torch.equal(found["weight"], STATE["weight"])
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_as_one() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file:
        writer = _Writer(file)
        with pytest.raises(Exception):  # noqa: B017 - torch's own, of whatever kind
            torch.save(STATE, writer)  # type: ignore[arg-type]
    assert writer.failed is not None and writer.failed.errno == errno.ENOSPC
