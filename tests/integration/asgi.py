"""Real ASGI servers as processes of their own, and people who keep cookies."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.integration.serving import ROOT, WARNINGS, Refused, Server, free_port, stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from websockets.sync.client import ClientConnection

__all__ = ["SERVERS", "Guest", "closed", "heard", "serving"]

#: How each server is started: `{port}` and `{app}`, as in "module:app", are filled in.
SERVERS = {
    "uvicorn": ["uvicorn", "--port", "{port}", "--timeout-graceful-shutdown", "3", "{app}"],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}", "--access-logfile", "-", "{app}"],
    "granian": ["granian", "--interface", "asgi", "--port", "{port}", "{app}"],
    "daphne": ["daphne", "--bind", "127.0.0.1", "--port", "{port}", "{app}"],
}


@contextlib.contextmanager
def serving(
    name: str,
    app: str,
    folder: Path,
    *options: str,
    cwd: Path = ROOT,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Server]:
    """Run an app on a server; at the end its log has to be clean."""
    port = free_port()
    command = [part.format(port=port, app=app) for part in SERVERS[name]]
    log_path = folder / f"{name}-{port}.log"
    path = os.pathsep.join((str(cwd), str(ROOT)))
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", *WARNINGS, "-m", *command, *options],
            cwd=cwd,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, **environ},
        )
    server = Server(name, port, process, log_path)
    try:
        server.until(lambda: _is_up(server), 20)
        yield server
    finally:
        stop(process)
    server.check_log()


def _is_up(server: Server) -> bool:
    assert server.process.poll() is None, server.log
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{server.origin}/health", timeout=5).status_code < 500
    return False


class Guest:
    """Somebody at a browser: keeps cookies, reads the CSRF token of a page, opens sockets."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cookies = httpx.Cookies()

    def ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        """Ask for a page, over a connection of its own."""
        origin, cookies = self.server.origin, self.cookies
        with httpx.Client(base_url=origin, cookies=cookies, timeout=10) as client:
            answer = client.request(method, path, **how)
            self.cookies = client.cookies
        return answer

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)

    def csrf_token(self) -> str:
        page = self.ask("GET", "/", follow_redirects=True).text
        found = re.search(r'name="csrf_token" value="([^"]+)"', page)
        assert found is not None, page
        return found[1]

    def post(self, path: str, **fields: str) -> httpx.Response:
        return self.ask("POST", path, data={"csrf_token": self.csrf_token(), **fields})

    def post_json(self, path: str, body: object) -> httpx.Response:
        return self.ask("POST", path, json=body, headers={"X-CSRF-Token": self.csrf_token()})

    @property
    def headers(self) -> dict[str, str]:
        """What a browser sends along with an upgrade request."""
        cookies = "; ".join(f"{each.name}={each.value}" for each in self.cookies.jar)
        return {"Cookie": cookies} if cookies else {}

    def connect(self, path: str, origin: str | None = "same", **options: Any) -> ClientConnection:
        ws: ClientConnection = connect(
            f"ws://{self.server.host}{path}",
            origin=self.server.origin if origin == "same" else origin,  # type: ignore[arg-type]
            additional_headers=self.headers,
            open_timeout=10,
            close_timeout=2,
            proxy=None,
            **options,
        )
        return ws

    def refused(self, path: str, origin: str | None = "same") -> Refused:
        """Connect in vain."""
        try:
            ws = self.connect(path, origin)
        except InvalidStatus as error:
            answer = error.response
            fields = {name.lower(): value for name, value in answer.headers.raw_items()}
            return Refused(answer.status_code, fields, bytes(answer.body or b""))
        ws.close()
        message = f"{path} was let in"
        raise AssertionError(message)


def heard(ws: ClientConnection, timeout: float = 10) -> Any:
    """The next message, read as JSON."""
    return json.loads(ws.recv(timeout))


def closed(ws: ClientConnection, timeout: float = 10) -> tuple[int | None, str | None]:
    """How a socket ended, whatever came before."""
    try:
        while True:
            ws.recv(timeout)
    except ConnectionClosed:
        return ws.close_code, ws.close_reason
