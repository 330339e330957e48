from __future__ import annotations

import errno
import json
import re
import socket
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from flask import Flask, Response
from flask import request as flask_request
from websockets import Origin
from websockets.sync.client import connect
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from tests.clients.python import until
from tests.gate.upgrades import KEY
from ws_middleware import Anonymous, JWTAuth, Limits, Principal, WebSocket, WebSockets
from ws_middleware.environ import request_from_environ
from ws_middleware.errors import Refused
from ws_middleware.net import sidecar, takeover
from ws_middleware.net.engine import Engine
from ws_middleware.wsgi import OFFER, Offer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from ws_middleware.types import UpgradeRequest

JWT = JWTAuth("k" * 32, algorithms=["HS256"], sources=("query:token",))

#: Fields between one server and the next, RFC 9110 section 7.6.1; PEP 3333 forbids them to apps.
HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


@dataclass
class Answered:
    """A `start_response` that remembers."""

    calls: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.calls.append((status, headers))
        return lambda data: None

    @property
    def status(self) -> str:
        ((status, _),) = self.calls
        return status

    @property
    def headers(self) -> dict[str, str]:
        ((_, headers),) = self.calls
        return dict(headers)


@dataclass
class Server:
    """A `start_response` that sends nothing before there is a body, as a server's."""

    status: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    restarts: int = 0

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info is not None and self.status:
            assert not self.body, "headers are sent already"
            self.restarts += 1
        elif self.status:
            pytest.fail("start_response was called twice")
        self.status, self.headers = status, dict(headers)
        return self.write

    def write(self, data: bytes) -> None:
        assert self.status, "a body before start_response"
        self.body += data


@dataclass
class App:
    """An app that remembers what it was called with."""

    body: Iterable[bytes] = (b"http",)
    calls: list[tuple[WSGIEnvironment, StartResponse]] = field(default_factory=list)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.calls.append((environ, start_response))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self.body


def http(path: str = "/ws", **changes: Any) -> WSGIEnvironment:
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.url_scheme": "http",
    }
    return {**environ, **changes}


def upgrade(path: str = "/ws", **changes: Any) -> WSGIEnvironment:
    fields = {
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_UPGRADE": "websocket",
        "HTTP_SEC_WEBSOCKET_KEY": KEY,
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_ORIGIN": "http://localhost",
    }
    return http(path, **{**fields, **changes})


async def wait(ws: WebSocket) -> None:
    await ws.wait_closed()


@pytest.fixture
def make() -> Iterator[Callable[..., WebSockets]]:
    made: list[WebSockets] = []

    def start(auth: Any = None, **policy: Any) -> WebSockets:
        sockets = WebSockets(auth=Anonymous() if auth is None else auth, **policy)
        sockets.route("/ws")(wait)
        made.append(sockets)
        return sockets

    yield start
    for sockets in made:
        sockets.close(timeout=3).result(10)


def counts(sockets: WebSockets) -> tuple[int, int, int]:
    assert sockets._front.engine is not None
    return sockets._front.engine.gate.counts


# --- HTTP ----------------------------------------------------------------------------------------


def test_http_passes_untouched(make: Callable[..., WebSockets]) -> None:
    app, answered, environ = App(), Answered(), http("/page?")
    before = dict(environ)
    sockets = make()
    result = sockets.wsgi(app)(environ, answered)
    assert result is app.body
    assert app.calls[0][0] is environ
    assert app.calls[0][1] is answered
    assert environ == before
    assert sockets._front.engine is None, "an HTTP request must start nothing"


# --- a page where there is a socket --------------------------------------------------------------


def page_app(
    status: str = "404 Not Found",
    *,
    late: bool = False,
    writes: bool = False,
    body: Iterable[bytes] = (b"the app's",),
) -> WSGIApplication:
    """An app with one answer; `late`, it says its status when its answer is read."""
    headers = [("Content-Type", "text/plain"), ("Set-Cookie", "a=1")]

    def now(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response(status, list(headers))
        if writes:
            write(b"written ")
        return body

    def later(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        yield from now(environ, start_response)

    return later if late else now


def get(app: WSGIApplication, path: str = "/ws", **changes: Any) -> tuple[Server, bytes]:
    """Ask as a strict server does: `wsgiref.validate` holds both sides to PEP 3333."""
    environ = http(path, **changes)
    setup_testing_defaults(environ)
    server = Server()
    chunks = validator(app)(environ, server)
    try:
        for chunk in chunks:
            server.write(chunk)
    finally:
        chunks.close()  # type: ignore[attr-defined]
    return server, server.body


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("writes", [False, True])
def test_a_page_that_the_app_knows_nothing_of_is_a_426(
    make: Callable[..., WebSockets],
    caplog: pytest.LogCaptureFixture,
    late: bool,  # noqa: FBT001
    writes: bool,  # noqa: FBT001
) -> None:
    caplog.set_level("INFO", "ws_middleware.gate")
    sockets = make()
    server, body = get(sockets.wsgi(page_app(late=late, writes=writes)))
    assert server.status == "426 Upgrade Required"
    assert server.headers == {
        "Content-Type": "application/problem+json",
        "Cache-Control": "no-store",
        "Sec-WebSocket-Version": "13",
        "Content-Length": str(len(body)),
    }
    assert json.loads(body)["code"] == "upgrade_required"
    assert sockets._front.engine is None, "HTTP must start nothing"
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert record.getMessage() == (
        "refused /ws: upgrade_required. "
        "this is a WebSocket endpoint: connect with a WebSocket client"
    )


@pytest.mark.parametrize("late", [False, True])
def test_head_is_told_the_same_without_a_body(
    make: Callable[..., WebSockets],
    late: bool,  # noqa: FBT001
) -> None:
    app = make().wsgi(page_app(late=late, body=()))
    server, body = get(app, REQUEST_METHOD="HEAD")
    assert (server.status, body) == ("426 Upgrade Required", b"")
    assert int(server.headers["Content-Length"]) > 100


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize(
    ("status", "path", "method"),
    [
        pytest.param("200 OK", "/ws", "GET", id="a-page"),
        pytest.param("400 Bad Request", "/ws", "GET", id="an-error"),
        pytest.param("410 Gone", "/ws", "GET", id="gone"),
        pytest.param("500 Oops", "/ws", "GET", id="broken"),
        pytest.param("404 Not Found", "/ws", "POST", id="not-a-get"),
        pytest.param("404 Not Found", "/ws", "OPTIONS", id="options"),
        pytest.param("404 Not Found", "/", "GET", id="another-path"),
        pytest.param("404 Not Found", "/wsx", "GET", id="a-longer-path"),
        pytest.param("404 Not Found", "/ws/", "GET", id="a-slash-more"),
        pytest.param("404 Not Found", "/ws\xc3\xa9", "GET", id="not-ascii"),
        pytest.param("404 Not Found", "/ws\xff", "GET", id="not-utf-8"),
        pytest.param("404 Not Found", "/ws\u20ac", "GET", id="not-even-latin-1"),
    ],
)
def test_any_other_answer_passes_byte_for_byte(
    make: Callable[..., WebSockets],
    late: bool,  # noqa: FBT001
    writes: bool,  # noqa: FBT001
    status: str,
    path: str,
    method: str,
) -> None:
    app = page_app(status, late=late, writes=writes)
    expected = get(app, path, REQUEST_METHOD=method)
    assert get(make().wsgi(app), path, REQUEST_METHOD=method) == expected
    assert expected[1] == (b"written the app's" if writes else b"the app's")


def test_paths_with_parameters_and_wide_letters(make: Callable[..., WebSockets]) -> None:
    sockets = make()
    sockets.route("/caf\u00e9/<int:room>")
    app = sockets.wsgi(page_app())
    wide = "/caf\xc3\xa9"  # UTF-8 read as latin-1, PEP 3333
    assert get(app, f"{wide}/7")[0].status.startswith("426")
    assert get(app, f"{wide}/x")[0].status.startswith("404")
    assert get(app, wide)[0].status.startswith("404")
    sockets.route("/<path:any>")
    assert get(app, f"{wide}/x")[0].status.startswith("426")


def test_a_route_at_the_root_of_a_mounted_app(make: Callable[..., WebSockets]) -> None:
    sockets = make()
    sockets.route("/")
    server, _ = get(sockets.wsgi(page_app()), "", SCRIPT_NAME="/mounted")
    assert server.status.startswith("426")


@pytest.mark.parametrize(
    ("path", "expected"), [("/api/ws", "404 Not Found"), ("/ws", "426 Upgrade Required")]
)
def test_an_app_that_mounts_others_changes_the_path_on_its_way(
    make: Callable[..., WebSockets], caplog: pytest.LogCaptureFixture, path: str, expected: str
) -> None:
    caplog.set_level("INFO", "ws_middleware.gate")
    sockets = make()
    sockets.route("/<path:any>/x")  # so that every path may be one of ours
    app = sockets.wsgi(DispatcherMiddleware(page_app(), {"/api": page_app(), "/ws": page_app()}))
    assert get(app, path)[0].status == expected
    assert [each.getMessage().partition(":")[0] for each in caplog.records] == (
        ["refused /ws"] if expected.startswith("426") else []
    )


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        pytest.param("404 Not Found", "500 Oops", "500 Oops", id="an-error-after-a-404"),
        pytest.param("200 OK", "404 Not Found", "404 Not Found", id="a-404-after-a-page"),
    ],
)
def test_an_error_page_in_place_of_an_answer(
    make: Callable[..., WebSockets], first: str, then: str, expected: str
) -> None:
    """PEP 3333: before any body is sent, an app may start again, with `exc_info`."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        headers = [("Content-Type", "text/plain")]
        start_response(first, headers)
        try:
            int("x")
        except ValueError:
            start_response(then, headers, sys.exc_info())
        return [b"sorry"]

    server, body = get(make().wsgi(app))
    assert (server.status, body) == (expected, b"sorry")
    assert server.restarts == (1 if first == "200 OK" else 0)


class File:
    """A `wsgi.file_wrapper`, which a server knows by its type."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"file"])

    def close(self) -> None:
        self.closed += 1


def test_a_file_passes_as_the_object_that_it_is(make: Callable[..., WebSockets]) -> None:
    file = File()
    assert make().wsgi(page_app("200 OK", body=file))(http(), Answered()) is file
    assert file.closed == 0, "the server closes it"


def test_what_the_app_returned_is_closed_where_it_does_not_go_out(
    make: Callable[..., WebSockets],
) -> None:
    file = File()
    get(make().wsgi(page_app(body=file)))
    assert file.closed == 1


@pytest.mark.parametrize("reads", [0, 1, 2])
def test_an_answer_read_in_part_is_closed(make: Callable[..., WebSockets], reads: int) -> None:
    """As a server does whose client has gone."""

    class Late(File):
        def __init__(self, start_response: StartResponse) -> None:
            super().__init__()
            self.start_response = start_response

        def __iter__(self) -> Iterator[bytes]:
            self.start_response("200 OK", [])
            yield from (b"a", b"b")

    made: list[Late] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        made.append(Late(start_response))
        return made[0]

    chunks = make().wsgi(app)(http(), Answered())
    iterator = iter(chunks)
    for _ in range(reads):
        next(iterator)
    chunks.close()  # type: ignore[attr-defined]
    assert made[0].closed == 1


# --- what is none of ours ------------------------------------------------------------------------


def test_an_upgrade_at_another_path_passes_with_an_offer(make: Callable[..., WebSockets]) -> None:
    app, answered, environ = App(), Answered(), upgrade("/other")
    before = dict(environ)
    result = make().wsgi(app)(environ, answered)
    assert result is app.body
    assert app.calls[0][0] is environ
    assert isinstance(environ.pop(OFFER), Offer)
    assert environ == before
    assert answered.calls == [("200 OK", [("Content-Type", "text/plain")])]


def test_a_101_of_somebody_else_passes(make: Callable[..., WebSockets]) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("101 Switching Protocols", [("X-Mine", "1")])
        return body

    body: list[bytes] = []
    answered = Answered()
    assert make().wsgi(app)(upgrade("/other"), answered) is body
    assert answered.calls == [("101 Switching Protocols", [("X-Mine", "1")])]


LOGIN = ("302 Found", [("Location", "/login?next=%2Fview"), ("Set-Cookie", "a=1"), ("X-A", "1")])


@pytest.mark.parametrize("late", [False, True])
def test_a_redirect_to_a_login_page_is_a_401(
    make: Callable[..., WebSockets],
    caplog: pytest.LogCaptureFixture,
    late: bool,  # noqa: FBT001
) -> None:
    caplog.set_level("INFO", "ws_middleware.gate")
    answered = Answered()
    app = redirecting(*LOGIN, late=late)
    body = b"".join(make().wsgi(app)(upgrade("/view"), answered))
    assert answered.status == "401 Unauthorized"
    assert json.loads(body)["code"] == "login_required"
    assert answered.headers["Set-Cookie"] == "a=1"
    assert "Location" not in answered.headers
    assert "X-A" not in answered.headers
    (record,) = caplog.records
    assert record.getMessage() == (
        "refused /view: login_required. the view redirected to /login: browsers show 1006 and "
        'follow nothing, so it is a 401; with refuse_with="close" a page reads 4401'
    )


def redirecting(
    status: str, headers: list[tuple[str, str]], *, late: bool = False
) -> WSGIApplication:
    def now(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, list(headers))
        return [b"moved"]

    def later(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        yield from now(environ, start_response)

    return later if late else now


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        pytest.param("308 Permanent Redirect", {}, id="a-slash-more"),
        pytest.param("301 Moved Permanently", {}, id="another-host"),
        pytest.param("304 Not Modified", {}, id="no-redirect"),
        pytest.param("403 Forbidden", {}, id="an-error"),
        pytest.param("302 Found", {"HTTP_UPGRADE": "h2c"}, id="h2c"),
        pytest.param("302 Found", {"HTTP_UPGRADE": "h2c, websocket"}, id="h2c-first"),
        pytest.param("302 Found", {"HTTP_CONNECTION": "close"}, id="no-connection"),
        pytest.param("302 Found", {"REQUEST_METHOD": "POST"}, id="a-form"),
    ],
)
def test_no_other_answer_to_an_upgrade_is_changed(
    make: Callable[..., WebSockets], status: str, changes: dict[str, str]
) -> None:
    answered = Answered()
    app = make(refuse_with="close").wsgi(redirecting(status, LOGIN[1]))
    body = b"".join(app(upgrade("/view", **changes), answered))
    assert answered.calls == [(status, LOGIN[1])]
    assert body == b"moved"


def test_siblings_are_noted_at_the_first_request(make: Callable[..., WebSockets]) -> None:
    sockets = make()
    sockets.wsgi(App())(http() | {"wsgi.multiprocess": True}, Answered())
    assert sockets._hub.has_siblings


# --- the token -----------------------------------------------------------------------------------


def test_a_token_is_overwritten_wherever_it_stands(make: Callable[..., WebSockets]) -> None:
    target = "/ws?a=1&token=secret&b=2"
    environ = upgrade(
        QUERY_STRING="a=1&token=secret&b=2", RAW_URI=target, REQUEST_URI=f"http://localhost{target}"
    )
    answered = Answered()
    make(JWT).wsgi(App())(environ, answered)
    assert answered.status.startswith("401 ")
    assert environ["QUERY_STRING"] == "a=1&token=-&b=2"
    assert environ["RAW_URI"] == "/ws?a=1&token=-&b=2"
    assert environ["REQUEST_URI"] == "http://localhost/ws?a=1&token=-&b=2"
    assert "secret" not in repr(environ)


def test_a_query_without_a_token_stays(make: Callable[..., WebSockets]) -> None:
    environ = upgrade(QUERY_STRING="a=1", RAW_URI="/ws?a=1")
    before = dict(environ)
    make(JWT).wsgi(App())(environ, Answered())
    assert environ == before


# --- environ to request --------------------------------------------------------------------------


def test_the_request_of_an_environ() -> None:
    environ = upgrade(
        "/ws/1",
        QUERY_STRING="x=%20",
        REMOTE_ADDR="192.0.2.1",
        REMOTE_PORT="4000",
        CONTENT_LENGTH="0",
        CONTENT_TYPE="",
        HTTP_X_TWO_WORDS="a, b",
        **{"wsgi.url_scheme": "https"},
    )
    request = request_from_environ(environ, time.time())
    assert (request.method, request.target, request.http_version) == ("GET", "/ws/1?x=%20", "1.1")
    assert request.client == ("192.0.2.1", 4000)
    assert request.scheme == "https"
    assert request.native is environ
    assert dict(request.headers) == {
        "host": "localhost",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": KEY,
        "sec-websocket-version": "13",
        "origin": "http://localhost",
        "content-length": "0",
        "x-two-words": "a, b",
    }


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        (None, None, None),
        ("", "1", None),
        ("192.0.2.1", None, ("192.0.2.1", 0)),
        ("192.0.2.1", "", ("192.0.2.1", 0)),
        ("192.0.2.1", "x", ("192.0.2.1", 0)),
        ("::1", "5", ("::1", 5)),
    ],
)
def test_the_peer(address: str | None, port: str | None, expected: tuple[str, int] | None) -> None:
    given = {"REMOTE_ADDR": address, "REMOTE_PORT": port}
    environ = http(**{name: value for name, value in given.items() if value is not None})
    assert request_from_environ(environ, time.time()).client == expected


@pytest.mark.parametrize(
    ("path_info", "raw", "path"),
    [
        ("", "/", "/"),
        ("/a b", "/a%20b", "/a b"),
        ("/50%", "/50%25", "/50%"),
        ("/%41", "/%2541", "/%41"),
        ("/a?b#c", "/a%3Fb%23c", "/a?b#c"),
        ("/\xc3\xa9", "/%C3%A9", "/é"),
        ("/\xff", "/%FF", "/\udcff"),
        ("/\r\n\x00", "/%0D%0A%00", "/\r\n\x00"),
        ("//evil/ws", "//evil/ws", "//evil/ws"),
        ("/http://x/", "/http://x/", "/http://x/"),
    ],
)
def test_an_odd_path_is_escaped_again(path_info: str, raw: str, path: str) -> None:
    request = request_from_environ(http(path_info), 0.0)
    assert (request.raw_path, request.path, request.target) == (raw, path, raw)


def test_a_line_feed_in_a_field_makes_no_other() -> None:
    request = request_from_environ(http(HTTP_X_A="1\nhost:evil.com", HTTP_X_WIDE="\u20ac"), 0.0)
    assert request.headers.get_all("host") == ["localhost"]
    assert request.headers["x-a"] == "1 host:evil.com"
    assert request.headers["x-wide"] == "?"


# --- refusals ------------------------------------------------------------------------------------


def test_refusals_have_no_hop_by_hop_fields(make: Callable[..., WebSockets]) -> None:
    def no(request: UpgradeRequest) -> str:
        headers = [("Connection", "close"), ("X-A", "1"), ("Transfer-Encoding", "chunked")]
        raise Refused(402, headers=headers, body=b"pay")

    cases: list[tuple[Any, WSGIEnvironment, str]] = [
        (no, upgrade(), "402 Payment Required"),
        (None, upgrade(HTTP_UPGRADE="h2c"), "426 Upgrade Required"),
        (None, upgrade(HTTP_SEC_WEBSOCKET_KEY="x"), "400 Bad Request"),
        (None, upgrade(HTTP_ORIGIN="https://evil.com"), "403 Forbidden"),
        (None, upgrade(SERVER_PROTOCOL="HTTP/1.0"), "505 HTTP Version Not Supported"),
        (lambda request: None, upgrade(), "401 Unauthorized"),
    ]
    for auth, environ, status in cases:
        answered, sockets = Answered(), make(auth)
        body = b"".join(sockets.wsgi(App())(environ, answered))
        assert answered.status == status
        assert not {name.lower() for name in answered.headers} & HOP_BY_HOP
        assert answered.headers["Content-Length"] == str(len(body))
        assert counts(sockets) == (0, 0, 0)
        if status.startswith("402"):
            assert (body, answered.headers["X-A"]) == (b"pay", "1")


def test_without_a_socket_it_is_a_501_and_the_places_are_free(
    make: Callable[..., WebSockets],
) -> None:
    sockets = make(lambda request: "ann", limits=Limits(connections_per_user=1))
    for _ in range(3):
        answered = Answered()
        body = b"".join(sockets.wsgi(App())(upgrade(), answered))
        assert answered.status == "501 Not Implemented"
        assert b'"server_unsupported"' in body
        assert counts(sockets) == (0, 0, 0)


def test_a_thread_of_a_def_conversation_is_free_again(make: Callable[..., WebSockets]) -> None:
    sockets = make(lambda request: "ann", sync_conversations=1)

    @sockets.route("/def")
    def talk(ws: Any) -> None: ...

    for _ in range(3):
        answered = Answered()
        sockets.wsgi(App())(upgrade("/def"), answered)
        assert answered.status == "501 Not Implemented"
    assert sockets._front.engine is not None
    assert sockets._front.engine.threads["conversations"].reserved == 0


def test_a_socket_that_has_gone_is_a_503_and_the_places_are_free(
    make: Callable[..., WebSockets],
) -> None:
    server, client = socket.socketpair()
    server.close()
    client.close()
    sockets, answered = make(lambda request: "ann"), Answered()
    environ = upgrade() | {"werkzeug.socket": server, "wsgi.input": _Stream()}
    sockets.wsgi(App())(environ, answered)
    assert answered.status == "503 Service Unavailable"
    assert counts(sockets) == (0, 0, 0)


def test_where_somebody_develops_a_port_of_our_own_is_open_and_named(
    make: Callable[..., WebSockets],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on Windows, in a debugger."""
    monkeypatch.setattr(takeover, "_CAN_SWAP", False)
    monkeypatch.setattr(sidecar, "_BESIDE", ("127.0.0.1", 0))
    sockets = make(lambda request: "ann", origins=["same-origin", "http://localhost:5000"])
    app = sockets.wsgi(App())
    page = {"HTTP_HOST": "localhost:5000", "HTTP_ORIGIN": "http://localhost:5000"}
    for _ in range(2):
        answered = Answered()
        debugged = upgrade(**page, SERVER_SOFTWARE="Werkzeug/3.1.9")
        app(debugged | {"werkzeug.debug.preserve_context": print}, answered)
        assert answered.status == "501 Not Implemented"
    first, second = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert first == second, "one port for all"
    told = re.fullmatch(
        r"refused /ws: server_unsupported\. Werkzeug/3\.1\.9: it needs a POSIX system; in debug "
        r"mode a port of our own serves this: connect to (ws://localhost:[0-9]+/ws) and let the "
        r"page in with origins=\['http://localhost:5000'\]",
        first,
    )
    assert told is not None, first
    url = told[1].replace("localhost", "127.0.0.1")
    with connect(url, origin=Origin("http://localhost:5000")) as ws:
        ws.ping().wait(10)
    assert counts(sockets)[0] == 0


def test_without_a_debugger_no_port_is_opened(
    make: Callable[..., WebSockets],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(takeover, "_CAN_SWAP", False)
    sockets = make(lambda request: "ann")
    sockets.wsgi(App())(upgrade(), Answered())
    assert "serve WebSockets on a port of their own, sockets.listen(port=8001)" in caplog.text
    assert sockets._front.sidecar is not None
    assert sockets._front.sidecar._runtime is None


class _Stream:
    """A body that cannot be read."""

    def read(self) -> bytes:
        msg = "not a stream"
        raise ValueError(msg)


def test_a_reader_that_fails_leaves_the_places_free(make: Callable[..., WebSockets]) -> None:
    server, client = socket.socketpair()
    sockets = make(lambda request: "ann")
    environ = upgrade() | {"werkzeug.socket": server, "wsgi.input": _Stream()}
    try:
        with pytest.raises(ValueError, match="not a stream"):
            sockets.wsgi(App())(environ, Answered())
        assert counts(sockets) == (0, 0, 0)
    finally:
        server.close()
        client.close()


def test_without_a_loop_the_answer_is_plain_http(
    make: Callable[..., WebSockets], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(sidecar, "new_loop", full)
    server, client = socket.socketpair()
    sockets, answered = make(lambda request: "ann"), Answered()
    with server, client, server.makefile("rb") as stream:
        environ = upgrade() | {"werkzeug.socket": server, "wsgi.input": stream}
        body = b"".join(sockets.wsgi(App())(environ, answered))
        assert (answered.status, json.loads(body)["code"]) == (
            "503 Service Unavailable",
            "server_full",
        )
        server.sendall(b"still the server's")
        assert client.recv(100) == b"still the server's"
    assert counts(sockets) == (0, 0, 0)


def test_a_connection_that_cannot_be_served_ends_and_its_places_are_free(
    make: Callable[..., WebSockets], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> Any:
        raise LookupError

    monkeypatch.setattr(Engine, "resume_session", fail)
    sockets = make(lambda request: "ann")
    server, client = socket.socketpair()
    client.settimeout(10)
    with server, client, server.makefile("rb") as stream:
        environ = upgrade() | {"werkzeug.socket": server, "wsgi.input": stream}
        sockets.wsgi(App())(environ, Answered())
        assert client.recv(100) == b""
        until(lambda: counts(sockets) == (0, 0, 0))
        with pytest.raises(BrokenPipeError):  # nobody drains it
            server.sendall(b"x")


# --- a yes ---------------------------------------------------------------------------------------


def served(app: WSGIApplication, environ: WSGIEnvironment) -> tuple[Answered, bytes]:
    """Run the app on a real connection; return what the server is told and the client gets."""
    with taken(app, environ) as (answered, head):
        return answered, head


@contextmanager
def taken(app: WSGIApplication, environ: WSGIEnvironment) -> Iterator[tuple[Answered, bytes]]:
    """Do the same, but keep the socket open meanwhile."""
    server, client = socket.socketpair()
    client.settimeout(10)
    answered = Answered()
    with server, client, server.makefile("rb") as stream:
        environ |= {"werkzeug.socket": server, "wsgi.input": stream}
        assert list(app(environ, answered)) == []
        head = b""
        while b"\r\n\r\n" not in head:
            chunk = client.recv(65536)
            assert chunk, head
            head += chunk
        yield answered, head


def test_a_yes_takes_the_connection(make: Callable[..., WebSockets]) -> None:
    sockets = make(lambda request: "ann")
    answered, head = served(sockets.wsgi(App()), upgrade())
    assert answered.calls == [("101 Switching Protocols", [])]
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in head.lower()


def accepting(sockets: WebSockets, user: str | None = "ann") -> WSGIApplication:
    answer: WSGIApplication = sockets.upgrade(wait, user=user)
    return answer


def test_a_view_accepts_with_headers(make: Callable[..., WebSockets]) -> None:
    sockets = make()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def add(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, ("Set-Cookie", "a=1")], *rest)

        return accepting(sockets)(environ, add)

    answered, head = served(sockets.wsgi(app), upgrade("/view"))
    assert answered.calls == [("101 Switching Protocols", [])]
    assert b"\r\nset-cookie: a=1" in head.lower()


def test_what_a_101_must_not_say_is_left_out(make: Callable[..., WebSockets]) -> None:
    """A framework writes a 101 as any answer; hooks may even try to answer the handshake."""
    sockets = make()
    flask = Flask("view")

    @flask.route("/view", websocket=True)
    def view() -> Any:
        response = Response.force_type(cast("Any", accepting(sockets)), flask_request.environ)
        forbidden = {
            "Connection": "close",
            "Content-Encoding": "gzip",
            "Content-Length": "7",
            "Content-Type": "text/html",
            "Keep-Alive": "timeout=5",
            "Sec-WebSocket-Accept": "forged",
            "Sec-WebSocket-Extensions": "permessage-deflate",
            "Sec-WebSocket-Protocol": "forged",
            "Trailer": "X-A",
            "Transfer-Encoding": "chunked",
            "Upgrade": "h2c",
        }
        response.headers.update(forbidden)
        response.set_cookie("a", "1")
        return response

    _, head = served(sockets.wsgi(flask.wsgi_app), upgrade("/view"))
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    assert sorted(line for line in lines[1:] if line) == [
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Set-Cookie: a=1; Path=/",
        "Upgrade: websocket",
    ]


@pytest.mark.parametrize("name", ["X-A", "X A"])
def test_headers_that_cannot_be_sent_are_a_500(make: Callable[..., WebSockets], name: str) -> None:
    sockets, answered = make(), Answered()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def add(status: str, headers: list[tuple[str, str]]) -> Any:
            return start_response(status, [(name, "1\r\nSet-Cookie: b=2")])

        return accepting(sockets)(environ, cast("StartResponse", add))

    b"".join(sockets.wsgi(app)(upgrade("/view"), answered))
    assert answered.status == "500 Internal Server Error"
    assert counts(sockets) == (0, 0, 0)


# --- a view's no, as a close ----------------------------------------------------------------------


def closed(app: WSGIApplication, environ: WSGIEnvironment) -> tuple[int, str]:
    """Return the code and the reason of the close frame that comes at once after the 101."""
    server, client = socket.socketpair()
    client.settimeout(10)
    answered = Answered()
    with server, client, server.makefile("rb") as stream:
        environ |= {"werkzeug.socket": server, "wsgi.input": stream}
        assert list(app(environ, answered)) == []
        assert answered.calls == [("101 Switching Protocols", [])]
        data = b""
        while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < 4:
            chunk = client.recv(65536)
            assert chunk, data
            data += chunk
    head, _, close = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert close[0] == 0x88
    return int.from_bytes(close[2:4], "big"), close[4 : 2 + close[1]].decode()


@pytest.mark.parametrize(
    ("user", "changes", "expected"),
    [
        pytest.param(None, {}, (4401, "credential_refused"), id="nobody"),
        pytest.param(
            "ann", {"HTTP_ORIGIN": "https://evil.com"}, (4403, "origin_not_allowed"), id="origin"
        ),
    ],
)
@pytest.mark.parametrize("by_view", [False, True])
def test_a_views_refusal_is_a_close_where_the_policy_says_so(
    make: Callable[..., WebSockets],
    caplog: pytest.LogCaptureFixture,
    user: str | None,
    changes: dict[str, str],
    expected: tuple[int, str],
    by_view: bool,  # noqa: FBT001
) -> None:
    caplog.set_level("INFO", "ws_middleware.gate")
    sockets = make(refuse_with="http" if by_view else "close")
    own: Any = {"refuse_with": "close"} if by_view else {}
    view = sockets.upgrade(wait, user=user, **own)
    assert closed(sockets.wsgi(view), upgrade("/view", **changes)) == expected
    assert counts(sockets) == (0, 0, 0)
    assert [each.getMessage().split(".")[0] for each in caplog.records] == [
        f"refused /view: {expected[1]}"
    ]


def test_what_is_no_upgrade_is_told_by_http_whatever_the_policy_says(
    make: Callable[..., WebSockets],
) -> None:
    sockets, answered = make(refuse_with="close"), Answered()
    app = sockets.wsgi(accepting(sockets))
    b"".join(app(upgrade("/view", HTTP_CONNECTION="close"), answered))
    assert answered.status == "400 Bad Request"


@pytest.mark.parametrize("late", [False, True])
def test_a_login_page_is_a_close_where_the_app_says_so(
    make: Callable[..., WebSockets],
    late: bool,  # noqa: FBT001
) -> None:
    app = make(refuse_with="close").wsgi(redirecting(*LOGIN, late=late))
    assert closed(app, upgrade("/view")) == (4401, "login_required")


def test_another_answer_after_a_close_stands(make: Callable[..., WebSockets]) -> None:
    sockets, answered = make(refuse_with="close"), Answered()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        accepting(sockets, None)(environ, Answered())
        start_response("418 Teapot", [])
        return [b"short and stout"]

    body = b"".join(sockets.wsgi(app)(upgrade("/view"), answered))
    assert (answered.status, body) == ("418 Teapot", b"short and stout")


def test_a_redirect_after_the_accept_is_a_401_and_the_places_are_free(
    make: Callable[..., WebSockets],
) -> None:
    sockets, answered = make(), Answered()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        accepting(sockets)(environ, Answered())
        return redirecting(*LOGIN)(environ, start_response)

    b"".join(sockets.wsgi(app)(upgrade("/view"), answered))
    assert answered.status == "401 Unauthorized"
    assert counts(sockets) == (0, 0, 0)


def test_an_accept_that_is_said_late_is_a_500(make: Callable[..., WebSockets]) -> None:
    """Never a 101 without a connection behind it."""
    sockets, answered = make(), Answered()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        said = Answered()
        chunks = accepting(sockets)(environ, said)

        def body() -> Iterator[bytes]:
            start_response(said.status, [])
            yield from chunks

        return body()

    b"".join(sockets.wsgi(app)(upgrade("/view"), answered))
    assert answered.status == "500 Internal Server Error"
    assert counts(sockets) == (0, 0, 0)


def test_an_answer_that_cannot_be_closed_frees_the_places(make: Callable[..., WebSockets]) -> None:
    sockets = make()

    class Broken(File):
        def close(self) -> None:
            raise LookupError

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        accepting(sockets)(environ, start_response)
        return Broken()

    with pytest.raises(LookupError):
        sockets.wsgi(app)(upgrade("/view"), Answered())
    assert counts(sockets) == (0, 0, 0)


def test_of_two_accepts_the_last_one_counts(make: Callable[..., WebSockets]) -> None:
    sockets = make()
    ann, bob = accepting(sockets, "ann"), accepting(sockets, "bob")

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        ann(environ, Answered())
        return bob(environ, start_response)

    with taken(sockets.wsgi(app), upgrade("/view")) as (_, head):
        assert head.startswith(b"HTTP/1.1 101 ")
        assert counts(sockets) == (0, 1, 1)


def test_the_places_of_an_accept_before_a_refusal_are_free(
    make: Callable[..., WebSockets],
) -> None:
    sockets = make(refuse_with="close")
    ann, nobody = accepting(sockets, "ann"), accepting(sockets, None)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        ann(environ, Answered())
        return nobody(environ, start_response)

    assert closed(sockets.wsgi(app), upgrade("/view")) == (4401, "credential_refused")
    assert counts(sockets) == (0, 0, 0)


def test_sockets_of_a_view_are_counted_whatever_their_paths(
    make: Callable[..., WebSockets],
) -> None:
    sockets = make(limits=Limits(connections_per_user=1))
    app, answered = sockets.wsgi(accepting(sockets, "ann")), Answered()
    with taken(app, upgrade("/view/1")):
        b"".join(app(upgrade("/view/2"), answered))
    assert answered.status == "429 Too Many Requests"


@pytest.mark.parametrize("path", ["/" + "x" * 300, "/a\nb", "/caf\xe9", "/caf\xc3\xa9"])
def test_a_views_path_may_be_anything(make: Callable[..., WebSockets], path: str) -> None:
    sockets = make()
    _, head = served(sockets.wsgi(accepting(sockets)), upgrade(path))
    assert head.startswith(b"HTTP/1.1 101 ")


def test_a_page_in_place_of_a_views_socket(make: Callable[..., WebSockets]) -> None:
    server, body = get(accepting(make()), "/view")
    assert (server.status, json.loads(body)["code"]) == ("426 Upgrade Required", "upgrade_required")


def test_a_view_without_a_user_is_a_401(make: Callable[..., WebSockets]) -> None:
    sockets, answered = make(), Answered()
    b"".join(sockets.wsgi(accepting(sockets, None))(upgrade("/view"), answered))
    assert answered.status == "401 Unauthorized"
    assert counts(sockets) == (0, 0, 0)


def not_bob(user: Principal, request: UpgradeRequest) -> bool:
    assert request.path == "/view"
    return user.id != "bob"


async def not_bob_async(user: Principal, request: UpgradeRequest) -> bool:
    return not_bob(user, request)


@pytest.mark.parametrize("authorize", [not_bob, not_bob_async])
@pytest.mark.parametrize("given_by", ["app", "view"])
def test_a_view_may_say_who_it_is_and_authorize_has_a_say_too(
    make: Callable[..., WebSockets], authorize: Any, given_by: str
) -> None:
    policy = {"authorize": authorize}
    sockets = make(**(policy if given_by == "app" else {}))

    def view(user: str) -> WSGIApplication:
        return sockets.upgrade(wait, user=user, **(policy if given_by == "view" else {}))

    answered = Answered()
    body = b"".join(sockets.wsgi(view("bob"))(upgrade("/view"), answered))
    assert (answered.status, json.loads(body)["code"]) == ("403 Forbidden", "not_allowed")
    assert counts(sockets) == (0, 0, 0)
    _, head = served(sockets.wsgi(view("ann")), upgrade("/view"))
    assert head.startswith(b"HTTP/1.1 101 ")


def test_a_view_may_do_without_the_apps_authorize(make: Callable[..., WebSockets]) -> None:
    sockets = make(authorize=lambda user, request: False)
    view = sockets.upgrade(wait, user="ann", authorize=None)
    _, head = served(sockets.wsgi(view), upgrade("/view"))
    assert head.startswith(b"HTTP/1.1 101 ")


def test_an_authorize_that_fails_lets_nobody_through_a_view(
    make: Callable[..., WebSockets],
) -> None:
    sockets, answered = (
        make(authorize=lambda user, request: request.path_params["room"]),
        Answered(),
    )
    b"".join(sockets.wsgi(accepting(sockets))(upgrade("/view"), answered))
    assert answered.status == "500 Internal Server Error"
    assert counts(sockets) == (0, 0, 0)


@pytest.mark.parametrize("user", ["ann", Principal("ann")])
def test_an_exception_after_the_accept_frees_the_places(
    user: Any, make: Callable[..., WebSockets]
) -> None:
    sockets = make()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        accepting(sockets, user)(environ, start_response)
        raise LookupError

    with pytest.raises(LookupError):
        sockets.wsgi(app)(upgrade("/view"), Answered())
    assert counts(sockets) == (0, 0, 0)


def test_a_body_that_fails_to_close_frees_the_places(make: Callable[..., WebSockets]) -> None:
    sockets = make()

    class Body(list[bytes]):
        def close(self) -> None:
            raise LookupError

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return Body(accepting(sockets)(environ, start_response))

    with pytest.raises(LookupError):
        sockets.wsgi(app)(upgrade("/view"), Answered())
    assert counts(sockets) == (0, 0, 0)


def test_an_accept_that_is_taken_back_is_none(make: Callable[..., WebSockets]) -> None:
    sockets, answered = make(), Answered()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        accepting(sockets)(environ, start_response)
        try:
            json.loads("")
        except ValueError:
            start_response("500 Internal Server Error", [], sys.exc_info())  # PEP 3333
        return [b"sorry"]

    assert sockets.wsgi(app)(upgrade("/view"), answered) == [b"sorry"]
    assert answered.calls == [("500 Internal Server Error", [])]
    assert counts(sockets) == (0, 0, 0)


def test_a_second_accept_takes_the_place_of_the_first(make: Callable[..., WebSockets]) -> None:
    sockets, answered = make(), Answered()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        accepting(sockets)(environ, start_response)
        return accepting(sockets, None)(environ, start_response)

    b"".join(sockets.wsgi(app)(upgrade("/view"), answered))
    assert answered.status == "401 Unauthorized"
    assert counts(sockets) == (0, 0, 0)


def broken_after(sockets: WebSockets) -> WSGIApplication:
    """An app whose view accepts, and where something after it says 500, with a generator."""

    def body() -> Iterator[bytes]:
        yield b"sorry"

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        accepting(sockets)(environ, Answered())
        start_response("500 Internal Server Error", [("Content-Length", "5")])
        return body()

    return app


def test_another_answer_after_the_accept_frees_the_places(make: Callable[..., WebSockets]) -> None:
    sockets, answered = make(), Answered()
    sockets.wsgi(broken_after(sockets))(upgrade("/view"), answered)
    assert answered.status == "500 Internal Server Error"
    assert counts(sockets) == (0, 0, 0)


def test_another_answer_after_the_accept_has_its_body(make: Callable[..., WebSockets]) -> None:
    sockets = make()
    chunks = sockets.wsgi(broken_after(sockets))(upgrade("/view"), Answered())
    assert list(chunks) == [b"sorry"]


def test_a_generator_between_us_and_the_view(make: Callable[..., WebSockets]) -> None:
    sockets = make()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        yield from accepting(sockets)(environ, start_response)

    answered = Answered()
    b"".join(sockets.wsgi(app)(upgrade("/view"), answered))  # it comes too late
    assert counts(sockets) == (0, 0, 0)
    assert answered.status == "500 Internal Server Error"
