"""A Redis of our own: started, stopped and killed while others use it; nothing is kept on disk."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Final, Self

from .servers import free_port

__all__ = ["Redis", "is_installed"]

#: Seconds for it to answer.
_START: Final = 10.0


def is_installed() -> bool:
    """Whether the system has a redis-server."""
    return shutil.which("redis-server") is not None


class Redis:
    """One server on a port of its own; a context manager."""

    def __init__(self) -> None:
        self._port = free_port()
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        listen = ("--bind", "127.0.0.1", "--port", str(self._port))
        keep = ("--dir", self._folder.name, "--save", "", "--appendonly", "no")
        self._process = subprocess.Popen(
            ["redis-server", *listen, *keep], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _START
        while not self._answers():
            if time.monotonic() > deadline:
                self.kill()
                msg = f"redis-server did not answer within {_START:g} s"
                raise RuntimeError(msg)
            time.sleep(0.02)
        return self

    def __exit__(self, *args: object) -> None:
        self.kill()
        self._folder.cleanup()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 1.0) as client:
                client.sendall(b"PING\r\n")
                return client.recv(100).startswith(b"+PONG")
        except OSError:
            return False

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def pids(self) -> list[int]:
        """Its process, while it has one."""
        return [] if self._process is None else [self._process.pid]

    def stop(self) -> None:
        """Have it hang: connections stay, and nothing is answered."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """End it: from now on connections are refused."""
        self._send(signal.SIGCONT)
        self._send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
