"""README.md says what is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tlcore.report.document import RUN_SCHEMA

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TLCORE = Path(sys.executable).with_name("tlcore")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_first_screen_gives_exactly_the_two_commands() -> None:
    commands = [line.split("#")[0].strip() for line in blocks("sh")[0].splitlines()]
    assert commands == ["make demo", "make test"]


def test_every_command_is_run_by_ci() -> None:
    """make targets by .ci/run; tlcore commands by tests/end_to_end/test_readme_commands.py, which reads them from here."""
    script = (ROOT / ".ci" / "run").read_text()
    for line in "\n".join(blocks("sh")).splitlines():
        command = line.split("#")[0].strip()
        if not command:
            continue
        assert command in script if command.startswith("make ") else command.startswith(".venv/bin/tlcore ")


def test_the_table_of_strategies_is_the_one_that_is_generated() -> None:
    made = subprocess.run(
        [TLCORE, "plugins", "--markdown"], capture_output=True, text=True, check=True
    ).stdout.strip()
    shown = README.partition("<!-- strategies -->")[2].partition("<!-- /strategies -->")[0].strip()
    assert shown == made


def test_the_json_example_fits_the_schema() -> None:
    (example,) = blocks("json")
    jsonschema.validate(json.loads(example), RUN_SCHEMA)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_every_link_leads_somewhere(target: str) -> None:
    assert target.startswith("https://") or (ROOT / target).is_file()


def test_nothing_is_left_to_fill_in() -> None:
    assert re.findall(r"<!--(?! /?strategies)", README) == []
