"""A Prefect server on this machine with a worker and the deployments of prefect.yaml: `make ui`.

The server keeps its database in the run store, where the runs of the command line are too, and listens
on the loopback address alone. Everything ends with this process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from tlcore_flows.server import NO_TELEMETRY

__all__ = ["deploy", "environment", "serve"]

ROOT = Path(__file__).resolve().parents[1]
POOL = "tlcore"
START_TIMEOUT_SECONDS = 120.0


def environment(home: Path, port: int) -> dict[str, str]:
    """Environment of the server and of all that talks to it."""
    origin = f"http://127.0.0.1:{port}"
    return {
        **os.environ,
        **NO_TELEMETRY,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"{origin}/api",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": origin,
        "TLCORE_ROOT": str(ROOT),
    }


@contextlib.contextmanager
def serve(environment: Mapping[str, str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers on `port`; it is ended at the end.

    Raises:
        RuntimeError: it ended, or did not answer in time; the message names its log.
    """
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=dict(environment), stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/api/health"):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the Prefect server on port {port} did not start; its log: {log}")
            time.sleep(0.3)
        yield server
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def deploy(environment: Mapping[str, str]) -> None:
    """Make the work pool and register the deployments.

    Raises:
        subprocess.CalledProcessError: Prefect refused.
    """
    _prefect(environment, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    _prefect(
        environment,
        "--no-prompt",
        "deploy",
        "--all",
        "--prefect-file",
        str(ROOT / "deployments/prefect.yaml"),
    )


def _prefect(environment: Mapping[str, str], *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "prefect", *arguments], env=dict(environment), cwd=ROOT, check=True)


def main() -> None:
    store = Path(os.environ.get("TLCORE_HOME") or ROOT / ".tlcore").expanduser().resolve()
    home = store / "prefect"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    port = int(os.environ.get("TLCORE_UI_PORT", "4200"))
    settings = {**environment(home, port), "TLCORE_HOME": str(store)}
    # Ended by a signal, it ends server and worker as it does at Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    print("starting a Prefect server and a worker (10-20 s)", flush=True)
    with serve(settings, port, home / "ui.log"):
        deploy(settings)
        print(f"\nthe UI is at http://127.0.0.1:{port}; Ctrl-C ends server and worker\n", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            _prefect(settings, "worker", "start", "--pool", POOL)


if __name__ == "__main__":
    main()
