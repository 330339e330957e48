"""uvicorn from the oldest version that we support to the newest: our class, and our door.

What a protocol class is given is nowhere documented, and has changed: `app_state` came with 0.21,
signals by Python instead of the loop with 0.29, and a class on the command line with 0.36.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.servers.conftest import ROOT, complaints, free_port
from tests.support import PING, PONG, RawPeer, frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

CACHE = ROOT / ".cache"
NEWEST = version("uvicorn")
#: The oldest, and one on each side of what has changed.
VERSIONS = ("0.17.6", "0.25.0", "0.36.0", NEWEST)

#: From which version on a class can be named on the command line.
BY_NAME = (0, 36)
#: From which on an app may answer an upgrade by HTTP, and hears the reason of a client's close.
DENIES, TELLS_REASONS = (0, 25), (0, 31)
#: From which on its own class closes by a frame when the process ends.
SAYS_GOODBYE = (0, 21)

ON_THE_LINE = ["uvicorn", "tests.asgi.versions_app:app", "--ws-ping-interval", "0.3"]
ON_THE_LINE += ["--ws-ping-timeout", "0.3", "--ws", "ws_middleware.uvicorn:WebSocketProtocol"]

#: Seconds in which anything here is done.
SOON = 10.0


class Served(NamedTuple):
    """A uvicorn that runs."""

    what: str
    version: tuple[int, ...]
    port: int
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def connect(self, path: str) -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self.port}{path}", max_size=None, compression=None)

    def seen(self) -> Any:
        with urlopen(f"http://127.0.0.1:{self.port}/", timeout=SOON) as answer:
            return json.load(answer)

    def until(self, done: Any) -> None:
        end = time.monotonic() + SOON
        while not done():
            assert time.monotonic() < end, self.log[-2000:]
            time.sleep(0.02)

    def is_up(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.seen() == [])
        return False


def folder_of(wanted: str) -> Path | None:
    """Return where a version is, installed once and kept; `None` for that of the environment."""
    if wanted == NEWEST:
        return None
    folder = CACHE / f"uvicorn-{wanted}-{sys.implementation.cache_tag}"
    stamp = folder / "ready"
    if not stamp.exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        command = [*install, "--target", str(folder), f"uvicorn=={wanted}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = f"uvicorn {wanted} cannot be installed: {done.stderr[-2000:]}"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
        stamp.touch()
    return folder


@pytest.fixture(params=VERSIONS, scope="module")
def installed(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A version, and the path on which Python finds it."""
    wanted: str = request.param
    folder = folder_of(wanted)
    return wanted, os.pathsep.join(str(each) for each in (folder, ROOT) if each)


@contextlib.contextmanager
def serve(what: str, installed: tuple[str, str], folder: Path, **environ: str) -> Iterator[Served]:
    wanted, path = installed
    numbers = tuple(int(each) for each in wanted.split(".")[:2])
    port, log_path = free_port(), folder / "uvicorn.log"
    command = ["tests.asgi.versions_app", what, str(port)]
    if what == "class" and numbers >= BY_NAME:
        command = [*ON_THE_LINE, "--port", str(port)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", *command],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ, "PYTHONPATH": path},
        )
    served = Served(what, numbers, port, process, log_path)
    try:
        served.until(lambda: process.poll() is not None or served.is_up())
        assert f"this is uvicorn {wanted}\n" in served.log
        yield served
    finally:
        process.kill()
        process.wait()


def end_of(client: ClientConnection) -> tuple[int, str]:
    """Return what a client is told at the end, after whatever else it is told."""
    try:
        while True:
            client.recv(SOON)
    except ConnectionClosed as closed:
        return (1006, "") if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)


def check_messages(served: Served, path: str) -> None:
    with served.connect(path) as client:
        for message in ("hé", b"\x00\xff", "x" * 2**20, b"y" * 2**20):
            client.send(message)
            assert client.recv(SOON) == message


def check_ends(served: Served) -> None:
    """Close codes both ways, of what the app says and of what it leaves out."""
    with served.connect("/echo") as client:
        client.close(4002, "bye")
    tells = served.what == "class" or served.version >= TELLS_REASONS
    served.until(lambda: [4002, "bye" if tells else ""] in served.seen())
    for path, end in (
        ("/close", (4001, "mine")),
        ("/return", (1000, "")),
        ("/raise", (1011, "internal_error")),
    ):
        with served.connect(path) as client:
            assert end_of(client) == end


def check_denial(served: Served) -> None:
    """An HTTP answer in the place of a WebSocket."""
    with pytest.raises(InvalidStatus) as caught:
        served.connect("/deny").__enter__()
    answer = caught.value.response
    told = answer.status_code, answer.headers.get("x-tea"), bytes(answer.body or b"")
    has_words = served.what == "class" or served.version >= DENIES
    assert told == ((418, "green", b"short and stout") if has_words else (403, None, b""))


def check_pings(served: Served) -> None:
    """Pings of the server's, for those who answer and for one who does not."""
    with served.connect("/ping") as client:
        assert client.recv(SOON) == "answered"
    address = ("127.0.0.1", served.port)
    with RawPeer(address) as lively, RawPeer(address) as silent:
        for peer in (lively, silent):
            assert peer.upgrade("/echo").split()[1] == b"101"
        for _ in range(3):
            ping = lively.read_frame()
            assert ping.opcode == PING
            lively.send(frame(PONG, ping.payload))
        silent.read_rest()  # to the end of the stream, which comes by itself


RESTART = (1012, "restart")


def check_sigterm(served: Served, told: tuple[int, str]) -> None:
    with served.connect("/echo") as one, served.connect("/echo") as two:
        served.process.send_signal(signal.SIGTERM)
        assert [end_of(each) for each in (one, two)] == [told] * 2
    assert served.process.wait(SOON) in {0, -signal.SIGTERM}
    # The oldest one's lines are there twice: by its own handler, and by that of the root.
    assert set(complaints(served.log, "ASGI application", "Traceback")) == set()
    assert served.log.count("RuntimeError: on purpose") in {1, 2}


def test_the_page_names_the_oldest() -> None:
    page = (ROOT / "docs" / "asgi-servers.md").read_text()
    assert f"uvicorn is supported from {VERSIONS[0]} on" in page


@pytest.mark.slow
def test_our_class(installed: tuple[str, str], tmp_path: Path) -> None:
    with serve("class", installed, tmp_path) as served:
        check_messages(served, "/echo")
        check_denial(served)
        check_ends(served)
        check_pings(served)
        check_sigterm(served, RESTART)


@pytest.mark.slow
def test_our_door_on_its_own_class(installed: tuple[str, str], tmp_path: Path) -> None:
    with serve("door", installed, tmp_path) as served:
        check_messages(served, "/ours")
        check_messages(served, "/echo")
        check_denial(served)
        check_ends(served)
        check_sigterm(served, (1012, "") if served.version >= SAYS_GOODBYE else (1006, ""))


@pytest.mark.slow
def test_draining_at_sigterm(installed: tuple[str, str], tmp_path: Path) -> None:
    drain = {"WSM_DRAIN_ON_SIGTERM": "true", "WSM_DRAIN_OVER": "0.5"}
    with serve("door", installed, tmp_path, **drain) as served:
        with served.connect("/raise") as client:
            end_of(client)
        check_sigterm(served, RESTART)
        assert "SIGTERM: closing 2 sockets over 0.5 s" in served.log
