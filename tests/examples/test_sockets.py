"""The demo's WebSockets on its own port, with a client that is no browser."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin
from werkzeug.serving import make_server

from examples.flask_app import create_app
from tests.examples.visitor import Browser, body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flask import Flask

    from examples.flask_app.db import Store

    Open = Callable[..., ClientConnection]

NOTIFICATIONS = "/ws/notifications"


def received(socket: ClientConnection, timeout: float = 5) -> Any:
    return json.loads(socket.recv(timeout))


@contextmanager
def serve(app: Flask) -> Iterator[str]:
    """Serve as `make demo` does; yields the address without its scheme."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        app.extensions["websockets"].close(timeout=3).result(10)
        server.shutdown()
        thread.join()
        server.server_close()


def open_socket(
    address: str, path: str, who: Browser | None, *, origin: str | None = ""
) -> ClientConnection:
    """Open a socket as a page of this address, or of `origin`, does."""
    socket: ClientConnection = connect(
        f"ws://{address}{path}",
        origin=None if origin is None else Origin(origin or f"http://{address}"),
        additional_headers=who.cookie if who else None,
        proxy=None,
    )
    return socket


@pytest.fixture
def opened(app: Flask) -> Iterator[Open]:
    """Open sockets to the app; they are closed when the test ends."""
    with serve(app) as address, ExitStack() as stack:
        yield lambda *given, **how: stack.enter_context(open_socket(address, *given, **how))


def refusal(
    opened: Open, path: str, who: Browser | None, **options: str | None
) -> tuple[int, bytes]:
    with pytest.raises(InvalidStatus) as caught:
        opened(path, who, **options)
    response = caught.value.response
    return response.status_code, bytes(response.body or b"")


# Who may connect


def test_a_member_gets_in(opened: Open, alice: Browser, bob: Browser) -> None:
    opened("/ws/chat/1", alice)
    opened("/ws/chat/2", alice)
    opened("/ws/chat/1", bob)


@pytest.mark.parametrize("room", ["2", "99", "0", str(2**63)])
def test_others_than_members_get_403(opened: Open, bob: Browser, room: str) -> None:
    status, body = refusal(opened, f"/ws/chat/{room}", bob)
    assert (status, json.loads(body)["code"]) == (403, "not_allowed")


@pytest.mark.parametrize("path", ["/ws/chat/1", NOTIFICATIONS])
def test_nobody_gets_the_apps_own_401(opened: Open, path: str) -> None:
    status, body = refusal(opened, path, None)
    assert (status, b"<title>Unauthorized" in body) == (401, True)


def test_after_a_logout_there_is_no_way_in(opened: Open, alice: Browser) -> None:
    alice.post("/logout")
    assert refusal(opened, "/ws/chat/1", alice)[0] == 401


@pytest.mark.parametrize(
    ("origin", "code"), [("http://evil.test", "origin_not_allowed"), (None, "origin_missing")]
)
def test_only_the_pages_of_the_demo_may_connect(
    opened: Open, alice: Browser, origin: str | None, code: str
) -> None:
    status, body = refusal(opened, "/ws/chat/1", alice, origin=origin)
    assert (status, json.loads(body)["code"]) == (403, code)


def test_the_page_may_connect_to_its_own_origin(guest: Browser) -> None:
    policy = guest.get("/login").headers["Content-Security-Policy"].split("; ")
    assert "connect-src 'self'" in policy


# What is said


def test_a_line_reaches_the_others_and_the_sender(
    opened: Open, alice: Browser, bob: Browser, store: Store
) -> None:
    to_alice, to_bob = opened("/ws/chat/1", alice), opened("/ws/chat/1", bob)
    to_alice.send("  grüße 👋 ")
    line = received(to_bob)
    assert (line["from"], line["text"], line["room"]) == ("alice", "grüße 👋", 1)
    assert received(to_alice) == line
    assert store.last_messages(1) == [line]


def test_a_line_stays_in_its_room(opened: Open, alice: Browser, bob: Browser) -> None:
    desk, hall, to_bob = (
        opened("/ws/chat/2", alice),
        opened("/ws/chat/1", alice),
        opened("/ws/chat/1", bob),
    )
    desk.send("a secret")
    assert received(desk)["text"] == "a secret"
    hall.send("hello all")
    assert received(to_bob)["text"] == "hello all"


@pytest.mark.parametrize("text", ["", " \n ", "x" * 2001, b"hello"])
def test_a_bad_line_is_answered_and_not_stored(
    opened: Open, alice: Browser, store: Store, text: str | bytes
) -> None:
    socket = opened("/ws/chat/1", alice)
    socket.send(text)
    assert received(socket) == {"error": "A message is text of 1 to 2000 characters."}
    assert store.last_messages(1) == []
    socket.send("x" * 2000)
    assert received(socket)["text"] == "x" * 2000


def test_lines_keep_their_order(opened: Open, alice: Browser, bob: Browser) -> None:
    to_alice, to_bob = opened("/ws/chat/1", alice), opened("/ws/chat/1", bob)
    for number in range(30):
        to_alice.send(f"number {number}")
    for socket in (to_alice, to_bob):
        assert [received(socket)["text"] for _ in range(30)] == [f"number {n}" for n in range(30)]


def test_a_post_reaches_the_sockets(opened: Open, alice: Browser, bob: Browser) -> None:
    to_bob = opened("/ws/chat/1", bob)
    alice.post("/rooms/1/messages", text="by form")
    assert received(to_bob)["text"] == "by form"
    sent = body(alice.post_json("/rooms/1/messages", {"text": "by JSON"}))
    assert received(to_bob) == sent


def test_an_announcement_reaches_everybody(opened: Open, alice: Browser, bob: Browser) -> None:
    sockets = [opened(NOTIFICATIONS, who) for who in (alice, bob, bob)]
    sent = body(alice.post_json("/announce", {"text": "lunch"}))
    assert [received(socket) for socket in sockets] == [sent] * 3
    bob.post("/announce", text="dinner")
    assert received(sockets[0])["text"] == "dinner"


# How it ends


def test_a_logout_closes_the_sockets_of_the_user(
    opened: Open, alice: Browser, bob: Browser
) -> None:
    to_bob = opened("/ws/chat/1", bob)
    sockets = [
        opened("/ws/chat/1", alice),
        opened("/ws/chat/1", alice),
        opened(NOTIFICATIONS, alice),
    ]
    alice.post("/logout")
    for socket in sockets:
        with pytest.raises(ConnectionClosed):
            socket.recv(5)
        assert (socket.close_code, socket.close_reason) == (4401, "logged_out")
    to_bob.send("still here")
    assert received(to_bob)["text"] == "still here"


def test_each_app_has_its_own_sockets(
    app: Flask, opened: Open, alice: Browser, config: dict[str, Any], tmp_path: Path
) -> None:
    database = shutil.copy(config["DATABASE"], tmp_path / "other.sqlite3")
    other = create_app({**config, "DATABASE": database})
    with (
        serve(other) as address,
        open_socket(address, "/ws/chat/1", Browser(other).login("bob")) as to_bob,
    ):
        to_alice = opened("/ws/chat/1", alice)
        to_alice.send("here")
        assert received(to_alice)["text"] == "here"
        to_bob.send("there")
        assert received(to_bob)["text"] == "there"
    assert [line["text"] for line in app.extensions["store"].last_messages(1)] == ["here"]
