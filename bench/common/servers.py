"""Servers under measurement: each in processes of its own, on a free port of this machine."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final
from urllib.request import Request, urlopen

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ROOT", "Server", "free_port", "gunicorn", "raise_file_limit", "script", "serve"]

ROOT: Final = Path(__file__).parents[2]

#: Seconds for a server to answer its first request, and to end.
_START: Final = 30.0
_END: Final = 15.0

#: Descriptors that a thousand sockets, and everything else, may need.
_FILES: Final = 16_384


def raise_file_limit() -> None:
    """Let this process and those it starts open many files, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def gunicorn(app: str, *options: str) -> list[str]:
    """Return the command of gunicorn with an app, with `{port}` to be filled in."""
    return ["gunicorn", "--bind", "127.0.0.1:{port}", "--log-level", "warning", *options, app]


def script(name: str) -> list[str]:
    """Return the command of one of the servers of `apps/serve.py`."""
    return ["bench.apps.serve", name, "{port}"]


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    port: int
    process: subprocess.Popen[bytes]
    log: BinaryIO

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that serve."""
        parent = psutil.Process(self.process.pid)
        return parent.children() or [parent]

    def threads(self) -> int:
        """Return the number of operating system threads of all that serve."""
        return sum(each.num_threads() for each in self.workers)

    def rss(self) -> int:
        """Return the resident memory of all that serve, in bytes."""
        return sum(each.memory_info().rss for each in self.workers)

    def connections(self) -> list[int]:
        """Return how many connections each worker has."""
        return sorted(
            sum(
                each.status == psutil.CONN_ESTABLISHED and each.laddr.port == self.port
                for each in worker.net_connections("tcp")
            )
            for worker in self.workers
        )

    def answers(self, timeout: float) -> bool:
        """Whether a plain view answers within `timeout` seconds."""
        with contextlib.suppress(OSError), urlopen(self._url("/"), timeout=timeout) as answer:
            return bool(answer.status == 200)
        return False

    def post(self, path: str, timeout: float = 10.0) -> bytes:
        """Ask for a view that does something, and return its answer.

        Raises:
            TimeoutError: there was none within `timeout` seconds.
        """
        with urlopen(Request(self._url(path), method="POST"), timeout=timeout) as answer:
            body: bytes = answer.read()
            return body

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextlib.contextmanager
def serve(command: list[str], **environ: str) -> Iterator[Server]:
    """Run `python -m COMMAND` until the block ends, with `environ` added to the environment.

    Raises:
        RuntimeError: it does not answer; the text is what it wrote.
    """
    port = free_port()
    words = [word.format(port=port) for word in command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONWARNINGS": "ignore", **environ},
        )
        server = Server(port, process, log)
        try:
            _wait(server)
            yield server
        finally:
            _end(process)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait(server: Server) -> None:
    deadline = time.monotonic() + _START
    while not server.answers(1.0):
        if server.process.poll() is not None or time.monotonic() > deadline:
            server.log.seek(0)
            raise RuntimeError("the server did not start:\n" + server.log.read().decode())
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    children = psutil.Process(process.pid).children() if process.poll() is None else []
    process.terminate()
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        for each in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.kill()
        process.wait()
