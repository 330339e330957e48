from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.request import Request, urlopen

import psutil
import pytest
from websockets.sync.client import connect

from tests.support import RawPeer

from .looped import LoopedClient

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from websockets.sync.client import ClientConnection

ROOT = Path(__file__).parents[2]

GUNICORN = ["gunicorn", "--access-logfile", "-", "--graceful-timeout", "5", "tests.servers.app:app"]

#: A process ends by SIGTERM, as those of other servers do, and not by SIGQUIT.
UWSGI = ["uwsgi", "--master", "--die-on-term", "--need-app", "--module", "tests.servers.app"]

#: How each server is started, as a module of Python or as a command that `need` finds; `{port}` is
#: filled in.
COMMANDS = {
    "werkzeug": ["tests.servers.serve", "werkzeug", "{port}"],
    "werkzeug-single": ["tests.servers.serve", "werkzeug-single", "{port}"],
    "gunicorn-sync": [*GUNICORN, "--bind", "127.0.0.1:{port}"],
    "gunicorn-gthread": [*GUNICORN, "--threads", "4", "--bind", "127.0.0.1:{port}"],
    "gunicorn-preload": [*GUNICORN, "--preload", "--threads", "2", "--bind", "127.0.0.1:{port}"],
    "waitress": ["tests.servers.serve", "waitress", "{port}"],
    "cheroot": ["tests.servers.serve", "cheroot", "{port}"],
    "wsgiref": ["tests.servers.serve", "wsgiref", "{port}"],
    "gevent-pywsgi": ["tests.servers.serve", "gevent-pywsgi", "{port}"],
    "gevent-pywsgi-patched": ["tests.servers.serve", "gevent-pywsgi-patched", "{port}"],
    "gunicorn-gevent": [*GUNICORN, "-k", "gevent", "--bind", "127.0.0.1:{port}"],
    "uwsgi": [*UWSGI, "--http-socket", "127.0.0.1:{port}"],
    "uwsgi-threads": [*UWSGI, "--threads", "4", "--http-socket", "127.0.0.1:{port}"],
}

#: Those that the whole suite runs on; tests of something special add commands of their own.
SUITE = tuple(COMMANDS)

#: Servers that write a line for each request.
WITH_ACCESS_LOG = frozenset(SUITE) - {"waitress", "cheroot"}

#: What no server and nothing of ours writes while all is well, in any server's own style.
COMPLAINT = re.compile(r"Traceback|\b(WARNING|ERROR|CRITICAL)\b|\w*Warning:")


class Running(NamedTuple):
    """A server that runs the app."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log_path: Path
    tls: ssl.SSLContext | None = None

    @property
    def origin(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def get(self, path: str) -> str:
        with urlopen(self.origin + path, timeout=10, context=self.tls) as answer:
            body: bytes = answer.read()
        return body.decode()

    def post(self, path: str) -> int:
        request = Request(self.origin + path, method="POST")
        with urlopen(request, timeout=10, context=self.tls) as answer:
            status: int = answer.status
        return status

    def cookie(self, name: str = "ann") -> dict[str, str]:
        url = f"{self.origin}/login/{name}"
        with urlopen(url, timeout=10, context=self.tls) as answer:
            cookie: str = answer.headers["Set-Cookie"]
        return {"Cookie": cookie.partition(";")[0]}

    def connect(
        self, path: str, headers: dict[str, str], origin: str | None = ""
    ) -> ClientConnection:
        options: dict[str, Any] = {
            "origin": self.origin if origin == "" else origin,
            "additional_headers": headers,
            "compression": None,
        }
        if self.tls:
            client = LoopedClient(f"wss://127.0.0.1:{self.port}{path}", ssl=self.tls, **options)
            return cast("ClientConnection", client)  # as far as tests go
        plain: ClientConnection = connect(f"ws://127.0.0.1:{self.port}{path}", **options)
        return plain

    def peer(self) -> RawPeer:
        return RawPeer(("127.0.0.1", self.port), tls=self.tls)

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that serve."""
        parent = psutil.Process(self.process.pid)
        return parent.children() or [parent]

    def usage(self) -> tuple[int, int]:
        """Return threads and descriptors of all that serve."""
        return (
            sum(each.num_threads() for each in self.workers),
            sum(each.num_fds() for each in self.workers),
        )

    def statuses(self, path: str) -> list[int]:
        """Return the statuses in the lines that the access log has for a path."""
        log = re.sub(r"\x1b\[\d*m", "", self.log)
        lines = [line for line in log.splitlines() if f"GET {path} " in line]
        found = [re.search(r"HTTP/1\.[01]\"? (\d{3})\b", line) for line in lines]
        return [0 if each is None else int(each[1]) for each in found]

    def until(self, done: Callable[[], object], timeout: float = 10.0) -> None:
        end = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < end, self.log[-2000:]
            time.sleep(0.05)


def need(command: str) -> str:
    """Return the path of a command; without it the test is skipped, but fails where CI is set.

    Commands of Python packages (pyuwsgi's wheel brings `uwsgi`) are beside the interpreter.
    """
    found = which(command, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{command} is not installed")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def run(
    name: str, folder: Path, *extra: str, tls: ssl.SSLContext | None = None, **environ: str
) -> Iterator[Running]:
    port = free_port()
    command = [part.format(port=port) for part in COMMANDS[name]]
    python = [sys.executable, "-u", "-m"]
    start = [need("uwsgi"), *command[1:]] if command[0] == "uwsgi" else [*python, *command]
    log_path = folder / f"{name}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*start, *extra],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
        )
    running = Running(name, port, process, log_path, tls)
    try:
        running.until(lambda: is_up(running.origin, tls), 20)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_up(origin: str, tls: ssl.SSLContext | None = None) -> bool:
    with contextlib.suppress(OSError), urlopen(origin, timeout=5, context=tls) as answer:
        return bool(answer.status == 200)
    return False


@pytest.fixture(scope="module", params=SUITE)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with run(request.param, tmp_path_factory.mktemp("server")) as running:
        yield running
        log = running.log
        assert "Traceback" not in log, log[-3000:]
        assert "ERROR" not in log, log[-3000:]


@pytest.fixture
def clean_log(request: pytest.FixtureRequest, server: Running) -> Iterator[None]:
    """Fail a test during which the server or we complained of what `@warns` does not name."""
    before = len(server.log)
    yield
    expected = [word for mark in request.node.iter_markers("warns") for word in mark.args]
    assert not complaints(server.log[before:], *expected)


def complaints(log: str, *expected: str) -> list[str]:
    """Return the lines of a log that say that something is wrong, but for those with a word."""
    lines = [line for line in log.splitlines() if COMPLAINT.search(line)]
    return [line for line in lines if not any(word in line for word in expected)]


@pytest.fixture(scope="module")
def silent(server: Running) -> Iterator[tuple[ClientConnection, float]]:
    """A socket that has said nothing since the time beside it: one silence for a whole module."""
    with server.connect("/ws/chat/4", server.cookie("silent")) as client:
        yield client, time.monotonic()
