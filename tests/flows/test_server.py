"""Which Prefect server a run talks to, and that a local one never outlives its run."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tlcore.errors import RetryableError
from tlcore_flows import server

pytestmark = pytest.mark.slow  # real server processes

OWNER = """
import sys, time
from pathlib import Path
from tlcore_flows import server
with server.local_server(Path(sys.argv[1])) as (url, secret, wait):
    if len(sys.argv) > 2:
        wait()
    print(url, flush=True)
    time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that nobody has reaped yet is dead all the same.
    status = Path(f"/proc/{pid}/stat")
    return not (status.is_file() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def children(pid: int) -> list[int]:
    done = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in done.stdout.split()]


def gone_within(seconds: float, pid: int) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not alive(pid)


@pytest.mark.parametrize("moment", ["starting", pytest.param("answering", marks=pytest.mark.slow)])
def test_a_killed_run_leaves_no_server_behind(moment: str, tmp_path: Path) -> None:
    arguments = [str(tmp_path), "wait"] if moment == "answering" else [str(tmp_path)]
    owner = subprocess.Popen([sys.executable, "-c", OWNER, *arguments], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    url = owner.stdout.readline().strip()
    (pid,) = children(owner.pid)
    if moment == "answering":
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            assert answer.status == 200
    owner.send_signal(signal.SIGKILL)
    owner.wait(10)
    assert gone_within(20, pid)


@pytest.mark.slow
def test_a_local_server_answers_nobody_without_its_secret(tmp_path: Path) -> None:
    with server.local_server(tmp_path) as (url, secret, wait):
        wait()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{url}/flows/count", method="POST"), timeout=10)
        assert refused.value.code == 401
        assert (tmp_path / "prefect").stat().st_mode & 0o777 == 0o700


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "nonsense://nowhere")
    with (
        pytest.raises(RetryableError, match="the local Prefect server ended while it started") as caught,
        server.local_server(tmp_path) as (_, _, wait),
    ):
        wait()
    assert str(caught.value.where).endswith("server.log")


def test_a_server_of_the_users_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if k != "prefect"})
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert not server.has_server()
    (tmp_path / "profiles.toml").write_text(
        'active = "work"\n[profiles.work]\nPREFECT_API_URL = "http://127.0.0.1:4200/api"\n[profiles.home]\n'
    )
    assert server.has_server()
    monkeypatch.setenv("PREFECT_PROFILE", "home")
    assert not server.has_server()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert server.has_server()


@pytest.mark.usefixtures("prefect_server")
def test_a_server_that_does_not_answer_is_named_before_the_work_begins(tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    with (
        temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(RetryableError, match="does not answer") as caught,
        server.session(tmp_path, say=print, preload=lambda: None),
    ):
        raise AssertionError("the work began")
    assert caught.value.where == url


def test_telemetry_is_off_and_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*server.NO_TELEMETRY, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "DEBUG")
    server.quiet_environment()
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "DEBUG"


def test_a_traceback_of_prefect_stays_off_the_console_and_reaches_other_handlers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console, other = io.StringIO(), io.StringIO()
    handlers = [logging.StreamHandler(console), logging.StreamHandler(other)]
    handlers[0].setFormatter(logging.Formatter("%(message)s"))
    log = logging.Logger("a task")
    monkeypatch.setattr(logging.getLogger(), "handlers", handlers[:1])
    server.without_tracebacks()
    for handler in reversed(handlers):  # the other one formats, and caches, the traceback first
        log.addHandler(handler)
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError:
        log.exception("it failed")
    assert console.getvalue() == "it failed\n"
    assert "Traceback" in other.getvalue()
