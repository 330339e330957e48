"""Verdicts behind the ASGI door, whatever the peer, the server and the app do meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Literal

import jwt
import pytest

from ws_middleware import (
    Anonymous,
    ConfigError,
    JWTAuth,
    Limits,
    Principal,
    Refused,
    ServerLimits,
    WebSocket,
    WebSockets,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.net.asgi_door import Door

    OpenDoor = Callable[..., Door]

KEY = "k" * 32
PAGE = (b"origin", b"https://x.example")


class SlowAuth:
    """Answers when it is told to."""

    ambient = False

    def __init__(self, *, stubborn: bool = False) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = 0
        self._stubborn = stubborn

    async def __call__(self, request: object) -> str:
        self.asked.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            if not self._stubborn:
                raise
        return "ann"


def guarded_by(auth: Any, **policy: Any) -> WebSockets:
    sockets = WebSockets(auth=auth, **policy)
    sockets.route("/")
    return sockets


# --- while the verdict is out --------------------------------------------------------------------


def test_a_peer_that_hangs_up_has_its_authenticator_cancelled(open_door: OpenDoor) -> None:
    auth = SlowAuth()
    door = open_door(guarded_by(auth))
    connection = door.connect()
    assert door.engine.gate.counts == (1, 0, 0)
    connection.disconnect(1006)
    assert auth.cancelled == 1
    assert connection.sent == []
    assert connection.outcome is None
    door.check_nothing_left()


def test_a_receive_that_raises_is_a_peer_that_hangs_up(open_door: OpenDoor) -> None:
    auth = SlowAuth()
    door = open_door(guarded_by(auth))
    connection = door.connect().say(RuntimeError("gone"))
    assert auth.cancelled == 1
    assert connection.outcome is None
    door.check_nothing_left()


def test_a_server_that_ends_has_the_authenticator_cancelled(open_door: OpenDoor) -> None:
    auth = SlowAuth()
    door = open_door(guarded_by(auth))
    connection = door.connect().cancel()
    assert auth.cancelled == 1
    assert isinstance(connection.outcome, asyncio.CancelledError)
    assert connection.receiving == 0
    door.check_nothing_left()


@pytest.mark.parametrize("end", ["disconnect", "cancel"])
def test_a_yes_after_the_peer_has_gone_holds_no_place(open_door: OpenDoor, end: str) -> None:
    auth = SlowAuth(stubborn=True)
    door = open_door(guarded_by(auth, limits=Limits(connections_per_user=1)))
    connection = door.connect()
    getattr(connection, end)()
    assert auth.cancelled == 1
    assert connection.task.done()
    assert connection.sent == []
    door.check_nothing_left()


def test_what_else_comes_early_is_kept_for_later(open_door: OpenDoor) -> None:
    auth = SlowAuth()
    sockets = WebSockets(auth=auth)

    @sockets.route("/")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    door = open_door(sockets)
    connection = door.connect().text("early").text("next")
    assert connection.sent == []
    auth.go_on.set()
    door.settle()
    assert connection.messages == ["early", "next"]


def test_an_authenticator_has_so_long_and_no_longer(open_door: OpenDoor) -> None:
    auth = SlowAuth()
    door = open_door(guarded_by(auth, server_limits=ServerLimits(upgrade_timeout=3)))
    connection = door.connect()
    door.sleep(2.9)
    assert connection.sent == []
    door.sleep(0.2)
    assert connection.denial[0] == 503
    assert b"upgrade_timeout" in connection.denial[2]
    assert auth.cancelled == 1


def test_a_door_that_closes_refuses_who_is_still_being_asked_about(open_door: OpenDoor) -> None:
    auth = SlowAuth()
    sockets = guarded_by(auth)
    door = open_door(sockets)
    connection = door.connect()
    closed = sockets.close(timeout=3)
    door.sleep(4)
    auth.go_on.set()
    door.settle()
    assert closed.done
    assert connection.denial[0] == 503
    assert b"going_away" in connection.denial[2]


def test_a_yes_that_comes_together_with_the_end_of_the_door_is_a_no(open_door: OpenDoor) -> None:
    sockets = WebSockets(auth=Anonymous())

    async def authorize(user: Principal, request: object) -> bool:
        # The verdict is made in this turn, and acted upon in the next one.
        asyncio.get_running_loop().call_soon(lambda: sockets.close(timeout=3))
        return True

    sockets.route("/", authorize=authorize)
    door = open_door(sockets)
    connection = door.connect()
    door.sleep(4)
    assert connection.denial[0] == 503
    door.check_nothing_left()


@pytest.mark.parametrize("where", ["judge_here", "open"])
def test_a_fault_of_ours_holds_nothing_either(
    open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*given: object) -> Any:
        raise ZeroDivisionError

    async def fail_later(*given: object) -> Any:
        raise ZeroDivisionError

    door = open_door(guarded_by(Anonymous()))
    monkeypatch.setattr(door.engine, where, fail if where == "open" else fail_later)
    connection = door.connect()
    assert isinstance(connection.outcome, ZeroDivisionError)
    assert connection.receiving == 0
    door.check_nothing_left()


# --- a no ----------------------------------------------------------------------------------------


def test_a_refusal_is_one_http_answer_with_its_length(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    connection = open_door(guarded_by(JWTAuth(KEY, algorithms=["HS256"]))).connect()
    status, headers, body = connection.denial
    assert status == 401
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"cache-control"] == b"no-store"
    assert not {b"connection", b"date", b"transfer-encoding"} & headers.keys()
    assert json.loads(body)["code"] == "credential_missing"
    assert connection.outcome is None
    assert connection.receiving == 0
    assert "refused /: credential_missing" in caplog.text


@pytest.mark.parametrize("extensions", [{}, None])
def test_a_server_without_http_answers_is_asked_to_close(
    open_door: OpenDoor, extensions: dict[str, Any] | None
) -> None:
    door = open_door(guarded_by(JWTAuth(KEY, algorithms=["HS256"])))
    connection = door.connect(extensions=extensions)
    assert connection.closed == (1008, "credential_missing")


@pytest.mark.parametrize("offered", [(), ("b", "a")])
def test_a_refusal_that_pages_can_read_is_an_accept_and_a_close(
    open_door: OpenDoor, offered: tuple[str, ...]
) -> None:
    sockets = guarded_by(JWTAuth(KEY, algorithms=["HS256"]), refuse_with="close")
    field = ((b"sec-websocket-protocol", ", ".join(offered).encode()),) if offered else ()
    connection = open_door(sockets).connect(headers=field, subprotocols=list(offered))
    assert connection.is_accepted
    assert connection.sent[0]["subprotocol"] == (offered[0] if offered else None)
    assert connection.closed == (4401, "credential_missing")


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("after websocket.close")])
def test_a_refusal_that_cannot_be_sent_is_no_error_of_the_servers(
    open_door: OpenDoor, error: Exception
) -> None:
    door = open_door(guarded_by(JWTAuth(KEY, algorithms=["HS256"])))
    connection = door.connect(held=True)
    connection.error = error
    assert connection.go_on().outcome is None


def test_a_refusal_that_hangs_is_given_up(open_door: OpenDoor) -> None:
    door = open_door(guarded_by(JWTAuth(KEY, algorithms=["HS256"])))
    connection = door.connect(held=True)
    door.sleep(29)
    assert not connection.task.done()
    door.sleep(2)
    assert connection.outcome is None


def test_the_apps_own_refusal_is_sent_as_it_is(open_door: OpenDoor) -> None:
    async def auth(request: object) -> None:
        headers = [("Set-Cookie", "a=b"), ("Content-Length", "99"), ("Connection", "close")]
        raise Refused(402, "pay_first", headers=headers, body=b"pay")

    connection = open_door(guarded_by(auth, origins=["https://x.example"])).connect(headers=(PAGE,))
    status, headers, body = connection.denial
    assert (status, body) == (402, b"pay")
    assert headers[b"set-cookie"] == b"a=b"
    assert b"connection" not in headers


@pytest.mark.parametrize("value", ["a\r\nx: y", "é€", "a\x00"])
def test_a_header_that_http_does_not_allow_is_a_500(
    open_door: OpenDoor, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def auth(request: object) -> None:
        raise Refused(402, headers=[("X-Secret", value)])

    connection = open_door(guarded_by(auth, origins=["https://x.example"])).connect(headers=(PAGE,))
    assert connection.denial[0] == 500
    assert b"authenticator_failed" in connection.denial[2]
    assert "'X-Secret'" in caplog.text


def test_a_path_of_nobodys_is_a_404_where_nothing_is_wrapped(open_door: OpenDoor) -> None:
    door = open_door(guarded_by(Anonymous()))
    door.engine.gate._rest = None  # as where the wrapped app serves HTTP only
    assert door.connect("/nowhere").denial[0] == 404


def test_two_hosts_in_one_request_are_a_400(open_door: OpenDoor) -> None:
    connection = open_door(guarded_by(Anonymous())).connect(headers=((b"host", b"evil"),))
    assert connection.denial[0] == 400


def test_every_refusal_gives_its_place_back(open_door: OpenDoor) -> None:
    door = open_door(guarded_by(JWTAuth(KEY, algorithms=["HS256"])))
    for _ in range(5):
        door.connect()
    door.check_nothing_left()


# --- tokens --------------------------------------------------------------------------------------


TOKEN = jwt.encode({"sub": "ann", "exp": 4_000_000_000}, KEY)


@pytest.mark.parametrize("is_good", [True, False])
def test_a_token_is_out_of_the_scope_before_anything_is_answered(
    open_door: OpenDoor,
    is_good: bool,  # noqa: FBT001
) -> None:
    token = TOKEN if is_good else "not-a-token"
    door = open_door(guarded_by(JWTAuth(KEY, algorithms=["HS256"])))
    field = f"chat, bearer, {token}".encode()
    connection = door.connect(
        held=True,
        query_string=f"a=1&token={token}".encode(),
        headers=((b"Sec-WebSocket-Protocol", field),),
        subprotocols=["chat", "bearer", token],
    )
    assert token not in str(connection.scope)
    assert connection.scope["query_string"] == b"a=1&token=-"
    assert connection.scope["subprotocols"] == ["chat", "bearer"]
    assert (b"sec-websocket-protocol", b"chat, bearer") in connection.scope["headers"]
    assert connection.go_on().is_accepted is is_good


@pytest.mark.parametrize("refuse_with", ["http", "close"])
@pytest.mark.parametrize("path", ["/prices/", "/rooms/1", "/nothing"])
def test_a_token_that_was_brought_to_a_wrong_path_is_out_of_the_scope_too(
    open_door: OpenDoor, path: str, refuse_with: Literal["http", "close"]
) -> None:
    async def nobody(_: object) -> None:
        pass

    sockets = WebSockets(auth=nobody, refuse_with=refuse_with)
    sockets.route("/prices", auth=JWTAuth(KEY, algorithms=["HS256"]))
    sockets.guard("/rooms/<int:room>")
    connection = open_door(sockets).connect(
        path,
        held=True,
        query_string=f"a=1&token={TOKEN}".encode(),
        headers=((b"origin", b"http://localhost"),),
        subprotocols=["bearer", TOKEN],
    )
    assert TOKEN not in str(connection.scope)
    assert connection.go_on().is_accepted is (refuse_with == "close")


# --- HTTP and the rest ---------------------------------------------------------------------------


def test_http_and_lifespan_pass_untouched(open_door: OpenDoor) -> None:
    passed: list[tuple[object, ...]] = []

    async def app(*given: object) -> None:
        passed.append(given)

    door = open_door(guarded_by(Anonymous()), app)
    for kind in ("http", "lifespan"):
        given = ({"type": kind}, object(), object())
        door.call(*given)
        assert passed.pop() == given


def test_a_connect_that_the_server_takes_for_http_is_answered(open_door: OpenDoor) -> None:
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def app(*given: object) -> None:
        sent.append("passed on")

    door = open_door(guarded_by(Anonymous()), app)
    scope = {"type": "http", "method": "CONNECT", "path": "/"}
    door.call(scope, None, send)
    assert sent[0]["status"] == 501
    sent.clear()
    door.call({**scope, "path": "/other"}, None, send)
    assert sent == ["passed on"]


def test_what_the_door_does_not_know_is_the_apps(open_door: OpenDoor) -> None:
    class App:
        state = "the app's"

        async def __call__(self, *given: object) -> None: ...

    middleware = open_door(guarded_by(Anonymous()), App()).middleware
    assert middleware.state == "the app's"
    with pytest.raises(AttributeError):
        _ = middleware.nothing


def test_a_policy_must_be_given_where_the_app_is_wrapped() -> None:
    async def app(*given: object) -> None: ...

    with pytest.raises(ConfigError, match="auth"):
        WebSockets().asgi(app)


def test_a_process_serves_from_the_first_call_and_not_before(open_door: OpenDoor) -> None:
    sockets = guarded_by(Anonymous())

    async def app(*given: object) -> None: ...

    sockets.asgi(app)
    assert sockets._fronts.serving is None
    door = open_door(sockets, app)
    assert not door.front.is_called
    door.call({"type": "lifespan"})
    assert door.front.is_called
