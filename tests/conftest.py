from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Before anything loads OpenMP: threads that spin while they wait slow each other down on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Test processes side by side, each with a thread per processor, would wait for each other.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "tests" / "example_plugin"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and weights; mark the test `@pytest.mark.shared`."""
    folder = Path(os.environ.get("TLCORE_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real photographs at {folder}; set TLCORE_SHARED to the folder that holds data/")
    return folder


@pytest.fixture
def tlcore_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the test's own, for this process and its children."""
    folder = tmp_path / "store"
    monkeypatch.setenv("TLCORE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def plugin_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the index of the built-in strategies: examining all of them takes ten times as long."""
    from tlcore.registry import Registry

    folder = tmp_path_factory.mktemp("plugin_index")
    Registry.discover(cache_folder=folder, block=())
    return folder


@dataclass(frozen=True)
class PrefectDatabase:
    """An empty database of Prefect with all its tables: making one takes longer than a run on tiny images."""

    file: Path

    def copy_to(self, home: Path) -> None:
        """Put one into the folder that a server takes as PREFECT_HOME."""
        home.mkdir(parents=True, mode=0o700)
        shutil.copy(self.file, home / "prefect.db")


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> PrefectDatabase:
    """Made by the first server of the first test process that asks, for all of them."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    made = place / "prefect.db"
    with (place / "prefect.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            home = tmp_path_factory.mktemp("first") / "prefect"
            with _server(home):
                pass
            with contextlib.closing(sqlite3.connect(home / "prefect.db")) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            shutil.move(home / "prefect.db", made)
    return PrefectDatabase(made)


@contextlib.contextmanager
def _server(home: Path) -> Iterator[tuple[str, str]]:
    """A Prefect server with its files in `home`: its API's URL and its secret."""
    from tlcore_flows import server

    server.quiet_environment()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PREFECT_HOME", str(home))
        with server.local_server(home.parent) as (url, secret, wait):
            patched.undo()
            wait()
            yield url, secret


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Prefect keeps what it keeps: not in the home of who runs the tests."""
    return tmp_path_factory.mktemp("prefect") / "home"


@pytest.fixture(scope="session")
def prefect_api(prefect_home: Path, prefect_database: PrefectDatabase) -> Iterator[dict[str, str]]:
    """A server for all tests of this process that do not look at servers: the environment that leads to it."""
    prefect_database.copy_to(prefect_home)
    with _server(prefect_home) as (url, secret):
        yield {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": secret}


@pytest.fixture(scope="session")
def prefect_server(prefect_api: dict[str, str], prefect_home: Path) -> Iterator[None]:
    """Flows of this process run against the server of the tests; without the second-long heartbeat."""
    from prefect import settings
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    local = {
        settings.PREFECT_HOME: prefect_home,
        settings.PREFECT_LOCAL_STORAGE_PATH: prefect_home / "storage",
        settings.PREFECT_API_URL: prefect_api["PREFECT_API_URL"],
        settings.PREFECT_API_AUTH_STRING: prefect_api["PREFECT_API_AUTH_STRING"],
        settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with settings.temporary_settings(local):
        yield
        for worker in (APILogWorker, EventsWorker):
            with contextlib.suppress(RuntimeError):  # it was never started
                worker.drain_all(timeout=5)


@pytest.fixture(scope="session")
def example_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that tests/example_plugin is installed in, as a stranger's package: put it on sys.path or PYTHONPATH."""
    if not (EXAMPLE / "pyproject.toml").is_file():
        pytest.fail(f"the example package is missing: {EXAMPLE / 'pyproject.toml'}")
    folder = tmp_path_factory.mktemp("example_plugin")
    # a build may leave files beside the source: build from a copy
    source = shutil.copytree(
        EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "dist")
    )
    target = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"pip could not install the example package:\n{done.stdout}{done.stderr}"
    return target
