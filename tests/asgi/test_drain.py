"""`drain_on_sigterm` on every ASGI server: the sockets first, spread, then the server as ever."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.asgi.expected import AT_START
from tests.asgi.servers import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

    from tests.asgi.servers import Running

pytestmark = pytest.mark.slow

#: Seconds over which closes are spread, and sockets.
OVER, SOCKETS = 1.2, 6
#: Seconds within which a server has ended that has nothing to wait for any more.
SOON = 8.0


class Served(NamedTuple):
    """A server, and how it is with it."""

    name: str
    options: tuple[str, ...] = ()
    #: The status of its process when SIGTERM ends it.
    status: int = 0
    code: int = 1012
    #: What a socket is answered that comes too late.
    late: int = 503

    def __str__(self) -> str:
        return " ".join((self.name, *self.options))


SERVERS = [
    Served("uvicorn sansio", status=-signal.SIGTERM),
    Served("uvicorn ours", status=-signal.SIGTERM),
    Served("uvicorn ours", ("--loop", "asyncio"), status=-signal.SIGTERM),
    Served("gunicorn uvicorn"),
    Served("gunicorn asgi", late=403),
    Served("gunicorn asgi", ("--asgi-loop", "asyncio"), late=403),
    Served("granian"),
    Served("granian", ("--loop", "asyncio")),
    Served("hypercorn", ("--workers", "0")),
    Served("daphne", code=4012, late=403),
]


def by_name(served: Served) -> str:
    return str(served)


@contextlib.contextmanager
def draining(served: Served, folder: Path, over: float) -> Iterator[Running]:
    environ = {"WSM_DRAIN_ON_SIGTERM": "true", "WSM_DRAIN_OVER": str(over)}
    with run(served.name, folder, *served.options, environ=environ) as server:
        yield server


@contextlib.contextmanager
def crowd(server: Running) -> Iterator[list[ClientConnection]]:
    """Sockets of a route of ours and of the app's own, by turns."""
    paths = ["/ws/ends", "/native/echo"] * (SOCKETS // 2)
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.connect(path)) for path in paths]


def end_of(client: ClientConnection) -> tuple[float, int]:
    """Return when a client was told of the end, and with which code."""
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(30)
    return time.monotonic(), 1006 if caught.value.rcvd is None else caught.value.rcvd.code


def answer_of(server: Running) -> int:
    """Return what a socket is answered now."""
    try:
        with server.connect("/ws/echo"):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


@pytest.mark.parametrize("served", SERVERS, ids=by_name)
def test_the_sockets_are_closed_over_a_while_and_then_the_server_ends(
    served: Served, tmp_path: Path
) -> None:
    with (
        draining(served, tmp_path, OVER) as server,
        crowd(server) as clients,
        ThreadPoolExecutor(SOCKETS) as pool,
    ):
        assert server.act("ready") == []
        ends = [pool.submit(end_of, client) for client in clients]
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: any(each.done() for each in ends))
        assert server.act("ready") == ["draining"]
        assert answer_of(server) == served.late
        with urlopen(server.origin, timeout=5) as page:
            assert page.status == 200
        assert not all(each.done() for each in ends), "all that was meanwhile"
        times, codes = zip(*[each.result(20) for each in ends], strict=True)
        assert set(codes) == {served.code}
        # The last one comes a pause before the end; half of that is for a busy machine.
        assert max(times) - min(times) > OVER * (SOCKETS - 1) / SOCKETS / 2
        assert server.ends_within(SOON)
        assert server.process.returncode == served.status
        expected = AT_START.get(server.name, ())
        assert server.complaints("going_away", "without completing handshake", *expected) == []


@pytest.mark.parametrize("served", SERVERS, ids=by_name)
def test_a_second_sigterm_is_the_servers_at_once(served: Served, tmp_path: Path) -> None:
    # gunicorn itself would end a drain of a minute after its graceful timeout of five seconds.
    patience = ("--graceful-timeout", "60") if served.name.startswith("gunicorn") else ()
    served = served._replace(options=(*served.options, *patience))
    with draining(served, tmp_path, 60) as server:
        with crowd(server), server.connect("/ws/member/x") as client:
            pid = int(client.recv(10))
            server.process.send_signal(signal.SIGTERM)
            server.until(lambda: "SIGTERM: closing" in server.log)
            heard = time.monotonic()
            server.until(lambda: time.monotonic() - heard > 1.1)  # before, it is still the first
            assert server.process.poll() is None
            os.kill(pid, signal.SIGTERM)  # a master keeps a second one to itself
        assert server.ends_within(SOON)  # gunicorn's own worker waits for the clients to go
        assert server.process.returncode == served.status


@pytest.mark.parametrize("is_on", [True, False])
def test_where_a_worker_gets_no_signal_it_is_said_at_the_start(
    is_on: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    environ = {"WSM_DRAIN_ON_SIGTERM": str(is_on)}
    with run("hypercorn", tmp_path, environ=environ) as server:
        said = [line for line in server.log.splitlines() if "drain_on_sigterm" in line]
        assert len(said) == is_on
        for line in said:
            assert "WARNING ws_middleware.drain drain_on_sigterm=True does nothing here" in line
            assert line.endswith("or start hypercorn with --workers 0")
        with server.connect("/ws/echo") as client:
            client.send("x")
            assert client.recv(10) == "x"
        server.process.send_signal(signal.SIGTERM)
        assert server.ends_within(SOON)
        assert server.process.returncode == 0


def as_a_shell(server: Running) -> None:
    server.process.send_signal(signal.SIGTERM)


def as_systemd(server: Running) -> None:
    """Have all processes get it, and the workers that of their master besides."""
    os.killpg(server.process.pid, signal.SIGTERM)


@pytest.mark.parametrize("name", ["uvicorn sansio", "gunicorn asgi", "granian"])
@pytest.mark.parametrize("end", [as_a_shell, as_systemd])
def test_every_worker_of_several_drains(
    name: str, end: Callable[[Running], None], tmp_path: Path
) -> None:
    environ = {"WSM_DRAIN_ON_SIGTERM": "true", "WSM_DRAIN_OVER": str(2 * OVER)}
    with (
        run(name, tmp_path, workers=2, environ=environ) as server,
        contextlib.ExitStack() as stack,
        ThreadPoolExecutor(100) as pool,
    ):
        clients: dict[ClientConnection, object] = {}
        while len(set(clients.values())) < 2 or len(clients) < SOCKETS:
            assert len(clients) < 100, "the kernel gives all connections to one worker"
            client = stack.enter_context(server.connect("/ws/member/lobby"))
            clients[client] = client.recv(10)
        ends = [pool.submit(end_of, client) for client in clients]
        end(server)
        times, codes = zip(*[each.result(20) for each in ends], strict=True)
        assert set(codes) == {1012}
        most = max(Counter(clients.values()).values())
        assert max(times) - min(times) > 2 * OVER * (most - 1) / most / 2
        assert server.ends_within(SOON)
        assert server.log.count("SIGTERM: closing") == 2
        assert server.complaints(*AT_START.get(server.name, ())) == []
