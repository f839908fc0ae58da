"""Which Prefect server a run talks to, decided before Prefect is imported.

Someone who has one (PREFECT_API_URL, or a Prefect profile that names one) gets that one. Otherwise a
local server is started for as long as the process lives, with its database in the run store.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from tlcore.errors import RetryableError

__all__ = ["has_server", "local_server", "quiet_environment", "session", "without_tracebacks"]

START_TIMEOUT_SECONDS = 120.0
"""A fresh database on a loaded two-core machine took 17 s."""

DRAIN_TIMEOUT_SECONDS = 5.0

STOP_TIMEOUT_SECONDS = 12.0

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}


def quiet_environment(*, verbose: bool = False, debug: bool = False) -> None:
    """Set what Prefect reads when it is imported: no telemetry, and no log lines among ours.

    A setting that the user made stays. The console is silent unless asked, tracebacks of failed tasks
    included, since the error itself is printed once; the log in the Prefect UI is complete either way.
    """
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    os.environ.setdefault("PREFECT_RESULTS_DEFAULT_SERIALIZER", "json")
    if debug:
        return
    console = "INFO" if verbose else "CRITICAL"
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", console)
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL", console)


def without_tracebacks() -> None:
    """Prefect's console lines stay one line each: a failure is told once, at the end, and --debug tells all."""
    for handler in logging.getLogger().handlers:
        handler.format = _one_line(handler.format)  # type: ignore[method-assign,assignment]


def _one_line(format: Callable[[logging.LogRecord], str]) -> Callable[[logging.LogRecord], str]:
    def formatted(record: logging.LogRecord) -> str:
        bare = copy.copy(record)  # other handlers, the one of the Prefect UI among them, want all of it
        bare.exc_info = bare.exc_text = bare.stack_info = None
        return format(bare)

    return formatted


def has_server() -> bool:
    """Whether Prefect has been told of a server: by the environment, a profile, or code that runs already."""
    if "prefect" in sys.modules:
        from prefect.settings import get_current_settings

        return get_current_settings().api.url is not None
    return bool(os.environ.get("PREFECT_API_URL")) or _profile_has_server()


def _profile_has_server() -> bool:
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    active = os.environ.get("PREFECT_PROFILE") or document.get("active")
    profile = document.get("profiles", {}).get(active, {})
    return isinstance(profile, dict) and bool(profile.get("PREFECT_API_URL"))


@contextlib.contextmanager
def session(root: Path, *, say: Callable[[str], None], preload: Callable[[], object]) -> Iterator[None]:
    """Flows called in here find a Prefect server.

    Args:
        root: the run store, which keeps the local server's database and log.
        say: told when something takes long.
        preload: imports what the flows need, while the server starts in its own process.

    Raises:
        RetryableError: the local server did not start, or the one that was named does not answer.
    """
    if has_server():
        preload()
        _expect_answer()
        yield
        return
    say("starting a local Prefect server (6-16 s)")
    with local_server(root) as (url, secret, wait):
        os.environ["PREFECT_API_URL"] = url
        os.environ["PREFECT_API_AUTH_STRING"] = secret
        try:
            from prefect import settings

            preload()
            wait()
            local = {
                settings.PREFECT_API_URL: url,
                settings.PREFECT_API_AUTH_STRING: secret,
                # The heartbeat thread costs a second at the end of each flow, and here nobody watches it.
                settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            }
            with settings.temporary_settings(local):
                try:
                    yield
                finally:
                    _send_what_waits()
        finally:
            del os.environ["PREFECT_API_URL"], os.environ["PREFECT_API_AUTH_STRING"]


def _expect_answer() -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    with get_client(sync_client=True) as client:
        failure = client.api_healthcheck()
    if failure is not None:
        raise RetryableError(
            f"the Prefect server does not answer: {type(failure).__name__}: {failure}",
            where=str(get_current_settings().api.url),
            hint="start it, or unset PREFECT_API_URL to use a local one",
        )


def _send_what_waits() -> None:
    """Log lines and events go to the server from threads; they must have arrived before it stops."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        with contextlib.suppress(RuntimeError):  # it was never started
            worker.drain_all(timeout=DRAIN_TIMEOUT_SECONDS)


@contextlib.contextmanager
def local_server(root: Path) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """A server process: its API's URL, the secret it asks for, and a function that waits until it answers.

    Raises:
        RetryableError: from the waiting function: it ended or did not answer in time.
    """
    home = Path(os.environ.get("PREFECT_HOME") or root / "prefect")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ.setdefault("PREFECT_HOME", str(home))
    secret = f"tlcore:{secrets.token_urlsafe(24)}"  # other users of the machine can reach the port too
    environment = os.environ | {
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_UI_ENABLED": "0",
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PREFECT_API_AUTH_STRING": secret,
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    }
    log = home / "server.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tlcore_flows.ephemeral"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
            start_new_session=True,  # Ctrl-C is for the run, which still has to tell the server about it
        )
    try:
        lines = _lines(process)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        port = _next(lines, deadline, log)
        yield f"http://127.0.0.1:{port}/api", secret, lambda: _expect_ready(lines, deadline, log)
    finally:
        _stop(process)


def _lines(process: subprocess.Popen[str]) -> queue.Queue[str | None]:
    """What the process prints, line by line; None at its end."""
    lines: queue.Queue[str | None] = queue.Queue()
    stdout = process.stdout
    assert stdout is not None

    def read() -> None:
        for line in stdout:
            lines.put(line.strip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _next(lines: queue.Queue[str | None], deadline: float, log: Path) -> str:
    try:
        line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise _no_server(f"did not answer within {START_TIMEOUT_SECONDS:.0f} s", log) from None
    if line is None:
        raise _no_server("ended while it started", log)
    return line


def _expect_ready(lines: queue.Queue[str | None], deadline: float, log: Path) -> None:
    while _next(lines, deadline, log) != "ready":
        pass


def _no_server(what: str, log: Path) -> RetryableError:
    text = log.read_text(encoding="utf-8", errors="replace").strip() if log.is_file() else ""
    last = f": {text.splitlines()[-1][:200]}" if text else ""
    return RetryableError(
        f"the local Prefect server {what}{last}",
        where=str(log),
        hint="run the same command again, or start a server with: make ui",
    )


def _stop(process: subprocess.Popen[str]) -> None:
    """Close the pipe that keeps the server alive, and wait until it wrote what it holds."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
