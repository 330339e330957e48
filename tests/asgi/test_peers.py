"""Peers that take nothing, apps that are slow, and servers that end, on every door and server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from tests.asgi.expected import AT_START
from tests.asgi.questions import question
from tests.asgi.servers import ASGI, NAMES, run, token
from tests.support import RawPeer, head

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

    from tests.asgi.servers import Running

PEERS = "Peers and processes"

#: Seconds that a send may hang to a peer that takes nothing. `write_timeout` is 0.5 on these paths,
#: on an ASGI server three times as much for one send. The servers themselves would wait for good.
HANGS, HANGS_ON_ASGI = 0.5, 1.5
#: Seconds after that in which whoever sends is free, by the clock of its own process.
FREED = 2.0
#: Seconds in which the test has heard of it: of all floods together, on a busy machine.
HEARD = HANGS_ON_ASGI + FREED + 5

#: Seconds in which a server must end.
ENDED = 10


@contextlib.contextmanager
def deaf(server: Running, path: str) -> Iterator[RawPeer]:
    """Connect, and read nothing but the answer."""
    host = f"127.0.0.1:{server.port}"
    with RawPeer(("127.0.0.1", server.port)) as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        answer = peer.upgrade(path, host=host, Authorization=f"Bearer {token()}")
        assert answer.split()[1] == b"101"
        yield peer


STOPPED = """
import sys, time
from websockets.sync.client import connect
url, bearer = sys.argv[1:]
options = {"max_size": None, "max_queue": 1, "compression": None}
with connect(url, additional_headers={"Authorization": bearer}, **options) as client:
    client.recv()
    print(client.local_address[1], flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def stopped(server: Running, path: str) -> Iterator[int]:
    """Connect from a port of another process, which is stopped when it has its first message."""
    url = f"ws://127.0.0.1:{server.port}{path}"
    command = [sys.executable, "-c", STOPPED, url, f"Bearer {token()}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        port = int(client.stdout.readline())
        client.send_signal(signal.SIGSTOP)
        try:
            yield port
        finally:
            client.kill()


# --- clients that are silently gone --------------------------------------------------------------

#: Seconds after which a client that is stopped must have been found, and its connection be gone:
#: interval and timeout are 1 on these paths; the last is for the cut, and the rest for a busy
#: machine.
FOUND = 1 + 1 + 5
GONE = 1 + 5


class Pinged(NamedTuple):
    """What became of two clients of one path, one of which was stopped."""

    #: What its handler or app was told.
    told: list[Any] | None
    #: Whether the server still had its connection.
    is_held: bool
    #: What came to the other one, which answered, up to its own last message.
    came: list[Any]


#: By server and path: all are asked at once.
_pinged: dict[str, dict[str, Pinged]] = {}


def ping(server: Running, path: str) -> Pinged:
    """Have a client stopped while nothing is sent to it, beside one that is there."""
    if server.name not in _pinged:
        _pinged[server.name] = _ping(server)
    return _pinged[server.name][path]


def _ping(server: Running) -> dict[str, Pinged]:
    paths = ["/ws/pinged", *(["/native/pinged"] if server.is_asgi else [])]
    with contextlib.ExitStack() as stack:
        there = {path: Answering(stack.enter_context(server.connect(path))) for path in paths}
        ports = {path: stack.enter_context(stopped(server, path)) for path in paths}

        def is_over() -> bool:
            for each in there.values():
                each.answer()
            return all(server.seen(path) for path in paths)

        with contextlib.suppress(AssertionError):
            server.until(is_over, FOUND)
        told = {path: next(iter(server.seen(path)), None) for path in paths}
        with contextlib.suppress(AssertionError):
            server.until(lambda: not _held(server) & {*ports.values()}, GONE)
        held = _held(server)
        return {path: Pinged(told[path], ports[path] in held, there[path].end()) for path in paths}


def _held(server: Running) -> set[int]:
    """Return the ports of the clients whose connections a server's processes have."""
    process = psutil.Process(server.process.pid)
    processes = [process, *process.children(recursive=True)]
    found = [each for one in processes for each in one.net_connections("tcp")]
    return {each.raddr.port for each in found if each.raddr}


class Answering:
    """A client that answers pings which are messages."""

    def __init__(self, client: ClientConnection) -> None:
        self._client = client
        self._came: list[Any] = []

    def answer(self) -> None:
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            self._came.append(self._client.recv(0.02))
            if self._came[-1] == "ping":
                self._client.send("pong")

    def end(self) -> list[Any]:
        """Say a last thing, and return all that came."""
        with contextlib.suppress(ConnectionClosed):
            self._client.send("still here")
        end = time.monotonic() + 5
        while "still here" not in self._came and time.monotonic() < end:
            self.answer()
        return self._came


@question(PEERS, "a client that is silently gone is found: by pings, or by `app_ping`")
def test_a_silent_client_is_found(server: Running) -> None:
    gone = ping(server, "/ws/pinged")
    assert gone.told is not None
    assert gone.told[0] == 1011
    assert not gone.is_held


@question(PEERS, "so it is for the app's own WebSockets", on=ASGI)
def test_a_silent_client_of_an_app_is_found(server: Running) -> None:
    gone = ping(server, "/native/pinged")
    assert gone.told is not None
    assert not gone.is_held


@question(PEERS, "one that answers stays, and no handler and no app is given its answers")
def test_a_client_that_answers_stays(server: Running) -> None:
    for path in ["/ws/pinged", *(["/native/pinged"] if server.is_asgi else [])]:
        hello, *pings, last = ping(server, path).came
        assert (hello, last) == ("hello", "still here")
        assert set(pings) <= {"ping"}
        assert bool(pings) == (server.is_asgi and server.name != "uvicorn ours")


#: What became of floods, by server: a minute is saved by asking all at once.
_floods: dict[str, dict[str, Any]] = {}


def flood(server: Running, name: str) -> Any:
    """Return how a flood to a peer that takes nothing ended, and the seconds of its last send.

    `None`, and no end of them, if it has not ended. And what "count" is then.
    """
    if server.name not in _floods:
        paths = ["/ws/flood", *(["/native/flood", "/native/stopped"] if server.is_asgi else [])]
        with contextlib.ExitStack() as stack:
            for path in paths:
                connect = stopped if path.endswith("stopped") else deaf
                stack.enter_context(connect(server, path))
            with contextlib.suppress(AssertionError):
                server.until(lambda: all(server.seen(path) for path in paths), HEARD)
            with contextlib.suppress(AssertionError):
                server.until(lambda: server.act("count") == 0, 2)
            never = [[None, float("inf")]]
            _floods[server.name] = {path: (server.seen(path) or never)[-1] for path in paths}
            _floods[server.name]["count"] = server.act("count")
    return _floods[server.name][name]


def check_freed(server: Running, path: str, *names: str) -> None:
    name, seconds = flood(server, path)
    assert name in names
    assert seconds < (HANGS_ON_ASGI if server.is_asgi else HANGS) + FREED


@question(PEERS, "a handler whose client reads nothing is freed in time")
def test_a_handler_is_freed(server: Running) -> None:
    check_freed(server, "/ws/flood", "ConnectionClosed", "CancelledError")
    assert flood(server, "count") == 0


@question(PEERS, "an app whose client reads nothing is freed of its `send()` in time", on=ASGI)
def test_an_app_is_freed(server: Running) -> None:
    check_freed(server, "/native/flood", "WebSocketDisconnect")


@question(PEERS, "so it is when the client's process is stopped", on=ASGI)
def test_an_app_is_freed_of_a_client_that_is_stopped(server: Running) -> None:
    check_freed(server, "/native/stopped", "WebSocketDisconnect")


UVICORN = tuple(name for name in ASGI if name.startswith("uvicorn"))


@question(PEERS, "a slow app with a live peer is not killed by the server's pings", on=UVICORN)
def test_a_slow_app_is_not_killed(server: Running, tmp_path: Path) -> None:
    pings = ("--ws-ping-interval", "0.5", "--ws-ping-timeout", "0.5")
    with (
        run(server.name, tmp_path, *pings) as pinged,
        pinged.connect("/native/slow?seconds=3", ping_interval=None) as client,
    ):
        for number in range(5):
            client.send(str(number))
        assert [client.recv(10) for _ in range(5)] == [str(number) for number in range(5)]


WITH_A_HOST = tuple(name for name in NAMES if name != "own port")


@question(PEERS, "`sockets.close(code=1012)`: all are told, and later ones let in", on=WITH_A_HOST)
def test_close(server: Running) -> None:
    with contextlib.ExitStack() as stack:
        paths = ["/ws/ends", "/ws/room/close", *(["/native/echo"] if server.is_asgi else [])]
        clients = [stack.enter_context(server.connect(path)) for path in paths]
        server.act("close", 1012)
        assert [_code(client) for client in clients] == [1012] * len(clients)
    with server.connect("/ws/echo") as client:
        client.send("as new")
        assert client.recv(10) == "as new"


# --- the end of a server -------------------------------------------------------------------------


class Ended(NamedTuple):
    """How a server has ended."""

    #: Seconds; `None` if it had to be killed.
    took: float | None
    #: What idle clients of a route of ours, and of the app's own, were told.
    codes: list[int | None]
    complaints: list[str]


#: With idle clients, and with a crowd beside them; by server, as above.
_ended: dict[str, tuple[Ended, Ended]] = {}


def end(server: Running, folder: Path) -> tuple[Ended, Ended]:
    """End two servers of this kind, which have clients, at once."""
    if server.name == "hypercorn" and sys.version_info >= (3, 12):
        pytest.xfail("it awaits Server.wait_closed(), which has waited for connections since 3.12")
    if server.name not in _ended:
        for name in ("idle", "crowded"):
            (folder / name).mkdir()
        with (
            run(server.name, folder / "idle") as idle,
            run(server.name, folder / "crowded") as crowded,
            ThreadPoolExecutor(2) as pool,
        ):
            ends = pool.map(_end, (idle, crowded), (False, True))
            _ended[server.name] = next(ends), next(ends)
    return _ended[server.name]


def _end(server: Running, is_crowded: bool) -> Ended:  # noqa: FBT001
    with contextlib.ExitStack() as stack:
        paths = ["/ws/ends", *(["/native/echo"] if server.is_asgi else [])]
        clients = [stack.enter_context(server.connect(path)) for path in paths]
        for prefix in ["/ws", *(["/native"] if server.is_asgi else [])] if is_crowded else []:
            stack.enter_context(crowd(server, prefix))
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        codes = [_code(client) for client in clients]
        took = time.monotonic() - began if server.ends_within(2 * ENDED) else None
        return Ended(took, codes, server.complaints(*AT_START.get(server.name, ())))


@contextlib.contextmanager
def crowd(server: Running, prefix: str) -> Iterator[None]:
    """Have clients that take nothing, that are not let in yet, and that never stop to send."""
    host, path = f"127.0.0.1:{server.port}", f"{prefix}/undecided"
    with (
        deaf(server, f"{prefix}/flood"),
        RawPeer(("127.0.0.1", server.port)) as waiting,
        server.connect(f"{prefix}/echo") as busy,
        ThreadPoolExecutor(2) as pool,
    ):
        waiting.send(head(path, host=host, Authorization=f"Bearer {token()}"))
        server.until(lambda: server.seen(path))
        ends = [pool.submit(_send_on, busy), pool.submit(_receive_on, busy)]
        yield
        for each in ends:
            each.result(3 * ENDED)


def _send_on(client: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.send(b"x" * 1000)


def _receive_on(client: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.recv()


def _code(client: ClientConnection) -> int | None:
    try:
        client.recv(2 * ENDED)
    except ConnectionClosed as gone:
        return 1006 if gone.rcvd is None else gone.rcvd.code
    except TimeoutError:
        return None
    pytest.fail("nothing was sent")


@question(PEERS, "SIGTERM: it ends within 10 s", slow=True)
def test_sigterm(server: Running, tmp_path: Path) -> None:
    took = end(server, tmp_path)[0].took
    assert took is not None
    assert took < ENDED


@question(PEERS, "SIGTERM: clients are told 1012; on a port of our own 1001", slow=True)
def test_sigterm_code(server: Running, tmp_path: Path) -> None:
    promised = 1001 if server.name == "own port" else 1012
    assert set(end(server, tmp_path)[0].codes) == {promised}


@question(PEERS, "SIGTERM: no complaint in the log", slow=True)
def test_sigterm_log(server: Running, tmp_path: Path) -> None:
    assert end(server, tmp_path)[0].complaints == []


@question(
    PEERS,
    "SIGTERM with clients that read nothing, never stop to send, or wait to be let in: the same",
    slow=True,
)
def test_sigterm_crowded(server: Running, tmp_path: Path) -> None:
    took = end(server, tmp_path)[1].took
    assert took is not None
    assert took < ENDED


def test_the_machine_can_stop_processes() -> None:
    """What the questions above lean on."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        child.send_signal(signal.SIGSTOP)
        assert os.waitid(os.P_PID, child.pid, os.WSTOPPED) is not None
        child.kill()
