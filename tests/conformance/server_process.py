"""The echo server as a process of its own, which never outlives its user."""

from __future__ import annotations

import contextlib
import selectors
import subprocess
import sys
from typing import IO, TYPE_CHECKING

from .errors import HarnessError
from .python27 import tail
from .suite import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0


@contextlib.contextmanager
def echo_server(limits: str, log: Path) -> Iterator[str]:
    """Run the echo server with `raised` or `default` limits, or on `uvicorn`; gives its address."""
    command = [sys.executable, "-m", f"{__package__}.echo_server", "--port", "0", f"--{limits}"]
    with running(command, log) as port:
        yield f"ws://127.0.0.1:{port}/echo"


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[int]:
    """Run a server that prints its port; whatever happens, it is gone afterwards."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as err,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=err) as process,
    ):
        try:
            yield _port(process, log)
            if process.poll() is not None:
                msg = f"the server ended by itself, status {process.returncode}\n{tail(log)}"
                raise HarnessError(msg)
        finally:
            _stop(process)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    line = _first_line(process.stdout) if process.stdout else b""
    if not line.strip().isdigit():
        msg = f"the server did not say its port, but {line!r}\n{tail(log)}"
        raise HarnessError(msg)
    return int(line)


def _first_line(stream: IO[bytes]) -> bytes:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return stream.readline() if selector.select(START_TIMEOUT) else b""


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
