from __future__ import annotations

import json

import pytest

from ws_middleware.core.headers import (
    accept_headers,
    problem_body,
    refusal_headers,
    status_phrase,
)
from ws_middleware.types import Refusal

WALL = 784111777.0  # the moment of the example in RFC 9110 section 5.6.7
BODY = b"0123456789"


def fields(refusal: Refusal, body: bytes = BODY) -> dict[str, str]:
    """Return the fields by name in lower case; none may come twice."""
    headers = refusal_headers(refusal, body, WALL)
    names = [name.lower() for name, _ in headers]
    assert len(names) == len(set(names)), f"a field comes twice: {names}"
    return {name.lower(): value for name, value in headers}


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        pytest.param(101, "Switching Protocols", id="101"),
        pytest.param(400, "Bad Request", id="400"),
        pytest.param(426, "Upgrade Required", id="426"),
        pytest.param(431, "Request Header Fields Too Large", id="431"),
        pytest.param(503, "Service Unavailable", id="503"),
        pytest.param(499, "Refused", id="a status without a registered phrase"),
        pytest.param(599, "Refused", id="the last one"),
    ],
)
def test_status_phrase(status: int, phrase: str) -> None:
    assert status_phrase(status) == phrase


def test_no_status_has_an_empty_phrase() -> None:
    assert all(status_phrase(status).strip() for status in range(100, 600))


# --- the 101 -------------------------------------------------------------------------------------


def test_accept_headers_without_subprotocol() -> None:
    assert accept_headers("KEY", None, ()) == [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "KEY"),
    ]


def test_accept_headers_with_subprotocol_and_cookies_in_order() -> None:
    extra = [("Set-Cookie", "a=1"), ("X-Node", "7"), ("Set-Cookie", "b=2")]
    assert accept_headers("KEY", "chat", iter(extra))[3:] == [
        ("Sec-WebSocket-Protocol", "chat"),
        *extra,
    ]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("Connection", id="connection"),
        pytest.param("Content-Encoding", id="an encoding where there is no body"),
        pytest.param("CONTENT-LENGTH", id="a length where there is no body"),
        pytest.param("content-type", id="a type where there is no body"),
        pytest.param("Keep-Alive", id="keep-alive"),
        pytest.param("Proxy-Connection", id="proxy-connection"),
        pytest.param("Sec-WebSocket-Accept", id="another accept key"),
        pytest.param("sec-websocket-EXTENSIONS", id="an extension nobody negotiated"),
        pytest.param("Sec-WebSocket-Protocol", id="another subprotocol"),
        pytest.param("TE", id="te"),
        pytest.param("Trailer", id="trailer"),
        pytest.param("Transfer-Encoding", id="transfer-encoding"),
        pytest.param("Upgrade", id="another upgrade"),
    ],
)
def test_what_an_authenticator_may_not_say_on_a_101(name: str) -> None:
    extra = [("X-Before", "1"), (name, "evil"), ("X-After", "2")]
    assert accept_headers("KEY", None, extra)[3:] == [("X-Before", "1"), ("X-After", "2")]


# --- refusals ------------------------------------------------------------------------------------


def test_problem_body_says_what_the_peer_may_know() -> None:
    refusal = Refusal(403, "origin_refused", "this page may not", why="secret", retry_after=5)
    assert json.loads(problem_body(refusal)) == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "this page may not",
        "code": "origin_refused",
    }


def test_refusal_headers_of_a_problem() -> None:
    assert fields(Refusal(403, "c", "d")) == {
        "date": "Sun, 06 Nov 1994 08:49:37 GMT",
        "cache-control": "no-store",
        "content-type": "application/problem+json",
        "content-length": "10",
        "connection": "close",
    }


def test_refusal_headers_of_a_body_of_its_own_have_no_type_of_ours() -> None:
    assert fields(Refusal(403, "c", "d", body=BODY)) == {
        "date": "Sun, 06 Nov 1994 08:49:37 GMT",
        "cache-control": "no-store",
        "content-length": "10",
        "connection": "close",
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("connection", id="connection"),
        pytest.param("Content-Length", id="length"),
        pytest.param("Transfer-Encoding", id="chunked"),
        pytest.param("DATE", id="date"),
    ],
)
def test_the_framing_of_a_refusal_is_ours(name: str) -> None:
    plain = fields(Refusal(403, "c", "d"))
    assert fields(Refusal(403, "c", "d", headers=((name, "evil"),))) == plain


def test_headers_of_a_refusal_are_kept_in_order() -> None:
    own = (("Set-Cookie", "a=1"), ("WWW-Authenticate", "Bearer"), ("Set-Cookie", "b=2"))
    headers = refusal_headers(Refusal(401, "c", "d", headers=own), BODY, WALL)
    assert [pair for pair in headers if pair in own] == list(own)


def test_own_cache_control_replaces_ours() -> None:
    refusal = Refusal(404, "c", "d", headers=(("cache-control", "max-age=60"),))
    assert fields(refusal)["cache-control"] == "max-age=60"


@pytest.mark.parametrize(
    ("refusal", "value"),
    [
        pytest.param(Refusal(503, "c", "d"), None, id="none"),
        pytest.param(Refusal(503, "c", "d", retry_after=7), "7", id="given"),
        pytest.param(Refusal(503, "c", "d", retry_after=0), "0", id="at once"),
        pytest.param(
            Refusal(503, "c", "d", retry_after=7, headers=(("retry-after", "9"),)),
            "9",
            id="a header of its own wins",
        ),
    ],
)
def test_retry_after(refusal: Refusal, value: str | None) -> None:
    assert fields(refusal).get("retry-after") == value


def test_a_refusal_has_one_content_type() -> None:
    # The body is the problem document, so its type is the problem's.
    refusal = Refusal(403, "c", "d", headers=(("content-type", "text/plain"),))
    assert fields(refusal)["content-type"] == "application/problem+json"


def test_a_body_of_its_own_keeps_its_content_type() -> None:
    refusal = Refusal(403, "c", "d", headers=(("Content-Type", "text/html"),), body=BODY)
    assert fields(refusal)["content-type"] == "text/html"
