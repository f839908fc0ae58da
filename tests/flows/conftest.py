"""An empty store, and tiny stages that need neither images nor networks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows import tiny_stages
from tlcore.stages import base


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The root of an empty run store."""
    root = tmp_path / "store"
    root.mkdir()
    return root.resolve()


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stages are those of tests/flows/tiny_stages.py."""
    monkeypatch.setattr(base, "STAGES", tiny_stages.STAGES)
    tiny_stages.CALLS.clear()
    yield
    tiny_stages.CALLS.clear()
