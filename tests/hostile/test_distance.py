"""A burst from one view to a client that is far away: nobody is closed for being far."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest
from flask import Flask

from tests.clients.python import connect
from tests.conftest import Served
from tests.support import TEXT, Frame
from ws_middleware import WebSockets

from .attack import KIB, Peer
from .distance import Distance

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws_middleware.net.outflow import Outflow

    Serve = Callable[[WebSockets], Served]

#: Seconds each way.
DELAY = 0.05
COUNT, SIZE = 10_000, 100


def message(number: int) -> str:
    return f"{number:0{SIZE}}"


def by_room(sockets: WebSockets) -> None:
    room = sockets.room("far")
    for number in range(COUNT):
        room.send(message(number))


def by_socket(sockets: WebSockets) -> None:
    (ws,) = sockets.user("ann").local()
    for number in range(COUNT):
        ws.send(message(number))


class App:
    """A served app with a view that sends all of it, to the one socket there is."""

    def __init__(self, serve: Serve, send: Callable[[WebSockets], None]) -> None:
        self.sockets = WebSockets(auth=lambda request: "ann")
        self.sockets.route("/ws/<room>")
        self.address = serve(self.sockets).address
        self._flask = Flask(__name__)
        self._flask.add_url_rule("/burst", view_func=self._burst)
        self._send = send

    def _burst(self) -> str:
        self._send(self.sockets)
        return "sent"

    def call_view(self) -> None:
        """Call it, in this thread as in a server's."""
        assert self._flask.test_client().get("/burst").text == "sent"

    def leave_to_us(self) -> Outflow:
        """Have the kernel keep little of what waits, and return what keeps the rest."""
        (ws,) = self.sockets.everyone.local()
        out: Outflow = ws.link.out  # type: ignore[attr-defined]
        kernel = out._transport.get_extra_info("socket")
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
        return out


@pytest.mark.parametrize("send", [by_room, by_socket])
def test_10000_messages_of_one_view_reach_a_client_100_ms_away(
    serve: Serve, send: Callable[[WebSockets], None]
) -> None:
    app = App(serve, send)
    with (
        Distance(app.address, DELAY) as far,
        connect(Served(app.sockets, far.address), "/ws/far") as client,
    ):
        out = app.leave_to_us()
        start = time.monotonic()
        app.call_view()
        view, waiting = time.monotonic() - start, out.waiting
        got = [client.recv(20) for _ in range(COUNT)]
        print(
            f"\n{send.__name__}: {view:.2f} s in the view, {time.monotonic() - start:.2f} s in "
            f"all, {waiting} waited"
        )
        assert got == [message(number) for number in range(COUNT)]
        assert client.ping().wait(5)
        assert client.latency >= 2 * DELAY  # it really is far away
        app.sockets.everyone.send("still open")
        assert client.recv(5) == "still open"


@pytest.mark.parametrize("send", [by_room, by_socket])
def test_they_fit_even_if_nothing_is_taken_before_the_view_has_ended(
    serve: Serve, send: Callable[[WebSockets], None]
) -> None:
    app = App(serve, send)
    with Peer(app.address, receive_buffer=4 * KIB) as peer:
        assert peer.upgrade("/ws/far", origin="http://localhost").startswith(b"HTTP/1.1 101 ")
        out = app.leave_to_us()
        app.call_view()
        app.sockets.everyone.send("behind them").result(10)
        assert out.waiting[0] > 0.9 * COUNT * SIZE
        for number in range(COUNT):
            assert peer.read_frame() == Frame(True, TEXT, message(number).encode())  # noqa: FBT003 - FIN
        assert peer.read_frame().payload == b"behind them"
        peer.leave()
