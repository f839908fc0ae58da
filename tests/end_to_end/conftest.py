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
def command(tmp_path: Path) -> Callable[..., Command]:
    """Makes a command on the store `name`; keyword arguments go into its environment."""

    def make(name: str = "store", **extra: str) -> Command:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "TLCORE"))}
        home = tmp_path / name
        return Command(
            home, {**kept, "TLCORE_HOME": str(home), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path), **extra}
        )

    return make


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", 12, seed=0)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return write_images(tmp_path / "target", 8, seed=5, offset=25)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    return write_zoo(tmp_path / "zoo")
