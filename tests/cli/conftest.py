from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from websockets.sync.client import connect
from websockets.typing import Origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.client import ClientConnection

    from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[2]


class Shell:
    """Where commands are typed: one environment, and no options that it has said already."""

    def __init__(self, folder: Path, **environ: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WSM_")}
        self.environ = {**kept, "PYTHONPATH": str(ROOT), **environ}
        self._folder = folder
        self._logs = 0

    @contextmanager
    def begin(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command beside the test; at the end of the block it is over."""
        self._logs += 1
        with (self._folder / f"{self._logs}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ws_middleware", *words],
                env=self.environ,
                cwd=self._folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def log(self, number: int) -> str:
        return (self._folder / f"{number}.log").read_text()

    def run(self, *words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:  # noqa: A002 - as subprocess has it
        return subprocess.run(
            [sys.executable, "-m", "ws_middleware", *words],
            env=self.environ,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=30,
            input=input,
            check=False,
        )

    def answer(self, *words: str) -> str:
        """Run a command that succeeds, and return what it prints."""
        done = self.run(*words)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    @contextmanager
    def serve(self, target: str = "tests.cli.shop:sockets", *options: str) -> Iterator[Served]:
        """Serve until the block ends; it ends by SIGTERM, in peace."""
        with self.begin("serve", target, "--port", "0", *options) as process:
            served = Served(process)
            log = self._logs
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(rf"serving {re.escape(target)} at (ws://.*)\n", line)
            assert found is not None, (line, self.log(log))
            served.url = found[1]
            yield served
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0, self.log(log)


class Served:
    """A process that serves sockets."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = ""

    def connect(self, path: str) -> ClientConnection:
        origin = Origin(self.url.replace("ws://", "http://"))
        return connect(self.url + path, origin=origin, compression=None)


@pytest.fixture
def shell(redis: RedisServer, tmp_path: Path) -> Shell:
    return Shell(tmp_path, WSM_BROKER=redis.url, WSM_PREFIX="shop")


@pytest.fixture
def bare(tmp_path: Path) -> Shell:
    """Where nobody has said which broker."""
    return Shell(tmp_path)
