"""The local Prefect server of one run, as a process of its own: `python -m tlcore_flows.ephemeral`.

It differs from the temporary server that Prefect would start by itself in one point that matters: it
lives exactly as long as its standard input is open. However its parent ends, kill -9 included, the
system closes that pipe, and no server stays behind.

It prints the port it listens on as soon as it has one, and "ready" when it answers.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

GRACE_SECONDS = 10.0
"""How long the server may take to write what it holds before it is ended hard."""


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    _tell(str(listener.getsockname()[1]))
    threading.Thread(target=_end_with_parent, daemon=True).start()

    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _tell("ready")

    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=2,
    )
    Server(config).run(sockets=[listener])


def _tell(line: str) -> None:
    print(line, flush=True)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # returns when the last writer, the parent, is gone
    threading.Timer(GRACE_SECONDS, os._exit, args=(1,)).start()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
