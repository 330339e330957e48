"""Every door and server, how it is started, and what a test does with one that runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast
from urllib.request import Request, urlopen

import jwt
from websockets.sync.client import connect

from tests.asgi.routes import KEY
from tests.servers.conftest import ROOT, complaints, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from websockets.sync.client import ClientConnection

__all__ = ["ASGI", "NAMES", "STARTS", "Running", "run", "token", "version_of"]

_APP = "tests.asgi.app:app"
_AT = ["--host", "127.0.0.1", "--port", "{port}"]
_UVICORN = ["uvicorn", _APP, *_AT]
_GUNICORN = ["gunicorn", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "5"]
_GUNICORN += ["--access-logfile", "-"]

#: How each is started, as a module of Python.
COMMANDS: Mapping[str, list[str]] = {
    "own port": ["tests.asgi.serve", "own", "{port}"],
    "gunicorn gthread": [*_GUNICORN, "--threads", "4", "tests.asgi.flask_app:app"],
    "werkzeug": ["tests.asgi.serve", "werkzeug", "{port}"],
    "uvicorn sansio": [*_UVICORN, "--ws", "websockets-sansio"],
    "uvicorn wsproto": [*_UVICORN, "--ws", "wsproto"],
    "uvicorn ours": [*_UVICORN, "--ws", "ws_middleware.uvicorn:WebSocketProtocol"],
    "gunicorn uvicorn": [*_GUNICORN, "-k", "uvicorn_worker.UvicornWorker", _APP],
    "hypercorn": ["hypercorn", _APP, "--bind", "127.0.0.1:{port}", "--access-logfile", "-"],
    "daphne": ["daphne", _APP, "--bind", "127.0.0.1", "--port", "{port}"],
    "granian": ["granian", _APP, "--interface", "asgi", *_AT, "--access-log"],
    "gunicorn asgi": [*_GUNICORN, "-k", "asgi", _APP],
    # Not of the matrix: the same servers, started by a program.
    "uvicorn run": ["tests.asgi.serve", "uvicorn-run", "{port}"],
    "uvicorn alone": ["tests.asgi.serve", "uvicorn-alone", "{port}"],
}

#: granian does not tell an upgrade that is not decided that it ends: it waits for this.
LIMITS = {"WSM_SERVER_LIMITS_UPGRADE_TIMEOUT": "5"}

#: The same as the page has it.
STARTS: Mapping[str, str] = {
    "own port": "`sockets.listen()`",
    "gunicorn gthread": "`gunicorn --threads 4 --graceful-timeout 5`, a Flask app",
    "werkzeug": "`app.run()`, a Flask app",
    "uvicorn sansio": "`uvicorn --ws websockets-sansio`, the default",
    "uvicorn wsproto": "`uvicorn --ws wsproto`",
    "uvicorn ours": "`uvicorn --ws ws_middleware.uvicorn:WebSocketProtocol`",
    "gunicorn uvicorn": "`gunicorn -k uvicorn_worker.UvicornWorker --graceful-timeout 5`",
    "hypercorn": "`hypercorn`",
    "daphne": "`daphne`",
    "granian": "`granian --interface asgi`",
    "gunicorn asgi": "`gunicorn -k asgi --graceful-timeout 5`",
}

NAMES = tuple(STARTS)
#: Those that serve an ASGI app: what the wrapped app's own sockets do is asked there only.
ASGI = NAMES[3:]

#: Which package a server is, and what else makes its sockets what they are.
_PACKAGES = {
    "own port": (),
    "gunicorn gthread": ("gunicorn",),
    "werkzeug": ("werkzeug",),
    "uvicorn sansio": ("uvicorn", "websockets"),
    "uvicorn wsproto": ("uvicorn", "wsproto"),
    "uvicorn ours": ("uvicorn",),
    "gunicorn uvicorn": ("gunicorn", "uvicorn-worker", "uvicorn"),
    "hypercorn": ("hypercorn", "wsproto"),
    "daphne": ("daphne", "autobahn"),
    "granian": ("granian",),
    "gunicorn asgi": ("gunicorn",),
}


def version_of(name: str) -> str:
    """Return what a server was, as the page has it."""
    return ", ".join(f"{package} {version(package)}" for package in _PACKAGES[name]) or "this one"


def token(user: str = "ann", seconds: float = 600) -> str:
    """Return a token that expires; whole seconds are all that a token has."""
    return jwt.encode({"sub": user, "exp": int(time.time() + seconds)}, KEY)


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    name: str
    port: int
    control_port: int
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_asgi(self) -> bool:
        return self.name in ASGI

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def complaints(self, *expected: str, since: int = 0) -> list[str]:
        return complaints(self.log[since:], *expected)

    def act(self, *command: object) -> Any:
        """Have the process do something, or say what it has seen."""
        url = f"http://127.0.0.1:{self.control_port}/{'/'.join(map(str, command))}"
        with urlopen(url, timeout=15) as answer:
            return json.load(answer)

    def post(self, *path: object) -> Any:
        """Have a view of the app do something: where there is no port to act by."""
        request = Request(f"{self.origin}/{'/'.join(map(str, path))}", method="POST")
        with urlopen(request, timeout=15) as answer:
            return json.load(answer)

    def seen(self, name: str) -> list[list[Any]]:
        """Return what its app has seen of the ends of the sockets of one path, so far."""
        return [rest for path, *rest in self.act("seen") if path == name]

    def connect(
        self, path: str, *, user: str | None = "ann", origin: str | None = None, **options: Any
    ) -> AbstractContextManager[ClientConnection]:
        """Connect with the client of `websockets`, with a token in a header."""
        headers = {} if user is None else {"Authorization": f"Bearer {token(user)}"}
        defaults: dict[str, Any] = {"compression": None, "max_size": None, "open_timeout": 15}
        client: AbstractContextManager[ClientConnection] = connect(
            f"ws://127.0.0.1:{self.port}{path}",
            origin=cast("Any", origin),
            additional_headers=headers,
            **{**defaults, **options},
        )
        return client

    def until(self, done: Callable[[], object], timeout: float = 10.0) -> None:
        end = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < end, self.log[-2000:]
            time.sleep(0.02)

    def ends_within(self, timeout: float) -> bool:
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True


@contextlib.contextmanager
def run(
    name: str,
    folder: Path,
    *extra: str,
    workers: int = 1,
    has_control: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Start a server, and end it; only a single worker can have the port to act by."""
    port, control_port = free_port(), free_port() if workers == 1 and has_control else 0
    command = [part.format(port=port) for part in COMMANDS[name]]
    if workers > 1:
        command += ["--workers", str(workers)]
    log_path = folder / f"{name.replace(' ', '-')}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", *command, *extra],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CONTROL_PORT": str(control_port), **LIMITS, **(environ or {})},
            start_new_session=True,  # what it leaves behind can be ended with it
        )
    running = Running(name, port, control_port, process, log_path)
    try:
        running.until(lambda: process.poll() is not None or _is_up(running), 20)
        assert process.poll() is None, running.log
        if name == "granian":  # it does not end while one of its workers still begins
            running.until(lambda: running.log.count("Started worker-") == workers, 20)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        if not running.ends_within(12):
            process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_up(running: Running) -> bool:
    with contextlib.suppress(OSError):
        if running.control_port:
            running.act("count")
        if running.name == "own port":
            socket.create_connection(("127.0.0.1", running.port), 5).close()
            return True
        with urlopen(running.origin, timeout=5) as answer:
            return bool(answer.status == 200)
    return False
