"""One Prefect server for all tests of the flows, and tiny stages that need neither images nor networks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows import tiny_stages
from tlcore.stages import base
from tlcore_flows import server


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Prefect keeps what it keeps: not in the home of who runs the tests."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def prefect_server(prefect_home: Path) -> Iterator[None]:
    """Flows run against a temporary server with a database of its own; without the second-long heartbeat."""
    server.quiet_environment()
    from prefect.settings import (
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_LOCAL_STORAGE_PATH,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    home = {PREFECT_HOME: prefect_home, PREFECT_LOCAL_STORAGE_PATH: prefect_home / "storage"}
    with (
        temporary_settings(home),
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


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
