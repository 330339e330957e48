"""The demo's WebSockets over a real port, with a client that is no browser."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from examples.flask_app import create_app
from tests.examples.visitor import TOKEN_KEY, Browser, body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flask import Flask

    from examples.flask_app.db import Store

    Open = Callable[..., ClientConnection]

NOTIFICATIONS = "/ws/notifications"


def token_of(browser: Browser) -> str:
    token: str = body(browser.get("/token"))["token"]
    return token


def received(socket: ClientConnection, timeout: float = 5) -> Any:
    return json.loads(socket.recv(timeout))


def listen(app: Flask) -> str:
    host, port = app.extensions["websockets"].listen("127.0.0.1", 0)
    return f"ws://{host}:{port}"


def stop(app: Flask) -> None:
    app.extensions["websockets"].close(timeout=3).result(10)


@pytest.fixture
def base(app: Flask) -> Iterator[str]:
    yield listen(app)
    stop(app)


@pytest.fixture
def opened(base: str) -> Iterator[Open]:
    """Open sockets as a page does, the token as a subprotocol; closed when the test ends."""
    stack = ExitStack()

    def open_socket(path: str, who: Browser | str | None, **options: Any) -> ClientConnection:
        token = token_of(who) if isinstance(who, Browser) else who
        if token is not None:
            options["subprotocols"] = [Subprotocol("bearer"), Subprotocol(token)]
        socket: ClientConnection = connect(base + path, proxy=None, **options)
        return stack.enter_context(socket)

    with stack:
        yield open_socket


def refusal(opened: Open, path: str, who: Browser | str | None, **options: Any) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        opened(path, who, **options)
    response = caught.value.response
    return response.status_code, json.loads(response.body or b"{}")["code"]


# Who may connect


def test_a_member_gets_in(opened: Open, alice: Browser, bob: Browser) -> None:
    assert opened("/ws/chat/1", alice).subprotocol == "bearer"
    assert opened("/ws/chat/2", alice).subprotocol == "bearer"
    assert opened("/ws/chat/1", bob).subprotocol == "bearer"


@pytest.mark.parametrize("room", ["2", "99", "0", str(2**63)])
def test_others_than_members_get_403(opened: Open, bob: Browser, room: str) -> None:
    assert refusal(opened, f"/ws/chat/{room}", bob) == (403, "not_allowed")


@pytest.mark.parametrize("path", ["/ws/chat/1", NOTIFICATIONS])
def test_no_token_is_401(opened: Open, path: str) -> None:
    assert refusal(opened, path, None) == (401, "credential_missing")


def test_a_token_signed_with_another_key_is_401(opened: Open) -> None:
    claims = {"sub": "1", "exp": time.time() + 60}
    forged = jwt.encode(claims, "x" * 32, algorithm="HS256")
    assert refusal(opened, "/ws/chat/1", forged) == (401, "credential_refused")


def test_an_old_token_is_401(opened: Open) -> None:
    old = jwt.encode({"sub": "1", "exp": time.time() - 60}, TOKEN_KEY, algorithm="HS256")
    assert refusal(opened, "/ws/chat/1", old) == (401, "credential_expired")


def test_only_the_pages_of_the_demo_may_connect(opened: Open, alice: Browser) -> None:
    opened("/ws/chat/1", alice, origin=Origin("http://demo.test"))
    evil = Origin("http://evil.test")
    assert refusal(opened, "/ws/chat/1", alice, origin=evil) == (403, "origin_not_allowed")


def test_the_page_may_reach_the_port(guest: Browser) -> None:
    policy = guest.get("/login").headers["Content-Security-Policy"]
    assert "connect-src 'self' ws://127.0.0.1:* ws://localhost:*" in policy


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


@pytest.mark.parametrize("path", ["/ws/chat/1", NOTIFICATIONS])
def test_the_socket_ends_with_its_token(
    app: Flask, opened: Open, alice: Browser, path: str
) -> None:
    app.config["TOKEN_LIFETIME"] = 2  # `exp` is whole seconds: with 1 it might be over already
    socket = opened(path, alice)
    with pytest.raises(ConnectionClosed):
        socket.recv(5)
    assert (socket.close_code, socket.close_reason) == (4401, "credential_expired")
    opened(path, alice)  # a new token opens a new one


def test_each_app_has_its_own_sockets(
    app: Flask, opened: Open, alice: Browser, config: dict[str, Any], tmp_path: Path
) -> None:
    database = shutil.copy(config["DATABASE"], tmp_path / "other.sqlite3")
    other = create_app({**config, "DATABASE": database})
    try:
        url = f"{listen(other)}/ws/chat/1"
        headers = {"Authorization": f"Bearer {token_of(Browser(other).login('bob'))}"}
        with connect(url, additional_headers=headers, proxy=None) as to_bob:
            to_alice = opened("/ws/chat/1", alice)
            to_alice.send("here")
            assert received(to_alice)["text"] == "here"
            to_bob.send("there")
            assert received(to_bob)["text"] == "there"
    finally:
        stop(other)
    assert [line["text"] for line in app.extensions["store"].last_messages(1)] == ["here"]
