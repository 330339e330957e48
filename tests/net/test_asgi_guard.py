"""A wrapped app's own WebSockets behind the ASGI door: apps that behave, and apps that do not."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from tests.net.asgi_door import DENIAL, Control
from ws_middleware import (
    Anonymous,
    Granted,
    JWTAuth,
    Limits,
    Principal,
    ServerLimits,
    WebSocket,
    WebSockets,
)
from ws_middleware.net.asgi_outgoing import PeerGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.net.asgi_door import Connection, Door

    OpenDoor = Callable[..., Door]

PAGE = (b"origin", b"https://x.example")


class Run:
    """One connection's run of a wrapped app, which does what the test wants, step by step."""

    def __init__(self, app: App, scope: dict[str, Any]) -> None:
        self.scope = scope
        self.received: list[Any] = []
        #: What its own sends have raised.
        self.raised: list[BaseException] = []
        self.ended: BaseException | None = None
        self._app = app
        self._steps: asyncio.Queue[Any] = asyncio.Queue()

    async def run(self, receive: Any, send: Any) -> None:
        try:
            while (step := await self._steps.get()) is not None:
                await self._take(step, receive, send)
        except BaseException as error:
            self.ended = error
            raise

    async def _take(self, step: Any, receive: Any, send: Any) -> None:
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            await step(self, receive, send)
        elif step == "receive":
            self.received.append(await receive())
        else:
            try:
                await send(step)
            except Exception as error:
                self.raised.append(error)

    def do(self, *steps: Any) -> Run:
        """Have it receive, send an event, raise, call a function, or (`None`) return."""
        for step in steps:
            self._steps.put_nowait(step)
        assert self._app.door is not None
        self._app.door.settle()
        return self


class App:
    """The wrapped app."""

    def __init__(self) -> None:
        self.door: Door | None = None
        self.runs: list[Run] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.runs.append(Run(self, scope))
        await self.runs[-1].run(receive, send)


def wrap(open_door: OpenDoor, sockets: WebSockets) -> tuple[Door, list[Run]]:
    """Open a door before an app, whose runs come into the list."""
    app = App()
    app.door = open_door(sockets, app)
    return app.door, app.runs


ACCEPT = {"type": "websocket.accept"}


def close(code: int = 1000, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.close", "code": code, "reason": reason}


def text(data: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": data}


def start(status: int, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": f"{DENIAL}.start", "status": status, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": f"{DENIAL}.body", "body": data, "more_body": more}


async def auth(request: Any) -> Principal:
    user = request.query.get("user", "ann")
    return Principal(user, expires_at=request.received_at + 3600)


def begin(
    open_door: OpenDoor, path: str = "/", *, accepts: bool = True, **options: Any
) -> tuple[Door, Run, Connection]:
    """Connect to a guarded app, which has accepted it; `options` are of the policy or the scope."""
    policy = {name: options.pop(name) for name in POLICY & options.keys()}
    sockets = WebSockets(auth=auth, origins=["https://x.example"], **policy)
    door, runs = wrap(open_door, sockets)
    connection = door.connect(path, headers=(PAGE,), **options)
    (app,) = runs
    if accepts:
        app.do("receive", ACCEPT)
        assert app.received.pop() == {"type": "websocket.connect"}
    return door, app, connection


POLICY = {"limits", "server_limits", "refuse_with", "slow"}


def disconnects(app: Run) -> tuple[int, str]:
    """Return the code and the reason that the app is told, as often as it asks."""
    app.do("receive", "receive")
    if app.received[0]["type"] == "websocket.connect":
        app.do("receive")
    first, again = app.received[-2:]
    assert first == again
    assert first["type"] == "websocket.disconnect"
    return first["code"], first["reason"]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name != "ws_middleware.asgi"]


def test_an_app_that_has_not_answered_a_client_that_left_is_cancelled(open_door: OpenDoor) -> None:
    door, app, connection = begin(open_door, accepts=False)
    lost: list[bool] = []

    async def ignore(run: Run, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            lost.append(True)
            raise

    app.do("receive", ignore)
    connection.disconnect()
    door.sleep(4.9)
    assert lost == []
    door.sleep(0.2)
    assert lost == [True]


def test_one_that_has_may_go_on_as_long_as_it_likes(open_door: OpenDoor) -> None:
    door, app, connection = begin(open_door)

    async def work(run: Run, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)
        run.received.append("done")

    app.do(work)
    connection.disconnect()
    door.sleep(61)
    assert app.received == ["done"]
    app.do(None)


# --- both ways -----------------------------------------------------------------------------------


def test_messages_pass_both_ways_each_as_one_of_text_and_bytes(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door)
    came: list[dict[str, Any]] = [
        {"type": "websocket.receive", "text": "a"},
        {"type": "websocket.receive", "bytes": b"b", "text": None},
        {"type": "websocket.receive", "bytes": b""},
    ]
    for event in came:
        connection.say(event)
    app.do("receive", "receive", "receive")
    came[1].pop("text")
    assert app.received == came
    both = {"type": "websocket.send", "text": None, "bytes": bytearray(b"d")}
    app.do(text("c"), both, text(""), {"type": "websocket.send", "bytes": memoryview(b"")})
    assert connection.messages == ["c", b"d", "", b""]
    assert {type(each) for each in connection.messages} == {str, bytes}
    app.do(None)
    assert connection.closed == (1000, "")
    assert connection.outcome is None


def test_an_app_may_receive_what_came_before_it_asked(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door, accepts=False)
    connection.text("early")
    app.do("receive", ACCEPT, "receive")
    assert [each["type"] for each in app.received] == ["websocket.connect", "websocket.receive"]


def test_the_scope_says_who_it_is(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door, state={"pool": 1}, query_string=b"user=bob")
    assert app.scope["state"]["ws_principal"].id == "bob"
    assert app.scope["user"].id == "bob"
    assert app.scope["state"]["pool"] == 1
    assert connection.scope["state"] == {"pool": 1}, "the server's own is nobody's place for a user"
    assert "user" not in connection.scope
    assert WebSockets.from_scope(app.scope).user.id == "bob"


def test_a_user_that_is_there_already_stays(open_door: OpenDoor) -> None:
    _, app, _ = begin(open_door, user="the app's own")
    assert app.scope["user"] == "the app's own"


def test_what_daphne_leaves_out_of_the_scope_is_there(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door, scheme=None, http_version=None, extensions=None)
    assert (app.scope["scheme"], app.scope["http_version"]) == ("ws", "1.1")
    assert app.scope["extensions"] == {}
    assert app.do(close(1012)).raised == []
    assert connection.closed == (4012, "")


def test_an_unguarded_scope_has_no_socket() -> None:
    with pytest.raises(RuntimeError, match="not guarded"):
        WebSockets.from_scope({})


def test_the_accept_has_what_app_and_authenticator_say(open_door: OpenDoor) -> None:
    async def auth(request: object) -> Granted:
        return Granted("ann", headers=(("X-Auth", "2"),))

    door, runs = wrap(open_door, WebSockets(auth=auth, origins=["https://x.example"]))
    connection = door.connect(headers=(PAGE,))
    runs[0].do({**ACCEPT, "subprotocol": "own", "headers": [(b"x-app", b"1")]})
    (accept,) = connection.sent
    assert accept["subprotocol"] == "own"
    assert accept["headers"] == [(b"x-app", b"1"), (b"x-auth", b"2")]


def test_a_token_that_came_as_a_subprotocol_is_answered_where_the_app_chooses_none(
    open_door: OpenDoor,
) -> None:
    door, runs = wrap(open_door, WebSockets(auth=JWTAuth("k" * 32, algorithms=["HS256"])))
    token = jwt.encode({"sub": "ann", "exp": 4_000_000_000}, "k" * 32)
    field = (b"sec-websocket-protocol", f"bearer, {token}".encode())
    connection = door.connect(headers=(field,), subprotocols=["bearer", token])
    assert runs[0].scope["subprotocols"] == ["bearer"]
    assert (b"sec-websocket-protocol", b"bearer") in runs[0].scope["headers"]
    runs[0].do(ACCEPT)
    assert connection.sent[0]["subprotocol"] == "bearer"


# --- which policy --------------------------------------------------------------------------------


def test_the_first_guard_that_matches_counts_and_the_apps_policy_for_the_rest(
    open_door: OpenDoor,
) -> None:
    async def nobody(request: object) -> None: ...

    sockets = WebSockets(auth=nobody, origins=["https://x.example"])
    public = sockets.guard("/ws/<path:rest>", auth=Anonymous(), name="public")
    sockets.guard("/ws/private", name="never")
    door, runs = wrap(open_door, sockets)
    assert door.connect("/elsewhere", headers=(PAGE,)).denial[0] == 401
    connection = door.connect("/ws/private", headers=(PAGE,))
    runs[0].do(ACCEPT)
    assert connection.is_accepted
    assert public.everyone.count() == 1
    assert WebSockets.from_scope(runs[0].scope).path_params == {"rest": "private"}


def test_a_route_of_ours_comes_before_every_guard(open_door: OpenDoor) -> None:
    sockets = WebSockets(auth=Anonymous())
    sockets.guard("/ws/<path:rest>", auth=JWTAuth("k" * 32, algorithms=["HS256"]))

    @sockets.route("/ws/ours")
    async def ours(ws: WebSocket) -> None:
        await ws.send("ours")

    assert open_door(sockets).connect("/ws/ours").messages == ["ours"]


def test_a_guard_has_sizes_and_numbers_only_where_it_names_them(open_door: OpenDoor) -> None:
    tight = Limits(message_size=10, connections_per_user=1)
    sockets = WebSockets(auth=auth, origins=["https://x.example"], limits=tight)
    sockets.guard("/small", limits=Limits(message_size=20))
    door, runs = wrap(open_door, sockets)
    large = door.connect("/large", headers=(PAGE,))
    small = [door.connect("/small", headers=(PAGE,)) for _ in range(2)]
    for each in runs:
        each.do("receive", ACCEPT)
    assert [each.is_accepted for each in (large, *small)] == [True] * 3
    large.text("x" * 1000)
    small[0].text("x" * 20)
    assert small[0].closed is None
    small[0].text("x" * 21)
    assert small[0].closed == (1009, "message_too_big")
    runs[0].do("receive")
    runs[1].do("receive")
    assert [len(each.received[-1]["text"]) for each in runs[:2]] == [1000, 20]
    assert disconnects(runs[1]) == (1009, "message_too_big")


# --- the end -------------------------------------------------------------------------------------


def test_an_app_that_raises_is_1011_and_the_servers_to_log(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door)
    app.do(ZeroDivisionError("x"))
    assert connection.closed == (1011, "internal_error")
    assert isinstance(connection.outcome, ZeroDivisionError)


@pytest.mark.parametrize(
    ("event", "sent"),
    [
        pytest.param(close(4000, "bye"), (4000, "bye"), id="own"),
        pytest.param({"type": "websocket.close"}, (1000, ""), id="bare"),
        pytest.param(close(1005), (1000, ""), id="not-sendable"),
        pytest.param(close(99999), (1000, ""), id="no-code"),
        pytest.param(close(4000, "é" * 100), (4000, "é" * 61), id="long"),
        pytest.param({**close(4000), "reason": None}, (4000, ""), id="none"),
        pytest.param({**close(4000), "reason": ["a"]}, (4000, "['a']"), id="list"),
    ],
)
def test_an_app_closes_with_what_may_be_sent(
    open_door: OpenDoor, event: dict[str, Any], sent: tuple[int, str]
) -> None:
    _, app, connection = begin(open_door)
    app.do(text("last"), event)
    assert connection.closed == sent
    assert app.do(text("late")).raised[0].__class__ is PeerGone
    app.do(None)
    assert connection.outcome is None


def test_a_close_of_the_apps_own_waits_for_what_it_has_sent_and_returns(
    open_door: OpenDoor,
) -> None:
    _, app, connection = begin(open_door)
    connection.hold()
    app.do(close(4000), None)
    assert app.ended is None
    assert not connection.task.done()
    connection.go_on()
    assert connection.closed == (4000, "")
    assert connection.outcome is None


def test_a_disconnect_is_said_as_often_as_it_is_asked_for(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door)
    connection.disconnect(4001, "gone")
    assert disconnects(app) == (4001, "gone")
    assert isinstance(app.do(text("late")).raised[0], OSError)
    app.do(None)
    assert connection.outcome is None


def test_an_app_that_fails_for_want_of_a_peer_is_no_error_of_the_servers(
    open_door: OpenDoor,
) -> None:
    for error in (
        PeerGone(),
        BaseExceptionGroup("", [PeerGone(), ExceptionGroup("", [PeerGone()])]),
    ):
        _, app, connection = begin(open_door)
        connection.disconnect()
        app.do(error)
        assert connection.outcome is None
    _, app, connection = begin(open_door)
    app.do(ExceptionGroup("", [PeerGone(), ZeroDivisionError()]))
    assert isinstance(connection.outcome, ExceptionGroup)


def test_the_end_of_the_server_is_the_end_of_the_app(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door)
    connection.cancel()
    assert isinstance(app.ended, asyncio.CancelledError)
    assert connection.closed == (1012, "restart")
    assert isinstance(connection.outcome, asyncio.CancelledError)


def test_an_app_that_does_not_want_to_end_is_left_behind(open_door: OpenDoor) -> None:
    async def stay(app: Run, receive: Any, send: Any) -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                cancelled.append(1)

    over, cancelled = asyncio.Event(), []  # type: ignore[var-annotated]
    door, app, connection = begin(open_door)
    app.do(stay)
    connection.cancel()
    assert not connection.task.done()
    door.sleep(5.5)
    assert cancelled
    assert connection.closed == (1012, "restart")
    assert isinstance(connection.outcome, asyncio.CancelledError)
    door.check_nothing_left()
    over.set()
    app.do(None)


# --- apps that refuse, or say nothing ------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        pytest.param([close(4000, "no")], "the app closed it and did not accept it", id="close"),
        pytest.param([None], "the app returned and did not accept it", id="return"),
    ],
)
def test_an_app_may_refuse_and_never_was_open(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture, steps: list[Any], why: str
) -> None:
    caplog.set_level(logging.INFO)
    door, app, connection = begin(open_door, accepts=False)
    app.do("receive", *steps)
    assert connection.closed is not None
    if steps != [None]:
        app.do(None)
    assert connection.outcome is None
    assert lines(caplog) == [f"refused /: app_refused. {why}"]
    counts = door.sockets._hub.counts
    assert counts.of("refused") == {"app_refused": 1}
    assert counts.of("opened") == counts.of("closed") == {}


def test_an_app_that_raises_before_it_has_answered_is_a_500(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    _, app, connection = begin(open_door, accepts=False)
    app.do(ZeroDivisionError())
    status, headers, content = connection.denial
    assert (status, content) == (500, b"Internal Server Error")
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    assert isinstance(connection.outcome, ZeroDivisionError)
    assert "the app failed before it had answered" in caplog.text


def test_an_apps_own_refusal_is_said_in_one_piece_with_its_length(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _, app, connection = begin(open_door, accepts=False)
    fields = ((b"Content-Type", b"text/plain"), (b"Transfer-Encoding", b"chunked"))
    app.do(start(418, *fields), body(b"tea", more=True), body(b"", more=True))
    assert connection.sent == []
    app.do(body(b"pot"))
    assert connection.denial == (
        418,
        {b"content-type": b"text/plain", b"content-length": b"6"},
        b"teapot",
    )
    app.do(None)
    assert connection.outcome is None
    assert lines(caplog) == ["refused /: app_refused. the app answered 418"]


def test_a_length_that_is_wrong_is_put_right(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door, accepts=False)
    app.do(start(401, (b"content-length", b"99")), body(b"no"))
    assert connection.denial[2] == b"no"


def test_an_apps_own_refusal_is_a_close_where_the_server_has_no_other_word(
    open_door: OpenDoor,
) -> None:
    _, app, connection = begin(open_door, accepts=False, extension=False)
    app.do(start(401), body(b"no"), None)
    assert connection.closed == (1008, "")
    assert connection.outcome is None


def test_an_answer_that_was_only_begun_is_finished(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door, accepts=False)
    app.do(start(401), body(b"no", more=True), None)
    assert connection.denial[::2] == (401, b"no")


def test_an_app_that_never_answers_is_answered_for(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    limits = ServerLimits(upgrade_timeout=3)
    door, app, connection = begin(open_door, accepts=False, server_limits=limits)
    door.sleep(2.75)
    assert connection.sent == []
    door.sleep(0.5)
    assert connection.denial[0] == 503
    assert json.loads(connection.denial[2])["code"] == "upgrade_timeout"
    assert disconnects(app) == (1013, "upgrade_timeout")
    assert "the app neither accepted nor refused it in time" in caplog.text
    assert app.ended is None
    door.sleep(5)
    assert isinstance(app.ended, asyncio.CancelledError)
    assert connection.outcome is None


def test_an_app_that_has_accepted_has_all_the_time_there_is(open_door: OpenDoor) -> None:
    limits = ServerLimits(upgrade_timeout=3)
    door, app, connection = begin(open_door, server_limits=limits)
    door.sleep(100)
    app.do(text("x"))
    assert connection.messages == ["x"]


def test_a_peer_that_leaves_before_the_answer_is_no_line_of_the_log(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _, app, connection = begin(open_door, accepts=False)
    connection.disconnect(1006)
    app.do("receive")
    assert disconnects(app) == (1006, "bye")
    assert isinstance(app.do(ACCEPT).raised[0], PeerGone)
    app.do(None)
    assert connection.sent == []
    assert connection.outcome is None
    assert lines(caplog) == []


def test_what_the_server_says_of_an_accept_is_the_apps_to_hear(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door, accepts=False)
    connection.error = RuntimeError("subprotocol was not offered")
    app.do("receive", ACCEPT)
    assert app.raised == [connection.error]
    connection.error = None
    app.do(ValueError())
    assert connection.denial[0] == 500
    assert isinstance(connection.outcome, ValueError)


def test_what_the_server_says_of_a_refusal_is_the_apps_to_hear(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door, accepts=False)
    connection.error = ValueError("no such status")
    app.do(start(99), body(b""))
    assert app.raised == [connection.error]
    connection.error = None
    app.do(ZeroDivisionError())
    assert connection.denial[0] == 500
    assert isinstance(connection.outcome, ZeroDivisionError)


def test_what_the_server_says_of_a_strange_event_is_the_apps_to_hear(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door)
    app.do({"type": "websocket.send"})
    assert isinstance(app.raised.pop(), ValueError)
    connection.error = RuntimeError("no such event")
    app.do({"type": "websocket.strange"})
    assert app.raised == [connection.error]
    connection.error = None
    app.do(text("x"))
    assert connection.messages == ["x"]


def test_a_server_that_has_lost_the_peer_says_so_to_app_and_hub(open_door: OpenDoor) -> None:
    door, app, connection = begin(open_door)
    connection.error = OSError("ClientDisconnected")
    app.do(text("x"))
    assert isinstance(app.raised[0], PeerGone)
    assert disconnects(app) == (1006, "")
    assert door.sockets.everyone.count() == 0


# --- closed by the hub ---------------------------------------------------------------------------


def test_a_close_of_the_hubs_is_a_disconnect_for_the_app(open_door: OpenDoor) -> None:
    door, app, connection = begin(open_door)
    door.sockets.user("ann").close(4409, "elsewhere")
    door.settle()
    assert connection.closed == (4409, "elsewhere")
    assert disconnects(app) == (4409, "elsewhere")
    app.do(close(1000), None)
    assert connection.outcome is None


@pytest.mark.parametrize(
    ("act", "status"),
    [
        pytest.param(lambda sockets: sockets.pause(), 503, id="pause"),
        pytest.param(lambda sockets: sockets.user("ann").close(4409, "elsewhere"), 503, id="user"),
        pytest.param(lambda sockets: sockets.everyone.close(4401, "logged_out"), 401, id="4401"),
    ],
)
@pytest.mark.parametrize("then", [[ACCEPT, None], [close(), None], [start(401), body(b""), None]])
def test_a_socket_that_is_closed_before_its_app_answers_is_refused(
    open_door: OpenDoor,
    caplog: pytest.LogCaptureFixture,
    act: Callable[[WebSockets], object],
    status: int,
    then: list[Any],
) -> None:
    caplog.set_level(logging.INFO)
    door, app, connection = begin(open_door, accepts=False)
    act(door.sockets)
    door.settle()
    assert connection.denial[0] == status
    app.do("receive")
    assert app.received == [{"type": "websocket.connect"}]
    disconnects(app)
    app.do(*then)
    assert connection.outcome is None
    assert len(connection.sent) == 2
    assert [line.split()[0] for line in lines(caplog)] == ["refused"]


def test_where_pages_read_refusals_they_read_that_close_too(open_door: OpenDoor) -> None:
    door, _, connection = begin(open_door, accepts=False, refuse_with="close")
    door.sockets.user("ann").close(4409, "elsewhere")
    door.settle()
    assert connection.is_accepted
    assert connection.closed == (4409, "elsewhere")


def test_a_close_that_meets_the_accept_comes_behind_it(open_door: OpenDoor) -> None:
    door, app, connection = begin(open_door, accepts=False)
    connection.hold()
    app.do("receive", ACCEPT)
    door.sockets.user("ann").close(4409, "elsewhere")
    door.settle()
    connection.go_on()
    assert connection.is_accepted
    assert connection.closed == (4409, "elsewhere")
    assert disconnects(app) == (4409, "elsewhere")


def test_a_refusal_that_is_begun_is_said_to_its_end(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    door, app, connection = begin(open_door, accepts=False)
    connection.hold()
    app.do(start(402), body(b"pay"))
    door.sockets.user("ann").close(4409, "elsewhere")
    door.settle()
    connection.go_on()
    assert connection.denial[::2] == (402, b"pay")
    app.do(None)
    assert connection.outcome is None
    assert lines(caplog) == ["refused /: app_refused. the app answered 402"]


def test_a_credential_that_expires_before_the_app_answers_is_a_401(open_door: OpenDoor) -> None:
    door, _, connection = begin(open_door, accepts=False, server_limits=SLOW)
    door.sleep(3600.25)
    assert connection.denial[0] == 401
    assert b"credential_expired" in connection.denial[2]


SLOW = ServerLimits(upgrade_timeout=7200)


def test_a_credential_that_expires_later_is_4401_for_both(open_door: OpenDoor) -> None:
    door, app, connection = begin(open_door)
    door.sleep(3600.25)
    assert connection.closed == (4401, "credential_expired")
    assert disconnects(app) == (4401, "credential_expired")


# --- messages of the hub -------------------------------------------------------------------------


def test_what_the_hub_sends_before_the_accept_waits_and_comes_in_order(
    open_door: OpenDoor,
) -> None:
    door, app, connection = begin(open_door, accepts=False)
    for number in range(3):
        door.sockets.user("ann").send(str(number))
    door.settle()
    assert connection.sent == []
    app.do("receive", ACCEPT, text("the app's"))
    assert connection.messages == ["0", "1", "2", "the app's"]


def test_what_waits_before_the_accept_is_bounded(open_door: OpenDoor) -> None:
    door, _, connection = begin(open_door, accepts=False, limits=Limits(outbound_bytes=1000))
    for _ in range(3):
        door.sockets.user("ann").send("x" * 400)
    door.settle()
    assert connection.denial[0] == 503


def test_the_apps_and_the_hubs_messages_go_out_in_the_order_of_their_sends(
    open_door: OpenDoor,
) -> None:
    async def send_both(app: Run, receive: Any, send: Any) -> None:
        socket = WebSockets.from_scope(app.scope)
        for number in range(5):
            socket.send(f"hub {number}")
            socket.send(f"hub {number} again")
            await send(text(f"app {number}"))

    _, app, connection = begin(open_door)
    app.do(send_both)
    wanted = [(f"hub {i}", f"hub {i} again", f"app {i}") for i in range(5)]
    assert connection.messages == [each for three in wanted for each in three]


@pytest.mark.parametrize("before", [1, 3])
def test_what_the_hub_sends_later_does_not_overtake_the_app(
    open_door: OpenDoor, before: int
) -> None:
    door, app, connection = begin(open_door)
    connection.hold()
    for number in range(before):
        door.sockets.user("ann").send(f"before {number}")
    door.settle()
    app.do(text("the app's"))
    for number in range(3):
        door.sockets.user("ann").send(f"after {number}")
    door.settle()
    connection.go_on()
    first = [f"before {number}" for number in range(before)]
    assert connection.messages == [*first, "the app's", "after 0", "after 1", "after 2"]


def test_tasks_of_one_app_that_send_at_once_and_the_hub_keep_their_orders(
    open_door: OpenDoor,
) -> None:
    async def send_many(app: Run, receive: Any, send: Any) -> None:
        async def stream(name: str) -> None:
            for number in range(10):
                await send(text(f"{name}{number}"))

        async def hub() -> None:
            for number in range(10):
                WebSockets.from_scope(app.scope).send(f"h{number}")
                await asyncio.sleep(0)

        await asyncio.gather(stream("a"), stream("b"), hub())

    _, app, connection = begin(open_door)
    connection.hold()
    app.do(send_many)
    connection.go_on()
    assert len(connection.messages) == 30
    for name in "abh":
        mine = [str(each) for each in connection.messages if str(each).startswith(name)]
        assert mine == [f"{name}{number}" for number in range(10)]


def test_a_send_that_the_app_gives_up_costs_no_message_of_the_hubs(open_door: OpenDoor) -> None:
    async def give_up(app: Run, receive: Any, send: Any) -> None:
        WebSockets.from_scope(app.scope).send("hub")
        try:
            async with asyncio.timeout(1):
                await send(text("given up"))
        except TimeoutError:
            app.raised.append(TimeoutError())

    door, app, connection = begin(open_door)
    connection.hold()
    app.do(give_up)
    door.sleep(2)
    connection.go_on()
    app.do(text("next"))
    assert connection.messages == ["hub", "next"]
    assert [type(each) for each in app.raised] == [TimeoutError]


def test_the_hubs_handle_sends_joins_and_closes(open_door: OpenDoor) -> None:
    door, app, connection = begin(open_door)
    socket = WebSockets.from_scope(app.scope)
    socket.join("lobby")
    door.settle()
    door.sockets.room("lobby").send("x")
    door.settle()
    assert connection.messages == ["x"]
    socket.close(4000)
    door.settle()
    assert connection.closed == (4000, "")
    assert door.sockets.room("lobby").count() == 0


# --- peers that take nothing ---------------------------------------------------------------------


FAST = Limits(write_timeout=2)


def test_an_app_in_a_send_that_hangs_is_freed_and_may_go_on(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    freed: list[int] = []

    async def send_on(app: Run, receive: Any, send: Any) -> None:
        try:
            await send(text("x"))
        except PeerGone:
            task = asyncio.current_task()
            assert task is not None
            freed.append(task.cancelling())
            await asyncio.sleep(1)  # it can still wait
            freed.append(-1)

    control = Control()
    door, app, connection = begin(open_door, limits=FAST, control=control)
    connection.hold()
    app.do(send_on)
    door.sleep(5.9)
    assert freed == []
    door.sleep(0.5)
    assert freed == [0]
    assert control.aborted == 1
    door.sleep(1)
    assert freed == [0, -1]
    assert disconnects(app) == (1006, "")
    app.do(None)
    assert connection.outcome is None
    assert "why=write_timeout: a send has hung for 6 s" in caplog.text


def test_an_app_that_does_not_notice_is_cancelled_in_the_end(open_door: OpenDoor) -> None:
    door, app, connection = begin(open_door, limits=FAST)
    connection.hold()
    WebSockets.from_scope(app.scope).send("x")
    door.sleep(6.5)
    assert app.ended is None
    door.sleep(5)
    assert isinstance(app.ended, asyncio.CancelledError)
    assert connection.outcome is None


@pytest.mark.parametrize("swallows", [False, True])
def test_a_server_that_swallows_the_cancellation_frees_the_app_too(
    open_door: OpenDoor,
    swallows: bool,  # noqa: FBT001
) -> None:
    door, app, connection = begin(open_door, limits=FAST)
    connection.hold()
    connection.swallows = swallows
    app.do(text("x"))
    door.sleep(6.5)
    assert [type(each) for each in app.raised] == [PeerGone]
    app.do(None)
    assert connection.outcome is None


def test_who_cancels_an_app_at_the_same_time_is_heard(open_door: OpenDoor) -> None:
    async def send_for(app: Run, receive: Any, send: Any) -> None:
        try:
            async with asyncio.timeout(6.25):  # on the wheel's own tick
                await send(text("x"))
        except TimeoutError as error:
            app.raised.append(error)

    door, app, connection = begin(open_door, limits=FAST)
    connection.hold()
    app.do(send_for)
    task = next(each for each in asyncio.all_tasks(door.loop) if "_run_app" in repr(each))
    door.loop.call_later(0, WebSockets.from_scope(app.scope).terminate)
    door.loop.call_later(0, task.cancel)
    door.settle()
    assert isinstance(app.ended, asyncio.CancelledError)
    assert connection.outcome is None


def test_an_app_that_swallows_every_cancellation_holds_nothing_of_the_hubs(
    open_door: OpenDoor,
) -> None:
    over = asyncio.Event()

    async def stay(app: Run, receive: Any, send: Any) -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                app.raised.append(RuntimeError("no"))

    door, app, connection = begin(open_door, limits=FAST)
    connection.hold()
    WebSockets.from_scope(app.scope).send("x")
    app.do(stay)
    door.sleep(30)
    assert len(app.raised) == 1
    door.check_nothing_left()
    over.set()
    app.do(None)
    assert connection.outcome is None


# --- apps that do not keep up --------------------------------------------------------------------


def test_what_an_app_does_not_take_is_bounded_and_nothing_is_lost(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door, limits=Limits(inbound_messages=3))
    for number in range(10):
        connection.text(str(number))
    assert connection.unread == 7  # the server's own business
    app.do(*["receive"] * 10)
    assert [each["text"] for each in app.received] == [str(number) for number in range(10)]


def test_an_app_that_takes_nothing_is_left_in_peace(open_door: OpenDoor) -> None:
    door, _, connection = begin(open_door, limits=Limits(inbound_messages=1))
    connection.text("a").text("b")
    door.sleep(1000)
    assert connection.closed is None


def test_bytes_that_wait_are_bounded_too(open_door: OpenDoor) -> None:
    _, app, connection = begin(open_door, limits=Limits(inbound_bytes=100))
    for _ in range(5):
        connection.binary(b"x" * 60)
    assert connection.unread == 3
    app.do(*["receive"] * 5)
    assert connection.unread == 0


def test_two_tasks_may_receive(open_door: OpenDoor) -> None:
    async def both(app: Run, receive: Any, send: Any) -> None:
        app.received.extend(await asyncio.gather(receive(), receive()))

    _, app, connection = begin(open_door)
    app.do(both)
    connection.text("a").disconnect()
    assert {each["type"] for each in app.received} == {
        "websocket.receive",
        "websocket.disconnect",
    }


def test_a_receive_that_is_given_up_loses_nothing(open_door: OpenDoor) -> None:
    async def impatient(app: Run, receive: Any, send: Any) -> None:
        for _ in range(3):
            try:
                async with asyncio.timeout(1):
                    app.received.append(await receive())
            except TimeoutError:
                app.received.append(None)

    door, app, connection = begin(open_door)
    app.do(impatient)
    door.sleep(1.5)
    connection.text("a").text("b")
    assert [each and each["text"] for each in app.received] == [None, "a", "b"]


# --- the log -------------------------------------------------------------------------------------


def test_a_guarded_socket_opens_when_its_app_accepts(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    door, app, connection = begin(open_door, accepts=False)
    app.do("receive")
    assert lines(caplog) == []
    app.do(ACCEPT, text("x"))
    connection.text("y").disconnect(4001)
    opened, closed = lines(caplog)
    assert opened.startswith("open id=")
    assert "route=* user=ann" in opened
    assert closed.endswith("code=4001 by=peer why=closed after=0s in=1 out=1")
    assert door.sockets._hub.counts.of("opened") == {"*": 1}
