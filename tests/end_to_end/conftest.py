"""Whole runs through the installed command, on tiny images and tiny networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PrefectDatabase
from tests.stages.conftest import write_images, write_zoo

TLCORE = Path(sys.executable).with_name("tlcore")


@dataclass(frozen=True)
class Command:
    """`tlcore …` in a process of its own, with one store."""

    home: Path
    environment: dict[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(TLCORE), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment,
            stdin=subprocess.DEVNULL, cwd=self.home.parent,
        )  # fmt: skip

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=280)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *arguments: str) -> dict[str, Any]:
        """The one document on stdout of a command that succeeds."""
        done = self(*arguments, "--json")
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        document: dict[str, Any] = json.loads(done.stdout)
        return document


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What every command sees: nothing of the settings and the home of who runs the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "TLCORE"))}
    return {**kept, "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}


@pytest.fixture
def command(
    tmp_path: Path, environment: dict[str, str], prefect_api: dict[str, str]
) -> Callable[..., Command]:
    """Makes a command on the store `name` of a user who has a Prefect server; keyword arguments go into its environment."""

    def make(name: str = "store", **extra: str) -> Command:
        home = tmp_path / name
        return Command(home, {**environment, **prefect_api, "TLCORE_HOME": str(home), **extra})

    return make


@pytest.fixture
def lone_command(
    tmp_path: Path, environment: dict[str, str], prefect_database: PrefectDatabase
) -> Callable[..., Command]:
    """Makes a command on the store `name` that starts a server of its own, which finds its database made."""

    def make(name: str = "store", **extra: str) -> Command:
        home = tmp_path / name
        if not home.exists():
            home.mkdir(mode=0o700)
            prefect_database.copy_to(home / "prefect")
        return Command(home, {**environment, "TLCORE_HOME": str(home), **extra})

    return make


@pytest.fixture
def inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prefect_server: None
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same command line, with all that it does, in the process of the test: nothing is imported again."""
    from tlcore_flows import cli

    monkeypatch.setenv("TLCORE_HOME", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = cli.run(list(arguments))
        shown = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, shown.out, shown.err)

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", 12, seed=0)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return write_images(tmp_path / "target", 8, seed=5, offset=25)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    return write_zoo(tmp_path / "zoo")
