"""Who gets in: authenticators, `authorize` and their answers, over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import websockets
from websockets.exceptions import InvalidStatus

from tests.clients.python import connect, end_of, refused, until
from tests.support import TEXT, frame
from ws_middleware import (
    Anonymous,
    Granted,
    JWTAuth,
    Limits,
    Principal,
    Refused,
    ServerLimits,
    UpgradeRequest,
    WebSocket,
    WebSockets,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.http11 import Response

    from tests.conftest import Served

    Serve = Callable[[WebSockets], Served]

KEY = "k" * 32


def token_for(user: str = "ann", *, seconds: float = 60, **claims: Any) -> str:
    claims = {"sub": user, "exp": time.time() + seconds} | claims
    return jwt.encode(claims, KEY, "HS256")


def echo(sockets: WebSockets, path: str = "/ws/echo", **policy: Any) -> None:
    @sockets.route(path, **policy)
    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)


def with_jwt(serve: Serve, **policy: Any) -> Served:
    sockets = WebSockets(auth=JWTAuth(KEY, algorithms=["HS256"]), **policy)
    echo(sockets)
    return serve(sockets)


def with_auth(serve: Serve, auth: Any, **policy: Any) -> Served:
    sockets = WebSockets(auth=auth, **policy)
    echo(sockets)
    return serve(sockets)


def problem(answer: Response) -> dict[str, Any]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Connection"] == "close"
    found: dict[str, Any] = json.loads(answer.body or b"")
    assert found["status"] == answer.status_code
    return found


def counts(served: Served) -> tuple[int, int, int]:
    engine = served.sockets._front.engine
    assert engine is not None
    return engine.gate.counts


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


# --- JWTAuth, end to end -------------------------------------------------------------------------


def test_without_a_token_it_is_401_and_says_where_it_looked(serve: Serve) -> None:
    answer = refused(with_jwt(serve), "/ws/echo")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    found = problem(answer)
    assert found["code"] == "credential_missing"
    assert "header, subprotocol, query:token" in found["detail"]


def test_a_foreign_origin_is_403(serve: Serve) -> None:
    served = with_jwt(serve)
    bearer = {"Authorization": f"Bearer {token_for()}"}
    for origin in ("https://evil.example", "http://127.0.0.1:1", "null"):
        answer = refused(served, "/ws/echo", origin=origin, additional_headers=bearer)
        assert answer.status_code == 403
        assert problem(answer)["code"] == "origin_not_allowed"


def test_a_client_that_is_no_browser_needs_no_origin_for_a_token(serve: Serve) -> None:
    bearer = {"Authorization": f"Bearer {token_for()}"}
    with connect(with_jwt(serve), "/ws/echo", origin=None, additional_headers=bearer) as client:
        client.send("x")
        assert client.recv(5) == "x"


def test_listed_origins_replace_the_same_origin(serve: Serve) -> None:
    served = with_jwt(serve, origins=["https://myapp.example"])
    bearer = {"Authorization": f"Bearer {token_for()}"}
    assert refused(served, "/ws/echo", additional_headers=bearer).status_code == 403
    with connect(
        served, "/ws/echo", origin="https://myapp.example", additional_headers=bearer
    ) as client:
        client.send("x")
        assert client.recv(5) == "x"


def test_an_unknown_path_is_404(serve: Serve) -> None:
    answer = refused(with_jwt(serve), f"/ws/nothing?token={token_for()}")
    assert answer.status_code == 404
    assert problem(answer)["code"] == "route_unknown"


def test_version_8_is_426_and_says_13(serve: Serve) -> None:
    with with_jwt(serve).peer() as peer:
        head = peer.upgrade("/ws/echo", Sec_WebSocket_Version="8")
    assert head.startswith(b"HTTP/1.1 426 ")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in head


def test_a_plain_get_is_426_and_says_what_this_is(serve: Serve) -> None:
    with with_jwt(serve).peer() as peer:
        peer.send(b"GET /ws/echo HTTP/1.1\r\nHost: x\r\n\r\n")
        head = peer.read_head()
        assert head.startswith(b"HTTP/1.1 426 ")
        assert b"connect with a WebSocket client" in peer.read_rest()


def test_a_token_in_the_header(serve: Serve) -> None:
    bearer = {"Authorization": f"bearer {token_for()}"}
    with connect(with_jwt(serve), "/ws/echo", additional_headers=bearer) as client:
        client.send("x")
        assert client.recv(5) == "x"
        assert client.subprotocol is None


def test_a_token_as_a_subprotocol_is_answered_with_bearer(serve: Serve) -> None:
    protocols = ["bearer", token_for()]
    with connect(with_jwt(serve), "/ws/echo", subprotocols=protocols) as client:
        client.send("x")
        assert client.recv(5) == "x"
        assert client.subprotocol == "bearer"


def test_a_subprotocol_of_the_route_comes_before_bearer(serve: Serve) -> None:
    sockets = WebSockets(auth=JWTAuth(KEY, algorithms=["HS256"]))
    echo(sockets, subprotocols=["chat"])
    protocols = ["bearer", token_for(), "chat"]
    with connect(serve(sockets), "/ws/echo", subprotocols=protocols) as client:
        assert client.subprotocol == "chat"


def test_a_token_in_the_query(serve: Serve) -> None:
    with connect(with_jwt(serve), f"/ws/echo?a=1&token={token_for()}") as client:
        client.send("x")
        assert client.recv(5) == "x"


@pytest.mark.parametrize("place", ["header", "subprotocol", "query"])
def test_the_handler_sees_who_it_is_and_no_token(serve: Serve, place: str) -> None:
    sockets = WebSockets(auth=JWTAuth(KEY, algorithms=["HS256"]))
    route = sockets.route("/")
    token = token_for("ann", name="Ann B.")
    path, options = _shown(token, place)
    with connect(serve(sockets), path, **options):
        (ws,) = route.everyone.local()
    assert ws.user.id == "ann"
    assert ws.user.display_name == "Ann B."
    assert ws.user.claims["sub"] == "ann"
    assert ws.user.expires_at is not None
    assert ws.request.credential is None
    kept = [ws.request.target, *map(str, ws.request.headers.pairs()), *ws.request.subprotocols]
    assert token not in " ".join([*kept, repr(ws), repr(ws.request), repr(ws.user)])


def _shown(token: str, place: str) -> tuple[str, dict[str, Any]]:
    """Return path and options that show `token` at `place`."""
    if place == "header":
        return "/", {"additional_headers": {"Authorization": f"Bearer {token}"}}
    if place == "subprotocol":
        return "/", {"subprotocols": ["bearer", token]}
    return f"/?token={token}", {}


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": 1}, "credential_expired"),
        ({"exp": None}, "credential_refused"),
        ({"nbf": 4102444800}, "credential_refused"),
        ({"aud": "somebody else"}, "credential_refused"),
        ({"sub": "a\nb"}, "credential_refused"),
    ],
    ids=["expired", "no exp", "not yet", "aud", "no id"],
)
def test_a_bad_token_is_401_with_one_of_three_codes(
    serve: Serve, claims: dict[str, Any], code: str
) -> None:
    token = token_for(**claims)
    answer = refused(with_jwt(serve), f"/ws/echo?token={token}")
    assert answer.status_code == 401
    assert problem(answer)["code"] == code


def test_a_token_of_another_key_is_401(serve: Serve) -> None:
    token = jwt.encode({"sub": "ann", "exp": time.time() + 60}, "x" * 32, "HS256")
    answer = refused(with_jwt(serve), f"/ws/echo?token={token}")
    assert (answer.status_code, problem(answer)["code"]) == (401, "credential_refused")


def test_when_exp_passes_the_socket_closes_with_4401(serve: Serve) -> None:
    served = with_jwt(serve)
    expires = time.time() + 0.5
    with connect(served, f"/ws/echo?token={token_for(exp=expires)}") as client:
        client.send("x")
        assert client.recv(5) == "x"
        assert end_of(client) == (4401, "credential_expired")
        assert -0.01 < time.time() - expires < 0.6


@pytest.mark.parametrize("place", ["header", "subprotocol", "query"])
@pytest.mark.parametrize("fate", ["served", "expired", "forged", "404", "origin", "handler", "cut"])
def test_no_token_is_ever_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture, place: str, fate: str
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "websockets")  # the client's own log has what it sends
    key = "x" * 32 if fate == "forged" else KEY
    seconds = -60 if fate == "expired" else 60
    token = jwt.encode({"sub": "ann", "exp": time.time() + seconds}, key, "HS256")
    sockets = WebSockets(auth=JWTAuth(KEY, algorithms=["HS256"]))

    @sockets.route("/")
    async def handler(ws: WebSocket) -> None:
        await ws.receive()
        text = repr(ws) + repr(ws.request) + repr(ws.user)
        raise LookupError(text)

    served = serve(sockets)
    path, options = _shown(token, place)
    if fate == "404":
        path = path.replace("/", "/nowhere", 1)
    if fate == "origin":
        options["origin"] = "https://evil.example"
    with contextlib.suppress(InvalidStatus), connect(served, path, **options) as client:
        if fate == "handler":
            client.send("x")
            end_of(client)
    until(lambda: "close id=" in caplog.text or "refused " in caplog.text)
    assert not _parts_in(token, caplog)


#: Heads that are no requests, each with the token somewhere; h11 quotes what it could not read.
BROKEN_HEADS = {
    "version": "GET /?token={token} HTTP/nine\r\nHost: x\r\n\r\n",
    "method": "G@T /?token={token} HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": "GET /?token={token}\r\nHost: x\r\n\r\n",
    "header value": "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\x01\r\n\r\n",
    "header name": "GET / HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer {token}\r\n\r\n",
    "no colon": "GET / HTTP/1.1\r\nHost: x\r\nBearer {token}\r\n\r\n",
    "length": "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: {token}\r\n\r\n",
    "encoding": "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {token}\r\n\r\n",
}


@pytest.mark.parametrize("which", BROKEN_HEADS)
def test_no_token_of_a_malformed_head_is_in_the_log_or_the_answer(
    serve: Serve, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    caplog.set_level(logging.DEBUG, "ws_middleware")
    token = token_for()
    with with_jwt(serve).peer() as peer:
        peer.send(BROKEN_HEADS[which].format(token=token).encode("latin-1"))
        answer = peer.read_rest()
    assert answer.split()[1][:1] == b"4"
    assert token.encode() not in answer
    until(lambda: "refused " in caplog.text)
    assert not _parts_in(token, caplog)


def _parts_in(token: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the parts of a token that the log has, formatted as it would be written."""
    written = caplog.text + "".join(repr(each.__dict__) for each in caplog.records)
    return [part for part in token.split(".") if part in written]


# --- authenticators ------------------------------------------------------------------------------


def by_query(request: UpgradeRequest) -> str | None:
    return request.query.get("user")


async def by_query_async(request: UpgradeRequest) -> str | None:
    await asyncio.sleep(0)
    return by_query(request)


class ByQuery:
    """A callable object, with an async `__call__`."""

    async def __call__(self, request: UpgradeRequest) -> Principal | None:
        user = by_query(request)
        return None if user is None else Principal(user, name="From Query")


@pytest.mark.parametrize("auth", [by_query, by_query_async, ByQuery()], ids=["def", "async", "obj"])
def test_any_callable_is_an_authenticator(serve: Serve, auth: Any) -> None:
    served = with_auth(serve, auth)
    with connect(served, "/ws/echo?user=ann") as client:
        (ws,) = served.sockets.user("ann").local()
        assert ws.user.id == "ann"
        client.send("x")
        assert client.recv(5) == "x"
    assert refused(served, "/ws/echo").status_code == 401


def test_a_def_authenticator_runs_in_a_thread_and_an_async_one_on_the_loop(serve: Serve) -> None:
    threads: list[str] = []

    def sync(request: UpgradeRequest) -> str:
        threads.append(threading.current_thread().name)
        return "ann"

    async def async_(request: UpgradeRequest) -> str:
        threads.append(threading.current_thread().name)
        return "ann"

    async def inner() -> str:
        threads.append(threading.current_thread().name)
        return "ann"

    def returns_an_awaitable(request: UpgradeRequest) -> Any:
        return inner()

    sockets = WebSockets(auth=sync)
    echo(sockets, "/def")
    echo(sockets, "/async", auth=async_)
    echo(sockets, "/awaitable", auth=returns_an_awaitable)
    served = serve(sockets)
    for path in ("/def", "/async", "/awaitable"):
        with connect(served, path):
            pass
    assert threads == ["ws-auth", "ws-sidecar", "ws-sidecar"]


@pytest.mark.parametrize("said", [None, ""])
def test_nobody_is_401(serve: Serve, said: Any) -> None:
    answer = refused(with_auth(serve, lambda request: said), "/ws/echo")
    assert (answer.status_code, problem(answer)["code"]) == (401, "credential_refused")


@pytest.mark.parametrize("said", [7, "7", Principal("7"), Granted("7"), Granted(7)], ids=repr)
def test_a_user_is_a_principal_or_its_id(serve: Serve, said: Any) -> None:
    served = with_auth(serve, lambda request: said)
    with connect(served, "/ws/echo"):
        (ws,) = served.sockets.user("7").local()
        assert ws.user == Principal("7")


class _Odd:
    def __repr__(self) -> str:
        return "secret inside"


@pytest.mark.parametrize(
    "said",
    [True, False, _Odd(), 1.5, b"ann", ["ann"], "a\nb", "x" * 256, Granted(principal=True)],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_strange_verdict_is_500_and_an_error_that_names_the_callable(
    serve: Serve, caplog: pytest.LogCaptureFixture, said: Any, kind: str
) -> None:
    def my_auth(request: UpgradeRequest) -> Any:
        return said

    async def my_auth_async(request: UpgradeRequest) -> Any:
        return said

    served = with_auth(serve, my_auth if kind == "def" else my_auth_async)
    answer = refused(served, "/ws/echo")
    assert answer.status_code == 500
    assert problem(answer)["code"] == "authenticator_failed"
    errors = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "my_auth" in errors[0].getMessage()
    assert "of route /ws/echo" in errors[0].getMessage()
    assert "secret inside" not in caplog.text
    assert counts(served) == (0, 0, 0)


def test_refused_is_sent_as_it_is(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ws_middleware")

    def my_auth(request: UpgradeRequest) -> str:
        raise Refused(
            418,
            "teapot",
            headers=[("X-Pot", "short"), ("Content-Type", "text/plain"), ("X-Pot", "stout")],
            body=b"short and stout",
            why="for the log only",
        )

    answer = refused(with_auth(serve, my_auth), "/ws/echo")
    assert answer.status_code == 418
    assert answer.headers.get_all("X-Pot") == ["short", "stout"]
    assert answer.headers.get_all("Content-Type") == ["text/plain"]
    assert answer.body == b"short and stout"
    assert "refused /ws/echo: teapot. for the log only" in caplog.text
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_refused_without_a_body_is_a_problem_document(serve: Serve) -> None:
    async def my_auth(request: UpgradeRequest) -> str:
        raise Refused(402, "pay_first", why="log only")

    answer = refused(with_auth(serve, my_auth), "/ws/echo")
    found = problem(answer)
    assert (found["status"], found["code"]) == (402, "pay_first")
    assert "log only" not in (answer.body or b"").decode()


@pytest.mark.parametrize("status", [101, 200, 302, 399, 600])
def test_refused_takes_an_error_status_only(status: int) -> None:
    with pytest.raises(ValueError, match="400 to 599"):
        Refused(status)


def test_a_header_of_refused_that_would_split_the_answer_is_500(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def my_auth(request: UpgradeRequest) -> str:
        raise Refused(403, headers=[("X-A", "b\r\nX-Evil: c")])

    answer = refused(with_auth(serve, my_auth), "/ws/echo")
    assert answer.status_code == 500
    assert "X-Evil" not in answer.headers
    assert "cannot be sent" in caplog.text


@pytest.mark.parametrize("kind", ["def", "async", "inline"])
@pytest.mark.parametrize("error", [LookupError("db is down"), SystemExit(3)], ids=repr)
def test_another_exception_is_500_with_a_traceback_and_the_server_lives(
    serve: Serve, caplog: pytest.LogCaptureFixture, kind: str, error: BaseException
) -> None:
    def broken(request: UpgradeRequest) -> str:
        raise error

    async def broken_async(request: UpgradeRequest) -> str:
        raise error

    def broken_inline(request: UpgradeRequest) -> str:
        raise error

    broken_inline.runs_inline = True  # type: ignore[attr-defined]
    auth: Any = {"def": broken, "async": broken_async, "inline": broken_inline}[kind]
    sockets = WebSockets(auth=auth)
    echo(sockets)
    echo(sockets, "/open", auth=Anonymous())
    served = serve(sockets)
    answer = refused(served, "/ws/echo", open_timeout=3)
    assert answer.status_code == 500
    assert "db is down" not in (answer.body or b"").decode()
    assert "broken" in caplog.text
    assert "Traceback" in caplog.text
    with connect(served, "/open", open_timeout=3) as client:
        client.send("still here")
        assert client.recv(5) == "still here"
    until(lambda: counts(served) == (0, 0, 0))


def test_granted_headers_are_on_the_101(serve: Serve) -> None:
    def my_auth(request: UpgradeRequest) -> Granted:
        return Granted(
            "ann",
            headers=(
                ("Set-Cookie", "a=1; HttpOnly"),
                ("Set-Cookie", "b=2"),
                ("Content-Length", "7"),
                ("Sec-WebSocket-Extensions", "permessage-deflate"),
            ),
        )

    with connect(with_auth(serve, my_auth), "/ws/echo") as client:
        assert client.response is not None
        assert client.response.headers.get_all("Set-Cookie") == ["a=1; HttpOnly", "b=2"]
        assert "Content-Length" not in client.response.headers
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        client.send("x")
        assert client.recv(5) == "x"


@pytest.mark.parametrize(
    "header",
    [("X-A", "b\r\nX-Evil: c"), ("X-A\r\nX-Evil", "c"), ("X-A", "b\nX-Evil: c"), ("X-Ä", "ä€")],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["conversation", "def conversation"])
def test_a_granted_header_that_would_split_the_answer_is_500(
    serve: Serve, caplog: pytest.LogCaptureFixture, header: tuple[str, str], kind: str
) -> None:
    def my_auth(request: UpgradeRequest) -> Granted:
        return Granted("ann", headers=(("Set-Cookie", "session=secret"), header))

    sockets = WebSockets(auth=my_auth, sync_conversations=1)
    route = sockets.route("/ws/echo")
    if kind == "conversation":
        route(lambda ws: ws.wait_closed())
    else:
        route(lambda ws: None)
    served = serve(sockets)
    for _ in range(2):  # the second time: nothing was left reserved
        answer = refused(served, "/ws/echo")
        assert answer.status_code == 500
        assert "X-Evil" not in answer.headers
    assert counts(served) == (0, 0, 0)
    assert served.sockets.everyone.count() == 0
    assert "secret" not in caplog.text


def test_a_cookie_that_cannot_be_sent_is_not_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ws_middleware")
    served = with_auth(
        serve, lambda request: Granted("ann", headers=(("Set-Cookie", "session=secret\n"),))
    )
    assert refused(served, "/ws/echo").status_code == 500
    assert "secret" not in caplog.text


# --- authorize -----------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [False, None, 0, 1, "yes", Principal("ann"), [True]], ids=repr)
@pytest.mark.parametrize("kind", ["def", "async"])
def test_only_true_authorizes(serve: Serve, said: Any, kind: str) -> None:
    async def async_(user: Principal, request: UpgradeRequest) -> Any:
        return said

    def sync(user: Principal, request: UpgradeRequest) -> Any:
        return said

    served = with_auth(serve, lambda r: "ann", authorize=sync if kind == "def" else async_)
    answer = refused(served, "/ws/echo")
    assert (answer.status_code, problem(answer)["code"]) == (403, "not_allowed")
    assert counts(served) == (0, 0, 0)


def test_authorize_gets_the_user_and_the_paths_parameters_where_its_kind_belongs(
    serve: Serve,
) -> None:
    seen: list[Any] = []

    def sync(user: Principal, request: UpgradeRequest) -> bool:
        seen.append((user.id, request.path_params["room"], threading.current_thread().name))
        return True

    async def async_(user: Principal, request: UpgradeRequest) -> bool:
        return sync(user, request)

    sockets = WebSockets(auth=lambda request: "ann")
    sockets.route("/def/<int:room>", authorize=sync)
    sockets.route("/async/<int:room>", authorize=async_)
    served = serve(sockets)
    for path in ("/def/7", "/async/8"):
        with connect(served, path):
            pass
    assert seen == [("ann", 7, "ws-auth"), ("ann", 8, "ws-sidecar")]


def test_authorize_comes_after_the_authenticator_and_not_for_nobody(serve: Serve) -> None:
    asked: list[str] = []

    def authorize(user: Principal, request: UpgradeRequest) -> bool:
        asked.append(user.id)
        return True

    served = with_auth(serve, by_query, authorize=authorize)
    assert refused(served, "/ws/echo").status_code == 401
    assert not asked


def test_authorize_that_raises(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def refuses(user: Principal, request: UpgradeRequest) -> bool:
        raise Refused(423, "locked")

    def fails(user: Principal, request: UpgradeRequest) -> bool:
        raise LookupError

    sockets = WebSockets(auth=lambda request: "ann")
    echo(sockets, "/refuses", authorize=refuses)
    echo(sockets, "/fails", authorize=fails)
    served = serve(sockets)
    assert refused(served, "/refuses").status_code == 423
    assert not caplog.text
    assert refused(served, "/fails").status_code == 500
    assert "fails of route /fails failed" in caplog.text
    assert "LookupError" in caplog.text


# --- refuse_with="close" -------------------------------------------------------------------------


def test_refusals_that_a_browsers_script_can_see(serve: Serve) -> None:
    served = with_jwt(serve, refuse_with="close", authorize=lambda user, request: False)
    good = f"/ws/echo?token={token_for()}"
    for path, options, code, reason in (
        ("/ws/echo", {}, 4401, "credential_missing"),
        ("/ws/echo?token=x", {}, 4401, "credential_refused"),
        (good, {}, 4403, "not_allowed"),
        (good, {"origin": "https://evil.example"}, 4403, "origin_not_allowed"),
        ("/nothing", {}, 4404, "route_unknown"),
        ("/ws/echo", {"subprotocols": ["bearer", "x"]}, 4401, "credential_refused"),
    ):
        with connect(served, path, **options) as client:
            assert end_of(client) == (code, reason)
    until(lambda: counts(served) == (0, 0, 0))


def test_refused_with_a_close_nothing_is_read_and_no_handler_runs(serve: Serve) -> None:
    sockets = WebSockets(auth=lambda request: None, refuse_with="close")
    calls: list[str] = []
    route = sockets.route("/")
    route.on_open(lambda ws: calls.append("open"))
    route.on_message(lambda ws, message: calls.append(message))
    route.on_close(lambda ws: calls.append("close"))
    served = serve(sockets)
    with served.peer() as peer:
        peer.upgrade(Origin=served.origin, Host=served.origin.partition("//")[2])
        peer.send(frame(TEXT, b"x"))
        assert peer.read_frame().close_code == 4401
        assert peer.read_rest() == b""
    assert not calls


def test_what_is_no_upgrade_is_refused_by_http_all_the_same(serve: Serve) -> None:
    with with_jwt(serve, refuse_with="close").peer() as peer:
        assert peer.upgrade("/ws/echo", Sec_WebSocket_Version="8").startswith(b"HTTP/1.1 426")


# --- while the verdict is out --------------------------------------------------------------------


class Slow:
    """An async authenticator that waits until it is told, and notes what becomes of it."""

    ambient = False

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.outcome: Future[str] = Future()

    async def __call__(self, request: UpgradeRequest) -> str:
        self.asked.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.outcome.set_result("cancelled")
            raise
        self.outcome.set_result("finished")
        return "ann"


def test_a_peer_that_resets_while_it_is_decided_cancels_the_authenticator(serve: Serve) -> None:
    auth = Slow()
    served = with_auth(serve, auth)
    peer = served.peer()
    peer.send(_head("/ws/echo"))
    assert auth.asked.wait(5)
    assert counts(served)[0] == 1
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()  # with linger 0: a RST
    assert auth.outcome.result(5) == "cancelled"
    until(lambda: counts(served) == (0, 0, 0))


def test_a_peer_that_ends_its_half_while_it_is_decided_cancels_the_authenticator(
    serve: Serve,
) -> None:
    auth = Slow()
    served = with_auth(serve, auth)
    with served.peer() as peer:
        peer.send(_head("/ws/echo"))
        assert auth.asked.wait(5)
        peer.socket.shutdown(socket.SHUT_WR)
        assert auth.outcome.result(5) == "cancelled"
        assert peer.read_rest() == b""
    until(lambda: counts(served) == (0, 0, 0))


def _head(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("kind", ["async", "def"])
def test_a_verdict_that_takes_too_long_is_503(serve: Serve, kind: str) -> None:
    release = threading.Event()
    slow = Slow()

    def sync(request: UpgradeRequest) -> str:
        release.wait(10)
        return "ann"

    limits = ServerLimits(upgrade_timeout=0.2)
    served = with_auth(serve, slow if kind == "async" else sync, server_limits=limits)
    begun = time.monotonic()
    answer = refused(served, "/ws/echo")
    assert 0.2 <= time.monotonic() - begun < 1.5  # and not when the head would have been due
    assert (answer.status_code, problem(answer)["code"]) == (503, "upgrade_timeout")
    if kind == "async":
        assert slow.outcome.result(5) == "cancelled"
    release.set()
    until(lambda: counts(served) == (0, 0, 0))
    assert served.sockets.everyone.count() == 0


def test_what_comes_before_the_verdict_is_not_lost(serve: Serve) -> None:
    decide = threading.Event()

    def auth(request: UpgradeRequest) -> str:
        decide.wait(5)
        return "ann"

    auth.ambient = False  # type: ignore[attr-defined]
    with with_auth(serve, auth).peer() as peer:
        messages = [b"%d" % i * 1000 for i in range(100)]  # more than the 16 KiB that are read
        peer.send(_head("/ws/echo") + b"".join(frame(TEXT, each) for each in messages))
        decide.set()
        assert peer.read_head().startswith(b"HTTP/1.1 101")
        assert [peer.read_frame().payload for _ in range(100)] == messages


def test_of_many_upgrades_at_once_exactly_as_many_get_in_as_may(serve: Serve) -> None:
    async def auth(request: UpgradeRequest) -> str:
        await asyncio.sleep(0.05)  # so that all are undecided at once
        return "ann"

    served = with_auth(serve, auth, limits=Limits(connections_per_user=20))

    async def one(stack: contextlib.AsyncExitStack) -> int:
        try:
            url, origin = served.url("/ws/echo"), served.origin
            connecting = websockets.connect(url, origin=origin, proxy=None)  # type: ignore[arg-type]
            await stack.enter_async_context(connecting)
        except InvalidStatus as refusal:
            return refusal.response.status_code
        return 101

    async def all_at_once() -> list[int]:
        async with contextlib.AsyncExitStack() as stack:
            return await asyncio.gather(*(one(stack) for _ in range(64)))

    for _ in range(2):  # and once more, when they have gone
        answers = asyncio.run(all_at_once())
        assert (answers.count(101), answers.count(429)) == (20, 44)
        until(lambda: counts(served) == (0, 0, 0))


def test_a_full_server_is_503(serve: Serve) -> None:
    limits = ServerLimits(connections=1)
    served = with_auth(serve, Anonymous(), server_limits=limits)
    with connect(served, "/ws/echo"):
        answer = refused(served, "/ws/echo")
        assert (answer.status_code, problem(answer)["code"]) == (503, "server_full")
        assert "Retry-After" in answer.headers
    until(lambda: counts(served) == (0, 0, 0))
    with connect(served, "/ws/echo"):
        pass


def test_the_undecided_are_bounded(serve: Serve) -> None:
    auth = Slow()
    limits = ServerLimits(undecided=1)
    served = with_auth(serve, auth, server_limits=limits)
    with served.peer() as peer:
        peer.send(_head("/ws/echo"))
        assert auth.asked.wait(5)
        answer = refused(served, "/ws/echo")
        assert (answer.status_code, problem(answer)["code"]) == (503, "server_full")
    until(lambda: counts(served) == (0, 0, 0))


@pytest.fixture(autouse=True)
def _no_warnings_of_asyncio(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No task and no callback of ours may fail unseen."""
    yield
    assert not [each for each in caplog.get_records("call") if each.name == "asyncio"]
