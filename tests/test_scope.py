"""ASGI scopes, as servers write them and as nobody should."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_middleware.gate.credentials import find_credential
from ws_middleware.gate.upgrade import find_problem
from ws_middleware.scope import clean_scope, path_of, request_from_scope

#: As the standard has it.
PLAIN: dict[str, Any] = {
    "type": "websocket",
    "http_version": "1.1",
    "scheme": "wss",
    "path": "/ws/chät/a b",
    "raw_path": b"/ws/ch%C3%A4t/a%20b",
    "query_string": b"a=1&b=%20",
    "root_path": "",
    "headers": [(b"host", b"x.example"), (b"origin", b"https://x.example"), (b"x", b"\xe9")],
    "client": ("192.0.2.1", 5000),
    "server": ("192.0.2.2", 443),
    "subprotocols": [],
}


def test_a_scope_is_read_as_a_request() -> None:
    request = request_from_scope(PLAIN, 5.0)
    assert (request.method, request.http_version, request.scheme) == ("GET", "1.1", "https")
    assert request.path == "/ws/chät/a b"
    assert request.query.pairs() == (("a", "1"), ("b", " "))
    assert (request.host, request.origin) == ("x.example", "https://x.example")
    assert request.headers["x"] == "é"
    assert request.client == ("192.0.2.1", 5000)
    assert request.received_at == 5.0
    assert request.native is PLAIN
    assert find_problem(request) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("client", ["192.0.2.1", 5000]),  # daphne
        ("client", ("192.0.2.1", "5000")),  # granian
        ("headers", [[b"Host", b"x.example"], (b"ORIGIN", b"https://x.example"), (b"x", b"\xe9")]),
        ("headers", [("host", "x.example"), ("origin", " https://x.example\t"), ("x", "é")]),
        ("query_string", "a=1&b=%20"),
        ("scheme", "https"),
        ("scheme", "WSS"),
    ],
)
def test_servers_may_write_it_in_their_own_way(key: str, value: object) -> None:
    request = request_from_scope({**PLAIN, key: value}, 0)
    plain = request_from_scope(PLAIN, 0)
    for name in ("target", "client", "scheme", "origin", "host"):
        assert getattr(request, name) == getattr(plain, name)
    assert request.headers["x"] == "é"


@pytest.mark.parametrize(
    ("client", "read"),
    [
        (None, None),
        ("", None),
        ((), None),
        (("", 1), None),
        ((None, None), None),
        (5, None),
        ("192.0.2.1", ("192.0.2.1", 0)),
        (("192.0.2.1",), ("192.0.2.1", 0)),
        (("192.0.2.1", None), ("192.0.2.1", 0)),
        (("192.0.2.1", "x"), ("192.0.2.1", 0)),
        (("192.0.2.1", float("inf")), ("192.0.2.1", 0)),
    ],
)
def test_a_client_that_is_none_is_nobody_and_a_port_that_is_none_is_0(
    client: object, read: object
) -> None:
    assert request_from_scope({**PLAIN, "client": client}, 0).client == read


def test_what_is_missing_is_what_is_usual() -> None:
    request = request_from_scope({"type": "websocket"}, 0)
    assert (request.path, request.scheme, request.http_version) == ("/", "http", "1.1")
    assert (request.client, request.head) == (None, b"")


@pytest.mark.parametrize(
    ("path", "root", "within"),
    [
        ("/api/ws", "/api", "/ws"),
        ("/api", "/api", "/"),
        ("/api/", "/api/", "/"),
        ("/apiary", "/api", "/apiary"),
        ("/ws", "/api", "/ws"),  # servers that leave the mount out of the path
        ("/ws", "", "/ws"),
        ("", "", "/"),
    ],
)
def test_a_path_is_the_one_within_the_app(path: str, root: str, within: str) -> None:
    assert path_of({"path": path, "root_path": root}) == within


def test_a_header_cannot_smuggle_another_in() -> None:
    scope = {**PLAIN, "headers": [(b"x", b"a\norigin:https://evil.example")]}
    assert request_from_scope(scope, 0).origin is None


def test_subprotocols_that_are_in_no_header_count_too() -> None:
    scope = {**PLAIN, "subprotocols": ["a", "b"]}  # as uvicorn's wsproto has it
    assert request_from_scope(scope, 0).subprotocols == ["a", "b"]
    field = (b"sec-websocket-protocol", b"c")
    both = {**scope, "headers": [*PLAIN["headers"], field]}
    assert request_from_scope(both, 0).subprotocols == ["c"]


# --- tokens --------------------------------------------------------------------------------------


def cleaned(**changes: Any) -> dict[str, Any]:
    scope = {**PLAIN, **changes}
    request = find_credential(request_from_scope(scope, 0), ("subprotocol", "query:token"))
    assert request.credential is not None
    assert request.credential.token == "s3cret"
    clean_scope(scope, request)
    assert "s3cret" not in str(scope)
    return scope


def test_a_token_in_the_query_is_overwritten() -> None:
    scope = cleaned(query_string=b"token=s3cret&a=%20", raw_path=b"/x?token=s3cret&a=%20")
    assert scope["query_string"] == b"token=-&a=%20"
    assert scope["raw_path"] == b"/x?token=-&a=%20"


@pytest.mark.parametrize("subprotocols", [["a", "bearer", "s3cret"], [], None])
def test_a_token_among_the_subprotocols_is_taken_out(subprotocols: list[str] | None) -> None:
    field = (b"Sec-WebSocket-Protocol", b"a, bearer, s3cret")
    scope = cleaned(headers=[(b"x", b"y"), field], subprotocols=subprotocols)
    assert scope["subprotocols"] == ["a", "bearer"]
    assert scope["headers"] == [(b"x", b"y"), (b"sec-websocket-protocol", b"a, bearer")]


def test_a_token_that_is_in_no_header_is_taken_out_of_the_list() -> None:
    scope = cleaned(headers=[(b"x", b"y")], subprotocols=["bearer", "s3cret", "a"])
    assert scope["subprotocols"] == ["bearer", "a"]
    assert scope["headers"] == [(b"x", b"y")]


def test_a_token_over_two_lines_is_taken_out() -> None:
    name = b"sec-websocket-protocol"
    scope = cleaned(headers=[(name, b"bearer"), (b"x", b"y"), (name, b"s3cret")])
    assert scope["headers"] == [(b"x", b"y"), (name, b"bearer")]


def test_what_has_no_token_stays_the_very_same() -> None:
    scope = {**PLAIN, "subprotocols": ["a"]}
    scope["headers"] = [*PLAIN["headers"], (b"Sec-WebSocket-Protocol", b"a")]
    before = dict(scope)
    request = find_credential(request_from_scope(scope, 0), ("subprotocol", "query:token"))
    clean_scope(scope, request)
    assert scope == before
    assert scope["headers"] is before["headers"]


# --- anything ------------------------------------------------------------------------------------


RAW = st.one_of(st.binary(max_size=40), st.text(max_size=40), st.binary(max_size=9).map(bytearray))
SCOPES = st.fixed_dictionaries(
    {"type": st.just("websocket")},
    optional={
        "path": st.one_of(st.none(), st.text(alphabet=st.characters(), max_size=40)),
        "root_path": st.one_of(st.none(), st.text(max_size=10)),
        "raw_path": st.one_of(st.none(), st.binary(max_size=20)),
        "query_string": st.one_of(st.none(), RAW),
        "scheme": st.one_of(st.none(), st.text(max_size=5)),
        "http_version": st.one_of(st.none(), st.text(max_size=5)),
        "headers": st.one_of(
            st.none(),
            st.lists(
                st.tuples(
                    st.one_of(RAW, st.sampled_from([b"host", b"Sec-WebSocket-Protocol"])),
                    st.one_of(RAW, st.sampled_from([b"bearer, x", b"a,,b"])),
                )
            ),
        ),
        "client": st.one_of(
            st.none(), st.text(), st.lists(st.one_of(st.none(), st.text(), st.integers()))
        ),
        "subprotocols": st.one_of(st.none(), st.lists(st.text(max_size=5))),
    },
)


@given(SCOPES)
def test_no_scope_raises(scope: dict[str, Any]) -> None:
    request = request_from_scope(scope, 0)
    found = find_credential(request, ("header", "subprotocol", "query:token"))
    clean_scope(scope, found)
    find_problem(found)
    for name in ("path", "query", "cookies", "origin", "host", "subprotocols", "extensions"):
        getattr(found, name)
    assert path_of(scope)


@given(SCOPES)
def test_a_scope_that_was_cleaned_is_clean(scope: dict[str, Any]) -> None:
    sources = ("subprotocol", "query:token")
    clean_scope(scope, find_credential(request_from_scope(scope, 0), sources))
    again = find_credential(request_from_scope(scope, 0), sources)
    assert again.credential is None or again.credential.token == "-"
