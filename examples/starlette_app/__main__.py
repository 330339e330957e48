"""Run the demo: python -m examples.starlette_app [--host 127.0.0.1] [--port 5000]."""

from __future__ import annotations

import argparse
import contextlib
import logging
import socket

import uvicorn

from . import create_app
from .db import DEMO_USERS


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Printed only now: the port is open, so the address works.
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        logins = " or ".join(f"{name} / {password}" for name, password in DEMO_USERS.items())
        print(f"Open http://{host}:{port}/ and log in as {logins} (Ctrl+C stops)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.starlette_app")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    server = Server(uvicorn.Config(create_app(), options.host, options.port, log_config=None))
    with contextlib.suppress(KeyboardInterrupt):  # which is raised again when all has ended
        server.run()


if __name__ == "__main__":
    main()
