from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.gate.upgrades import KEY
from ws_middleware import Anonymous, JWTAuth, Limits, Principal, WebSocket, WebSockets
from ws_middleware.errors import Refused
from ws_middleware.wsgi import OFFER, Offer, request_from_environ

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
    assert sockets._engine is not None
    return sockets._engine.gate.counts


# --- HTTP ----------------------------------------------------------------------------------------


def test_http_passes_untouched(make: Callable[..., WebSockets]) -> None:
    app, answered, environ = App(), Answered(), http("/ws?")
    before = dict(environ)
    sockets = make()
    result = sockets.wsgi(app)(environ, answered)
    assert result is app.body
    assert app.calls[0][0] is environ
    assert app.calls[0][1] is answered
    assert environ == before
    assert sockets._engine is None, "an HTTP request must start nothing"


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
    assert sockets._engine is not None
    assert sockets._engine.threads["conversations"].reserved == 0


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


# --- a yes ---------------------------------------------------------------------------------------


def served(app: WSGIApplication, environ: WSGIEnvironment) -> tuple[Answered, bytes]:
    """Run the app on a real connection; return what the server is told and the client gets."""
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
    return answered, head


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
