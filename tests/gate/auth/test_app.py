from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

import pytest
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request

from tests.gate.upgrades import Field, upgrade
from ws_middleware.errors import Refused
from ws_middleware.gate.auth.app import (
    GRANTED,
    build_environ,
    environ_of,
    find_login,
    run_app,
)
from ws_middleware.types import Granted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from ws_middleware.types import UpgradeRequest

Headers = list[tuple[str, str]]


def answering(
    status: str, headers: Headers | None = None, body: bytes = b"", user: object = None
) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if user is not None:
            environ[GRANTED] = user
        start_response(status, list(headers or []))
        return [body]

    return app


def refused_by(app: WSGIApplication, **fields: Field) -> Refused:
    with pytest.raises(Refused) as caught:
        run_app(app, upgrade(**fields))
    return caught.value


# --- run_app -------------------------------------------------------------------------------------


def test_a_yes_has_its_headers() -> None:
    headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Trace", "7")]
    granted = run_app(answering("101 Switching Protocols", headers, user="ann"), upgrade())
    assert granted == Granted("ann", tuple(headers))


def test_blanks_around_a_value_are_trimmed() -> None:
    granted = run_app(answering("101 x", [("Set-Cookie", " a=1; Path=/ \t")], user=7), upgrade())
    assert granted == Granted(7, (("Set-Cookie", "a=1; Path=/"),))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 429, 500, 503, 599])
def test_an_error_is_sent_as_it_is(status: int) -> None:
    headers = [("Content-Type", "text/html"), ("Set-Cookie", "a=1")]
    refused = refused_by(answering(f"{status} Whatever", headers, b"<h1>no</h1>"))
    assert (refused.status, refused.code) == (status, "app_refused")
    assert refused.headers == tuple(headers)
    assert refused.body == b"<h1>no</h1>"
    assert refused.why == f"the app answered {status}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_401_that_keeps_its_cookies(status: int) -> None:
    headers = [
        ("Location", "/login?next=/ws"),
        ("Set-Cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("Content-Type", "text/html"),
    ]
    refused = refused_by(answering(f"{status} Found", headers, b"moved"))
    assert (refused.status, refused.code) == (401, "login_required")
    assert refused.headers == (("Set-Cookie", "a=1"), ("set-cookie", "b=2"))
    assert refused.body == b""
    assert refused.why == (
        "the app redirected to /login: browsers show 1006 and follow nothing, so it is a 401; "
        'with refuse_with="close" a page reads 4401'
    )


@pytest.mark.parametrize("status", ["302 Found", "303 See Other", "307 Temporary Redirect", "302"])
def test_a_views_redirect_elsewhere_is_a_login(status: str) -> None:
    headers = [
        ("location", "/login?next=/ws%3Ftoken%3DSECRET"),
        ("SET-COOKIE", "a=1"),
        ("X-A", "1"),
    ]
    refused = find_login(status, headers)
    assert refused is not None
    assert (refused.status, refused.code) == (401, "login_required")
    assert refused.headers == (("SET-COOKIE", "a=1"),)
    assert refused.why.startswith("the view redirected to /login: browsers show 1006 ")
    assert "SECRET" not in refused.why


@pytest.mark.parametrize("status", ["200 OK", "301 Moved Permanently", "304 Not Modified", "308 x"])
def test_no_other_answer_of_a_view_is_a_login(status: str) -> None:
    assert find_login(status, [("Location", "/ws/")]) is None


@pytest.mark.parametrize("status", [200, 204, 101])
@pytest.mark.parametrize("user", [None, "ann"])
def test_any_other_answer_is_a_403(status: int, user: str | None) -> None:
    if (status, user) == (101, "ann"):
        pytest.skip("that is a yes")
    refused = refused_by(answering(f"{status} OK", [("X-A", "1")], b"page", user))
    assert (refused.status, refused.code) == (403, "app_refused")
    assert (refused.headers, refused.body) == ((), b"")
    assert refused.why == f"the app answered {status}, neither a yes nor an error"


def test_an_error_after_the_yes_is_a_no() -> None:
    refused = refused_by(answering("500 Broken", [], b"sorry", "ann"))
    assert (refused.status, refused.body) == (500, b"sorry")


def test_the_last_start_response_counts() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[GRANTED] = "ann"
        start_response("101 Switching Protocols", [("X-A", "1")])
        start_response("409 Conflict", [], (None, None, None))
        return [b"late"]

    refused = refused_by(app)
    assert (refused.status, refused.headers, refused.body) == (409, (), b"late")


def test_exceptions_propagate() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        msg = "boom"
        raise LookupError(msg)

    with pytest.raises(LookupError, match="boom"):
        run_app(app, upgrade())


class Body:
    """An iterable that knows whether it was closed, and may fail on the way."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self.chunks = chunks
        self.error = error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed += 1


def with_body(body: Body, status: str = "403 Forbidden") -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [])
        return body

    return app


def test_the_body_is_read_and_closed_once() -> None:
    body = Body(b"a", b"", b"b")
    assert refused_by(with_body(body)).body == b"ab"
    assert body.closed == 1


def test_a_body_that_fails_is_closed_too() -> None:
    body = Body(b"a", error=OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        run_app(with_body(body), upgrade())
    assert body.closed == 1


def test_a_generator_is_an_app() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        environ[GRANTED] = "ann"
        start_response("101 Switching Protocols", [("X-A", "1")])
        yield b""

    assert run_app(app, upgrade()) == Granted("ann", (("X-A", "1"),))


def test_what_is_written_is_the_body_too() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("403 Forbidden", [])(b"written, ")
        return [b"returned"]

    assert refused_by(app).body == b"written, returned"


def test_no_header_grants() -> None:
    seen: list[WSGIEnvironment] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(dict(environ))
        start_response("101 Switching Protocols", [])
        return []

    fields = {GRANTED: "admin", "granted": "admin", GRANTED.upper(): "admin"}
    assert refused_by(app, **fields).status == 403
    assert GRANTED not in seen[0]


def test_a_grant_from_before_does_not_count_and_none_stays() -> None:
    environ = build_environ(upgrade())
    environ[GRANTED] = "admin"
    request = replace(upgrade(), native=environ)
    with pytest.raises(Refused):
        run_app(answering("101 Switching Protocols"), request)
    run_app(answering("101 Switching Protocols", user="ann"), request)
    assert GRANTED not in environ


def test_the_hosts_own_environ_is_used() -> None:
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET"}
    seen: list[object] = []

    def app(given: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(given)
        start_response("403 Forbidden", [])
        return []

    with pytest.raises(Refused):
        run_app(app, replace(upgrade(), native=environ))
    assert seen[0] is environ


# --- build_environ -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "scheme", "name", "port"),
    [
        ("myapp.com", "http", "myapp.com", "80"),
        ("myapp.com", "https", "myapp.com", "443"),
        ("myapp.com", "wss", "myapp.com", "443"),
        ("myapp.com:8443", "https", "myapp.com", "8443"),
        ("[::1]:8000", "http", "[::1]", "8000"),
        ("", "http", "localhost", "80"),
        pytest.param(
            *("[::1]", "http", "[::1]", "80"),
        ),
    ],
)
def test_the_host(host: str, scheme: str, name: str, port: str) -> None:
    environ = build_environ(upgrade(host=host, scheme=scheme))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)
    assert environ["wsgi.url_scheme"] == ("https" if scheme in {"https", "wss"} else "http")
    assert environ["HTTP_HOST"] == host


def through_validator(**fields: Field) -> int:
    app: Callable[..., Any] = validator(answering("403 No", [("Content-Type", "text/plain")], b"n"))
    target = fields.pop("target", "/ws/1?a=b&c=%20")
    with pytest.raises(Refused) as caught:
        run_app(app, replace(upgrade(target, **fields), client=("192.0.2.1", 7)))
    return caught.value.status


def test_the_environ_is_valid() -> None:
    assert through_validator() == 403
    assert through_validator(host="[::1]:8000", cookie="a=1", target="/") == 403


@pytest.mark.parametrize("name", ["content_length", "content_type"])
def test_the_environ_is_valid_with_content_fields(name: str) -> None:
    assert through_validator(**{name: "0"}) == 403


def test_werkzeug_reads_it() -> None:
    request = replace(
        upgrade(
            "/a%20b/%C3%A9?x=1&x=2&y=%26", host="myapp.com:81", cookie="a=1; b=2", x_n=["1", "2"]
        ),
        client=("192.0.2.1", 7),
    )
    read = Request(build_environ(request))
    assert (read.method, read.path, read.host) == ("GET", "/a b/é", "myapp.com:81")
    assert read.args.to_dict(flat=False) == {"x": ["1", "2"], "y": ["&"]}
    assert read.cookies.to_dict() == {"a": "1", "b": "2"}
    assert read.headers["X-N"] == "1,2"
    assert read.remote_addr == "192.0.2.1"
    assert read.environ["REMOTE_PORT"] == "7"
    assert read.environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert read.headers["Upgrade"] == "websocket"


def test_without_a_peer_there_is_no_address() -> None:
    assert not {"REMOTE_ADDR", "REMOTE_PORT"} & set(build_environ(upgrade()))


def test_lines_of_cookies_are_one_list() -> None:
    request = upgrade(cookie=["a=1", "session=s"])
    assert request.cookies == {"a": "1", "session": "s"}
    assert Request(build_environ(request)).cookies.to_dict() == request.cookies


def test_a_field_with_an_underscore_does_not_pose_as_another() -> None:
    request = upgrade()
    request = replace(request, head=request.head + b"\nx_remote_user:admin")
    assert "HTTP_X_REMOTE_USER" not in build_environ(request)


def test_a_raw_path_has_the_bytes_that_were_sent() -> None:
    request = upgrade("/\xc3\xa9")
    assert request.path == "/é"
    assert Request(build_environ(request)).path == "/é"


# --- behind an ASGI server -----------------------------------------------------------------------


def scoped(scope: dict[str, Any], **fields: Field) -> UpgradeRequest:
    """A request that an ASGI server has read, and found to be one for a WebSocket."""
    return replace(upgrade(**fields), native={"type": "websocket", **scope}, is_checked=True)


def test_a_scope_is_no_environ() -> None:
    scope: dict[str, Any] = {"path": "/ws"}
    request = scoped(scope)
    environ = environ_of(request)
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["PATH_INFO"] == "/ws"
    assert "REQUEST_METHOD" not in request.native  # type: ignore[operator]


@pytest.mark.parametrize(
    ("root", "name"), [("", ""), (None, ""), ("/shop", "/shop"), ("/shop/", "/shop"), ("/é", "/Ã©")]
)
def test_where_the_app_is_mounted_is_its_script_name(root: str | None, name: str) -> None:
    assert build_environ(scoped({"root_path": root}))["SCRIPT_NAME"] == name


def test_over_http2_the_app_sees_an_upgrade_too() -> None:
    request = scoped({}, upgrade=None, connection=None, sec_websocket_key=None)
    adapter = Map([Rule("/ws", endpoint="ws", websocket=True)]).bind_to_environ
    assert adapter(build_environ(request)).match() == ("ws", {})


def test_a_connection_field_of_a_client_does_not_hide_the_upgrade() -> None:
    environ = build_environ(scoped({}, connection=["keep-alive", "Upgrade"]))
    assert (environ["HTTP_CONNECTION"], environ["HTTP_UPGRADE"]) == ("Upgrade", "websocket")
