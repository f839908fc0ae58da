from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tlcore.registry import Entry, Registry

SCORER = """
from typing import ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Scorer


class Sample(Scorer):
    card: ClassVar[Card] = Card(name="NAME", summary="A constant.", reference="none, a sample")
    weight: float = Field(1.0, gt=0, description="the constant")

    def score(self, evidence):
        return self.weight


@hookimpl
def tlcore_scorers():
    return [Sample]
"""


class Site:
    """A folder on sys.path into which a test installs distributions, as pip leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        distribution: str,
        files: dict[str, str],
        points: dict[str, str] | str,
        *,
        version: str = "1.0",
        folder: Path | None = None,
    ) -> None:
        """Write `files` (path: text) and the distribution's metadata; `points` are entry points, or their file's text."""
        place = folder or self.folder
        self.write(files, place)
        info = place / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = points if isinstance(points, str) else "\n".join(f"{k} = {v}" for k, v in points.items())
        (info / "entry_points.txt").write_text(f"[tlcore]\n{lines}\n")
        importlib.invalidate_caches()

    def write(self, files: dict[str, str], folder: Path | None = None) -> None:
        for path, text in files.items():
            file = (folder or self.folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def scorer(self, name: str, old: str = "", new: str = "") -> str:
        """Source of a module with a scorer of that name, `old` replaced by `new`."""
        assert old in SCORER
        return (SCORER.replace(old, new) if old else SCORER).replace("NAME", name)

    def module(
        self, source: str, *, distribution: str = "stranger", module: str = "stranger_module"
    ) -> list[Entry]:
        """What is listed of one distribution with one module of this source."""
        self.install(distribution, {f"{module}.py": source}, {"it": module})
        return self.listed(distribution)

    def listed(self, distribution: str = "stranger", registry: Registry | None = None) -> list[Entry]:
        return [one for one in (registry or self.discover()).entries if one.distribution == distribution]

    def discover(self) -> Registry:
        """What strangers installed; the built-ins are kept out, since examining each of them takes its time."""
        return Registry.discover(block=["tlcore", *os.environ.get("TLCORE_BLOCK_PLUGINS", "").split(",")])

    def forget(self) -> None:
        """Drop what was imported from here, as a new process would."""
        for name, module in list(sys.modules.items()):
            known = vars(module) if isinstance(module, ModuleType) else {}  # torch.classes invents attributes
            places = [known.get("__file__"), *known.get("__path__", [])]
            if any(str(place).startswith(str(self.folder.parent)) for place in places):
                del sys.modules[name]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.delenv("TLCORE_BLOCK_PLUGINS", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    place = Site(folder)
    yield place
    place.forget()
