"""The README's own commands, as they are typed, in a folder with photos/ and weights/."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Command

pytestmark = pytest.mark.slow

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\.venv/bin/tlcore (.*)$", README, re.MULTILINE)


def test_the_commands_of_the_readme_work(
    command: Callable[..., Command], photos: Path, zoo: Path, tmp_path: Path
) -> None:
    zoo.rename(tmp_path / "weights")
    tlcore = command()
    shown = []
    for line in COMMANDS:
        done = tlcore(*line.split())
        assert done.returncode == 0, done.stderr
        shown.append(done.stdout)
    assert "card.html" in shown[0] and "card.html" in shown[1] and "Shortlist:" in shown[2]
    assert COMMANDS == [
        "run --data photos --models local:weights",
        "run --data photos --models local:weights --budget 10m",
        "rank --data photos --models local:weights --runner dask --workers 2 --shards 2",
    ]
