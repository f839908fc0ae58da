"""Progress lines on stderr."""

from __future__ import annotations

import time

import pytest

from tlcore_flows import terminal
from tlcore_flows.terminal import Terminal


def test_each_stage_is_one_line_on_stderr_and_nothing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal.open() as shown:
        shown.started("score-[bold]x")
        shown.advanced("score-[bold]x", 1, 3, "step 1")
        shown.finished("score-[bold]x", 1.25, False)
        shown.started("rank")
        shown.finished("rank", 0.0, True)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line.split() for line in captured.err.splitlines()]
    assert lines == [["score-[bold]x", "1.2", "s"], ["rank", "cached"]]


def test_a_stage_that_waits_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PATIENCE_SECONDS", 0.05)
    with Terminal.open() as shown:
        shown.started("train")
        shown.advanced("train", 0, 0, "another run computes this")
        time.sleep(0.5)
        shown.finished("train", 0.5, True)
    assert "train: another run computes this" in capsys.readouterr().err


def test_a_step_that_is_over_at_once_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal.open() as shown:
        shown.started("train")
        shown.advanced("train", 0, 0, "reading")
        shown.stopped("train")
    assert capsys.readouterr().err == ""
