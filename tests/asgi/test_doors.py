"""One suite, every door and server: what holds on all of them, and what is known not to."""

from __future__ import annotations

import json
import secrets
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.asgi.questions import question
from tests.asgi.servers import ASGI, token
from tests.support import RawPeer

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

    from tests.asgi.servers import Running

#: Servers that write a line for each WebSocket, with its query.
WITH_ACCESS_LOG = {"gunicorn gthread", "werkzeug", "uvicorn sansio", "uvicorn wsproto"}
WITH_ACCESS_LOG |= {"uvicorn ours", "gunicorn uvicorn"}

IN, MESSAGES, END, NATIVE, PEERS = (
    "In",
    "Messages",
    "The end",
    "The app's own WebSockets",
    "Peers and processes",
)


def refused(server: Running, path: str, **options: Any) -> Any:
    """Return the HTTP answer that a client gets in place of a WebSocket."""
    with pytest.raises(InvalidStatus) as refusal, server.connect(path, **options):
        pass
    return refusal.value.response


def check_refusal(server: Running, path: str, status: int, code: str, **options: Any) -> Any:
    answer = refused(server, path, **options)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer.body)["code"] == code
    return answer


def closed(client: ClientConnection, timeout: float = 10) -> tuple[int, str]:
    """Return the close frame that comes next; 1006 where there is none."""
    with pytest.raises(ConnectionClosed) as end:
        client.recv(timeout)
    frame = end.value.rcvd
    return (1006, "") if frame is None else (frame.code, frame.reason)


# --- in ------------------------------------------------------------------------------------------


@question(IN, "a token in a header, as a subprotocol and in the query lets in")
def test_accept(server: Running) -> None:
    with server.connect("/ws/echo") as client:
        client.send("header")
        assert client.recv(10) == "header"
    offered: Any = ["bearer", token()]
    with server.connect("/ws/echo", user=None, subprotocols=offered) as client:
        assert client.subprotocol == "bearer"
        client.send("subprotocol")
        assert client.recv(10) == "subprotocol"
    with server.connect(f"/ws/echo?token={token()}", user=None) as client:
        client.send("query")
        assert client.recv(10) == "query"


@question(IN, "headers of the authenticator are on the 101")
def test_accept_headers(server: Running) -> None:
    with server.connect("/ws/cookie", user=None) as client:
        assert client.response is not None
        assert client.response.headers["X-One"] == "1"
        assert client.response.headers["Set-Cookie"] == "seen=yes"


@question(IN, "400: more subprotocols than anybody has")
def test_refuse_400(server: Running) -> None:
    offered: Any = [f"p{number}" for number in range(33)]
    check_refusal(server, "/ws/echo", 400, "upgrade_malformed", subprotocols=offered)


@question(IN, "401 with its body and its headers")
def test_refuse_401(server: Running) -> None:
    answer = check_refusal(server, "/ws/echo", 401, "credential_missing", user=None)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Cache-Control"] == "no-store"
    check_refusal(server, "/ws/echo?token=x.y.z", 401, "credential_refused", user=None)


@question(IN, "403: a page of another origin")
def test_refuse_origin(server: Running) -> None:
    check_refusal(server, "/ws/echo", 403, "origin_not_allowed", origin="https://evil.example")
    with server.connect("/ws/echo", origin=server.origin):
        pass


@question(IN, "403: not allowed by `authorize`")
def test_refuse_authorize(server: Running) -> None:
    check_refusal(server, "/ws/forbidden", 403, "not_allowed")


@question(IN, "a path of nobody's is refused: 404, or as the app has it")
def test_refuse_unknown(server: Running) -> None:
    assert refused(server, "/nowhere").status_code in ({403} if server.is_asgi else {404})


@question(IN, "429: too many sockets of one user, with `Retry-After`")
def test_refuse_429(server: Running) -> None:
    user = secrets.token_hex(4)
    with server.connect("/ws/once", user=user):
        answer = check_refusal(server, "/ws/once", 429, "too_many_connections", user=user)
        assert answer.headers["Retry-After"] == "60"
    server.until(lambda: can_connect(server, "/ws/once", user))


def can_connect(server: Running, path: str, user: str) -> bool:
    try:
        with server.connect(path, user=user):
            return True
    except InvalidStatus:
        return False


@question(IN, "503 while paused; open sockets are closed with 1013")
def test_refuse_503(server: Running) -> None:
    with server.connect("/ws/echo") as client:
        try:
            server.act("pause")
            assert closed(client)[0] == (4013 if server.name == "daphne" else 1013)
            answer = check_refusal(server, "/ws/echo", 503, "paused")
            assert answer.headers["Retry-After"] == "30"
        finally:
            server.act("resume")
    with server.connect("/ws/echo"):
        pass


@question(IN, "the authenticator's own answer is sent as it is")
def test_refuse_in_own_words(server: Running) -> None:
    answer = refused(server, "/ws/cookie?teapot=1", user=None)
    assert (answer.status_code, bytes(answer.body)) == (418, b"short and stout")
    assert answer.headers["X-Tea"] == "green"
    assert answer.headers["Set-Cookie"] == "a=b"


@question(IN, '`refuse_with="close"`: pages read 4401')
def test_refuse_as_close(server: Running) -> None:
    with server.connect("/ws/told", user=None) as client:
        assert closed(client)[0] == 4401
    offered: Any = ["chat"]
    with server.connect("/ws/told", user=None, subprotocols=offered) as client:
        assert client.subprotocol == "chat"
        assert closed(client)[0] == 4401


@question(IN, "no token is in the server's log")
def test_no_token_in_the_log(server: Running) -> None:
    good, bad = token(secrets.token_hex(8)), f"bad.{secrets.token_hex(8)}.token"
    with server.connect(f"/ws/echo?token={good}", user=None) as client:
        client.send("x")
        assert client.recv(10) == "x"
    with pytest.raises(InvalidStatus), server.connect(f"/ws/echo?token={bad}", user=None):
        pass
    if server.is_asgi:
        with server.connect(f"/native/known?token={good}", user=None) as client:
            assert json.loads(client.recv(10))[2] == "-"
    if server.name in WITH_ACCESS_LOG:  # and whatever came before is in it, too
        with server.connect(f"/ws/echo?marker={good[-20:]}"):
            server.until(lambda: f"marker={good[-20:]}" in server.log)
    assert good not in server.log
    assert bad not in server.log


# --- messages ------------------------------------------------------------------------------------


@question(MESSAGES, "text and binary come back as they went")
def test_echo(server: Running) -> None:
    with server.connect("/ws/echo") as client:
        for message in ("text", "é€😀", b"\x00\xff"):
            client.send(message)
            assert client.recv(10) == message


@question(MESSAGES, "empty messages")
def test_empty(server: Running) -> None:
    messages = ("", b"", "end")
    with server.connect("/ws/echo") as client:
        for message in messages:
            client.send(message)
        for message in messages:
            assert client.recv(10) == message


@question(MESSAGES, "1 MiB")
def test_large(server: Running) -> None:
    message = secrets.token_bytes(1024) * 1024
    with server.connect("/ws/echo") as client:
        client.send(message)
        assert client.recv(10) == message


@question(MESSAGES, "a byte over `message_size` is 1009")
def test_too_large(server: Running) -> None:
    with server.connect("/ws/echo") as client:
        client.send(b"x" * (1024**2 + 1))
        assert closed(client)[0] == 1009


@question(MESSAGES, "permessage-deflate: not used, or right")
def test_compression(server: Running) -> None:
    with server.connect("/ws/echo", compression="deflate") as client:
        for message in ("again and " * 1000, "again and " * 1000, secrets.token_bytes(5000)):
            client.send(message)
            assert client.recv(10) == message


@question(MESSAGES, "a `def` conversation, in a thread as long as the socket")
def test_blocking(server: Running) -> None:
    with server.connect("/ws/blocking") as client:
        for message in ("text", b"\x00\xff"):
            client.send(message)
            assert client.recv(10) == message


@question(MESSAGES, "a room, from a handler in a thread")
def test_rooms(server: Running) -> None:
    name = secrets.token_hex(4)
    with ExitStack() as stack:
        one, other, elsewhere = (
            stack.enter_context(server.connect(f"/ws/room/{each}"))
            for each in (name, name, f"{name}-2")
        )
        one.send("hello")
        assert one.recv(10) == other.recv(10) == "ws-events hello"
        with pytest.raises(TimeoutError):
            elsewhere.recv(0.2)


@question(MESSAGES, "every socket of a user, from another thread")
def test_user_sends(server: Running) -> None:
    user = secrets.token_hex(4)
    with ExitStack() as stack:
        tabs = [stack.enter_context(server.connect("/ws/ends", user=user)) for _ in range(3)]
        other = stack.enter_context(server.connect("/ws/ends"))
        for number in range(50):
            assert server.act("send", "user", user, number) == 3
        for each in tabs:
            assert [each.recv(10) for _ in range(50)] == [str(number) for number in range(50)]
        with pytest.raises(TimeoutError):
            other.recv(0.2)


# --- the end -------------------------------------------------------------------------------------


@question(END, "a handler that returns: 1000, after what it sent")
def test_handler_returns(server: Running) -> None:
    with server.connect("/ws/return") as client:
        assert client.recv(10) == "last"
        assert closed(client)[0] == 1000


@question(END, "a handler that raises: 1011")
def test_handler_raises(server: Running) -> None:
    with server.connect("/ws/raise") as client:
        client.send("x")
        assert closed(client) == (1011, "internal_error")


@question(END, "a handler's own code: 4000")
def test_handler_closes(server: Running) -> None:
    with server.connect("/ws/close/4000") as client:
        assert closed(client)[0] == 4000


@question(END, "a handler's reason")
def test_handler_closes_with_a_reason(server: Running) -> None:
    with server.connect("/ws/close/4000") as client:
        assert closed(client) == (4000, "since it was asked for")


@question(END, "codes of the protocol: 1001, 1008, 1012, 1013")
def test_handler_closes_with_a_code_of_the_protocol(server: Running) -> None:
    for code in (1001, 1008, 1012, 1013):
        with server.connect(f"/ws/close/{code}") as client:
            assert closed(client)[0] == code


@question(END, "a client's code is told")
def test_client_closes(server: Running) -> None:
    assert end_of(server, 4001, "bye")[0] == 4001


@question(END, "a client's reason is told")
def test_client_closes_with_a_reason(server: Running) -> None:
    assert end_of(server, 4001, "bye")[1] == "bye"


def end_of(server: Running, code: int, reason: str) -> list[Any]:
    """Return what a handler is told of a close."""
    before = len(server.seen("ends"))
    with server.connect("/ws/ends") as client:
        client.close(code, reason)
    server.until(lambda: len(server.seen("ends")) > before)
    return server.seen("ends")[-1]


@question(END, "a client that vanishes is an end, too")
def test_client_vanishes(server: Running) -> None:
    before = len(server.seen("ends"))
    with RawPeer(("127.0.0.1", server.port)) as peer:
        host = f"127.0.0.1:{server.port}"
        answer = peer.upgrade("/ws/ends", host=host, Authorization=f"Bearer {token()}")
        assert answer.split()[1] == b"101"
    server.until(lambda: len(server.seen("ends")) > before)
    assert server.seen("ends")[-1][0] in {1005, 1006}


@question(END, "a credential that expires: 4401")
def test_expiry(server: Running) -> None:
    with server.connect(f"/ws/echo?token={token(seconds=2)}", user=None) as client:
        assert closed(client)[0] == 4401


@question(END, "when all have gone, nobody is left")
def test_nobody_is_left(server: Running) -> None:
    with server.connect("/ws/ends"):
        server.until(lambda: server.act("count") > 0)
    server.until(lambda: server.act("count") == 0)


# --- the app's own -------------------------------------------------------------------------------


@question(NATIVE, "text, binary, empty and 1 MiB", on=ASGI)
def test_native_echo(server: Running) -> None:
    large = secrets.token_bytes(1024) * 1024
    with server.connect("/native/echo") as client:
        empty = () if server.name == "daphne" else ("", b"")
        for message in ("text", b"\x00\xff", *empty, large):
            client.send(message)
            assert client.recv(10) == message


@question(NATIVE, "refused by the guard: 401", on=ASGI)
def test_native_refuse_401(server: Running) -> None:
    check_refusal(server, "/native/echo", 401, "credential_missing", user=None)
    check_refusal(server, "/native/echo", 403, "origin_not_allowed", origin="https://evil.example")


@question(NATIVE, "it knows who it is, and the hub reaches it", on=ASGI)
def test_native_known(server: Running) -> None:
    user = secrets.token_hex(4)
    with server.connect("/native/known", user=user) as client:
        assert json.loads(client.recv(10)) == [user, user, None]
        assert server.act("send", "room", "natives", "to-the-room") == 1
        assert server.act("send", "user", user, "to-the-user") == 1
        assert [client.recv(10), client.recv(10)] == ["to-the-room", "to-the-user"]
    server.until(lambda: server.act("send", "room", "natives", "x") == 0)


@question(NATIVE, "its own HTTP refusal: status, headers, body", on=ASGI)
def test_native_deny(server: Running) -> None:
    answer = refused(server, "/native/deny")
    assert (answer.status_code, bytes(answer.body)) == (402, b"pay first")
    assert answer.headers["X-Price"] == "5"


@question(NATIVE, "it closes before it accepts: 403", on=ASGI)
def test_native_refuse(server: Running) -> None:
    assert refused(server, "/native/refuse").status_code == 403


@question(NATIVE, "it fails before it accepts: 500", on=ASGI)
def test_native_fails_early(server: Running) -> None:
    assert refused(server, "/native/early").status_code == 500


@question(NATIVE, "it returns: 1000", on=ASGI)
def test_native_returns(server: Running) -> None:
    with server.connect("/native/return") as client:
        assert client.recv(10) == "last"
        assert closed(client)[0] == 1000


@question(NATIVE, "it raises: 1011", on=ASGI)
def test_native_raises(server: Running) -> None:
    with server.connect("/native/raise") as client:
        client.send("x")
        assert closed(client)[0] == 1011


@question(NATIVE, "it closes: its code", on=ASGI)
def test_native_closes(server: Running) -> None:
    with server.connect("/native/close/4000") as client:
        assert closed(client)[0] == 4000
    with server.connect("/native/close/1012") as client:
        assert closed(client)[0] == 1012


@question(NATIVE, "a client's code is told", on=ASGI)
def test_native_client_closes(server: Running) -> None:
    before = len(server.seen("/native/echo"))
    with server.connect("/native/echo") as client:
        client.close(4001, "bye")
    server.until(lambda: len(server.seen("/native/echo")) > before)
    assert server.seen("/native/echo")[-1][0] == 4001


@question(NATIVE, "a byte over the guard's `message_size`: 1009 for both", on=ASGI)
def test_native_too_large(server: Running) -> None:
    with server.connect("/native/limited") as client:
        client.send(b"x" * 64 * 1024)
        assert client.recv(10) == b"x" * 64 * 1024
        before = len(server.seen("/native/limited"))
        client.send(b"x" * (64 * 1024 + 1))
        assert closed(client)[0] == 1009
    server.until(lambda: len(server.seen("/native/limited")) > before)
    assert server.seen("/native/limited")[-1] == [1009, "message_too_big"]


# --- the log -------------------------------------------------------------------------------------


@question(PEERS, "a day without faults leaves no complaint in the log")
def test_log(server: Running) -> None:
    since = len(server.log)
    with server.connect("/ws/echo") as client:
        client.send("x")
        assert client.recv(10) == "x"
    with pytest.raises(InvalidStatus), server.connect("/ws/echo", user=None):
        pass
    with server.connect("/ws/return") as client:
        assert client.recv(10) == "last"
    if server.is_asgi:
        with server.connect("/native/echo") as client:
            client.send("x")
            assert client.recv(10) == "x"
        with server.connect("/native/return") as client:
            assert client.recv(10) == "last"
    with server.connect("/ws/told", user=None) as client:
        closed(client)
    server.until(lambda: server.act("count") == 0)
    with server.connect("/ws/echo"):
        pass
    server.until(lambda: server.act("count") == 0)
    assert server.complaints(since=since) == []
