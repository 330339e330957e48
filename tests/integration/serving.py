"""Real servers for the apps of this folder, and clients that keep cookies."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support import RawPeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.sync.client import ClientConnection

__all__ = ["SERVERS", "Refused", "Server", "Visitor", "serving"]

ROOT = Path(__file__).parents[2]

#: How each server is started: `{port}` and `{app}`, a module with an `app`, are filled in.
SERVERS = {
    "werkzeug": ["tests.integration.serve", "werkzeug", "{port}", "{app}"],
    "gunicorn": [
        *("gunicorn", "--threads", "4", "--graceful-timeout", "3", "--access-logfile", "-"),
        *("--bind", "127.0.0.1:{port}", "{app}:app"),
    ],
    "waitress": ["tests.integration.serve", "waitress", "{port}", "{app}"],
}

#: Errors, but for the connections that gunicorn leaves to the end of its process.
WARNINGS = ["-W", "error", "-W", "ignore::ResourceWarning"]


class Server(NamedTuple):
    """A server that runs an app."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def origin(self) -> str:
        return f"http://{self.host}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def peer(self, timeout: float = 10.0) -> RawPeer:
        return RawPeer(("127.0.0.1", self.port), timeout)

    def until(self, done: Callable[[], object], timeout: float = 10.0) -> None:
        """Wait until something has happened."""
        end = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < end, self.log[-3000:]
            time.sleep(0.05)

    def check_log(self) -> None:
        """No warning is there, and no traceback but those that the tests asked for."""
        log = self.log
        assert log.count("Traceback") == log.count(".OnPurposeError"), log[-3000:]
        assert "Warning" not in log, log[-3000:]


class Refused(NamedTuple):
    """What a refused client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code word of ours, "" where the answer is the app's own."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        code: str = json.loads(self.body)["code"]
        return code


class Visitor:
    """A browser: it keeps cookies and connects with them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cookies: dict[str, str] = {}

    @property
    def headers(self) -> dict[str, str]:
        if not self.cookies:
            return {}
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}

    def get(self, path: str, method: str = "GET", **headers: str) -> str:
        """Ask for a page; the answer has to be a yes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, headers={**self.headers, **headers})
            answer = connection.getresponse()
            body = answer.read().decode()
            assert answer.status < 300, (answer.status, body)
            self.keep(answer.getheaders())
        return body

    def get_json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def keep(self, headers: list[tuple[str, str]]) -> None:
        """Keep the cookies of an answer."""
        for name, value in headers:
            if name.lower() == "set-cookie":
                cookie, _, text = value.partition(";")[0].partition("=")
                self.cookies[cookie] = text

    def connect(self, path: str, origin: str | None = "same", **headers: str) -> ClientConnection:
        ws = connect(
            f"ws://{self.server.host}{path}",
            origin=self.server.origin if origin == "same" else origin,  # type: ignore[arg-type]
            additional_headers={**self.headers, **headers},
            open_timeout=10,
            close_timeout=2,
            compression=None,
        )
        assert ws.response is not None
        self.keep(list(ws.response.headers.raw_items()))
        return ws

    def refused(self, path: str, origin: str | None = "same", **headers: str) -> Refused:
        """Connect in vain."""
        try:
            ws = self.connect(path, origin, **headers)
        except InvalidStatus as error:
            answer = error.response
            fields = {name.lower(): value for name, value in answer.headers.raw_items()}
            return Refused(answer.status_code, fields, bytes(answer.body))
        ws.close()
        message = f"{path} was let in"
        raise AssertionError(message)


@contextlib.contextmanager
def serving(server: str, app: str, folder: Path, **environ: str) -> Iterator[Server]:
    """Run an app of `apps/` on a server; at the end its log has to be clean."""
    port = free_port()
    module = f"tests.integration.apps.{app}"
    command = [part.format(port=port, app=module) for part in SERVERS[server]]
    log_path = folder / f"{server}-{app}-{port}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", *WARNINGS, "-m", *command],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
        )
    running = Server(server, port, process, log_path)
    try:
        running.until(lambda: is_up(running), 20)
        yield running
    finally:
        stop(process)
    running.check_log()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def is_up(server: Server) -> bool:
    assert server.process.poll() is None, server.log
    with contextlib.suppress(OSError), server.peer() as peer:
        peer.send(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return bool(re.match(rb"HTTP/1\.\d 200", peer.read_head()))
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
