"""The command line as a whole: help, exit codes, errors, what goes to which stream."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tlcore_flows import cli, cli_plugins

HEAVY = ("prefect", "torch", "timm", "polars", "matplotlib", "onnxruntime", "sklearn", "scipy", "pandera")


def in_a_process(code: str, *, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TLCORE_HOME": str(folder / "store"), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["plugins"],
        ["plugins", "show", "logme"],
        ["runs"],
        ["run", "--help"],
        ["predict", "--help"],
        ["run", "--data", "nowhere", "--models", "local:nowhere"],
    ],
)
def test_what_must_answer_at_once_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from tlcore_flows import cli; code = cli.run(sys.argv[1:] or " + repr(arguments) + ");"
        f"print('imported:', *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
    )
    done = in_a_process(code, folder=tmp_path)
    assert done.stderr.splitlines()[-1].strip() == "imported:"


@pytest.mark.slow
def test_a_table_is_as_wide_as_the_environment_says(
    tlcore: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert max(len(line) for line in tlcore("plugins").out.splitlines()) <= width
    monkeypatch.delenv("COLUMNS")
    assert 120 < max(len(line) for line in tlcore("plugins").out.splitlines()) <= 160


def test_the_help_names_every_command(tlcore: Callable[..., Any]) -> None:
    outcome = tlcore("--help")
    assert outcome.code == 0
    assert all(name in outcome.out for name in cli.COMMANDS)


def test_without_a_command_the_help_is_shown(tlcore: Callable[..., Any]) -> None:
    outcome = tlcore()
    assert outcome.code == 0
    assert "Usage" in outcome.out


def test_the_version_is_that_of_the_package(tlcore: Callable[..., Any]) -> None:
    import tlcore as package

    assert tlcore("--version").out == f"tlcore {package.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["run", "--modles", "x"], ["run", "--seed", "many"], ["predict"]]
)
def test_a_wrong_command_or_flag_exits_with_2_and_names_the_help(
    arguments: list[str], tlcore: Callable[..., Any]
) -> None:
    outcome = tlcore(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert "--help" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_wrong_flag_with_json_is_one_document(tlcore: Callable[..., Any]) -> None:
    outcome = tlcore("run", "--json", "--modles", "x")
    assert outcome.code == 2
    error = json.loads(outcome.out)["error"]
    assert sorted(error) == ["choices", "hint", "what", "where"]
    assert "--modles" in error["what"]


def broken(*arguments: object, **options: object) -> None:
    raise ZeroDivisionError("a bug [bold]here[/bold]")


def test_a_bug_is_one_line_without_a_traceback(
    tlcore: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_plugins, "_registry", broken)
    outcome = tlcore("plugins")
    assert outcome.code == 1
    assert "a bug in tlcore: ZeroDivisionError: a bug [bold]here[/bold]" in outcome.err
    assert "--debug" in outcome.err
    assert "Traceback" not in outcome.err


def test_debug_shows_the_traceback_of_a_bug(
    tlcore: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_plugins, "_registry", broken)
    outcome = tlcore("plugins", "--debug")
    assert outcome.code == 1
    assert "Traceback" in outcome.err


def test_an_interruption_exits_with_130_and_says_how_to_go_on(
    tlcore: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_plugins, "_registry", interrupted)
    outcome = tlcore("plugins")
    assert outcome.code == 130
    assert "run the same command again to go on" in outcome.err


@pytest.mark.slow
def test_a_reader_that_goes_away_causes_no_noise(tmp_path: Path) -> None:
    code = (
        "import os, sys; from tlcore_flows import cli\n"
        "read, write = os.pipe(); os.dup2(write, 1); os.close(write); os.close(read)\n"
        "cli.main(['plugins', '--json'])"
    )
    done = in_a_process(code, folder=tmp_path)
    assert done.stderr == ""


def test_looking_around_makes_no_store(tlcore: Callable[..., Any], tmp_path: Path) -> None:
    for arguments in (["plugins"], ["runs"], ["runs", "show", "last"]):
        tlcore(*arguments)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("given", "spread"),
    [
        ("--models local:a timm:b --seed 1", "--models local:a --models timm:b --seed 1"),
        ("--models local:a run.toml", "--models local:a run.toml"),
        ("run.toml --models local:a --scorer x:k=1", "run.toml --models local:a --scorer x:k=1"),
        ("--models=local:a timm:b", "--models=local:a timm:b"),
        ("--models bare timm:b", "--models bare --models timm:b"),
        ("--models local:a run.toml timm:b", "--models local:a run.toml timm:b"),
        ("--models", "--models"),
    ],
)
def test_models_may_follow_each_other(given: str, spread: str) -> None:
    assert cli._spread_models(given.split()) == spread.split()


@pytest.mark.slow
def test_a_strategy_is_shown_with_bounds_defaults_as_they_are_typed_and_what_it_is_for(
    tlcore: Callable[..., Any],
) -> None:
    shown = tlcore("plugins", "show", "full").out
    rows = {line.split()[0]: " ".join(line.split()) for line in shown.splitlines() if line.strip()}
    assert "also for tags, numbers" in " ".join(shown.split()) and rows["needs"] == "needs target labels"
    assert rows["epochs"].startswith("epochs integer 1 to 1000 15 ")
    assert rows["ema"].startswith("ema number ≥ 0.5, < 1 | none none ")
    assert rows["wise"].startswith("wise true | false false ")
    assert "no options" in tlcore("plugins", "show", "leep").out
    texts = tlcore("plugins", "show", "zero-shot").out
    assert "list of text" in texts and "and 5 more" in texts and "['" not in texts
    assert "10 to 100,000" in tlcore("plugins", "show", "knn").out
