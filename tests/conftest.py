from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Before anything loads OpenMP: threads that spin while they wait slow each other down on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
