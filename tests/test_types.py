from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

import pytest

from ws_middleware.types import (
    Credential,
    EncodedMessage,
    Granted,
    Headers,
    MultiDict,
    Principal,
    Refusal,
    UpgradeRequest,
    split_tokens,
)


def request(target: str = "/ws", *lines: str, **changes: Any) -> UpgradeRequest:
    head = "\n".join(lines).encode("latin-1")
    return UpgradeRequest(method="GET", target=target, http_version="1.1", head=head, **changes)


# --- MultiDict and Headers -----------------------------------------------------------------------

PAIRS = (("a", "1"), ("b", "2"), ("a", "3"))


def test_a_multidict_shows_the_first_value_of_each_name() -> None:
    pairs = MultiDict(PAIRS)
    assert dict(pairs) == {"a": "1", "b": "2"}
    assert list(pairs) == ["a", "b"]
    assert len(pairs) == 2
    assert pairs["a"] == "1"
    assert pairs.get("c", "-") == "-"
    assert "b" in pairs
    assert "c" not in pairs


def test_a_multidict_has_them_all_in_order() -> None:
    pairs = MultiDict(PAIRS)
    assert pairs.get_all("a") == ["1", "3"]
    assert pairs.get_all("c") == []
    assert pairs.pairs() == PAIRS


def test_a_multidict_counts_case_and_a_missing_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        MultiDict(PAIRS)["A"]


def test_an_empty_multidict() -> None:
    pairs = MultiDict(())
    assert len(pairs) == 0
    assert list(pairs) == []
    assert repr(pairs) == "<MultiDict >"


def test_values_are_not_printed() -> None:
    assert repr(MultiDict((("token", "SECRET"), ("b", "SECRET")))) == "<MultiDict token, b>"
    assert repr(Headers((("cookie", "SECRET"),))) == "<Headers cookie>"


def test_header_names_have_no_case() -> None:
    headers = Headers((("x-one", "1"), ("x-one", "2")))
    assert headers["X-One"] == "1"
    assert headers.get("X-ONE") == "1"
    assert "X-oNe" in headers
    assert headers.get_all("X-One") == ["1", "2"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a, b", ["a", "b"]),
        ("a,b ,\tc", ["a", "b", "c"]),
        (",, a ,,", ["a"]),
        ("", []),
        (" \t", []),
        ("a b", ["a b"]),
        ('"a,b"', ['"a', 'b"']),
    ],
)
def test_tokens_of_one_line(value: str, expected: list[str]) -> None:
    assert split_tokens(value) == expected


def test_tokens_of_all_lines() -> None:
    headers = Headers((("x", "a, b"), ("y", "z"), ("x", ""), ("x", "c")))
    assert headers.tokens("X") == ["a", "b", "c"]
    assert headers.tokens("none") == []


# --- UpgradeRequest ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "raw_path", "query_string"),
    [
        pytest.param("/", "/", "", id="root"),
        pytest.param("/a/b", "/a/b", "", id="path"),
        pytest.param("/a?", "/a", "", id="empty-query"),
        pytest.param("/a?x=1&y=2", "/a", "x=1&y=2", id="query"),
        pytest.param("/a?x=1?y", "/a", "x=1?y", id="second-question-mark"),
        pytest.param("/a%2Fb%3F", "/a%2Fb%3F", "", id="escapes-stay"),
        pytest.param("//host/a", "//host/a", "", id="two-slashes"),
        pytest.param("http://h/a/b?x=/y", "/a/b", "x=/y", id="absolute"),
        pytest.param("ws://h:80/", "/", "", id="absolute-root"),
        pytest.param("http://h", "/", "", id="absolute-without-path"),
        pytest.param("http://h?x=1", "/", "x=1", id="absolute-with-query-alone"),
        pytest.param("http://h?x=/y", "/", "x=/y", id="absolute-with-a-slash-in-the-query"),
        pytest.param("*", "/", "", id="asterisk"),
        pytest.param("", "/", "", id="empty"),
    ],
)
def test_path_and_query_as_sent(target: str, raw_path: str, query_string: str) -> None:
    assert request(target).raw_path == raw_path
    assert request(target).query_string == query_string


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a%20b+c", "/a b+c"),
        ("/caf%C3%A9", "/caf\xe9"),
        ("/caf\xc3\xa9", "/caf\xe9"),
        ("/%zz%", "/%zz%"),
        ("/%252F", "/%2F"),
        ("/%FF", "/\udcff"),
    ],
)
def test_the_path_is_decoded_as_utf_8(target: str, expected: str) -> None:
    assert request(target).path == expected


def test_the_query_is_decoded() -> None:
    query = request("/?a=1&b=x+y&a=%C3%A9&c=&d&%65=5").query
    assert query.pairs() == (
        ("a", "1"),
        ("b", "x y"),
        ("a", "\xe9"),
        ("c", ""),
        ("d", ""),
        ("e", "5"),
    )
    assert query.get_all("a") == ["1", "\xe9"]
    assert request("/").query.pairs() == ()
    assert request("/?a=%FF").query["a"] == "\ufffd"


def test_fields_are_latin_1_and_keep_their_colons() -> None:
    made = request("/", "host:h:80", "x:caf\xe9", "x:", "y:a: b")
    assert made.headers.pairs() == (("host", "h:80"), ("x", "caf\xe9"), ("x", ""), ("y", "a: b"))
    assert request("/").headers.pairs() == ()


def test_host_and_origin() -> None:
    made = request("/", "host:h:80", "origin:https://h")
    assert (made.host, made.origin) == ("h:80", "https://h")
    assert (request("/").host, request("/").origin) == ("", None)
    assert request("/", "origin:").origin == ""


def test_cookies_of_all_lines_and_of_two_the_first() -> None:
    made = request("/", 'cookie:a=1; b="2"; a=3;flag; =x; c=d=e', "cookie:f=4;b=5")
    assert made.cookies == {"a": "1", "b": "2", "": "x", "c": "d=e", "f": "4"}
    assert request("/").cookies == {}


def test_subprotocols_and_extensions() -> None:
    made = request(
        "/",
        "sec-websocket-protocol:a, b",
        "sec-websocket-extensions:permessage-deflate; x=1, y",
        "sec-websocket-protocol:c",
    )
    assert made.subprotocols == ["a", "b", "c"]
    assert made.extensions == ["permessage-deflate; x=1", "y"]
    assert request("/").subprotocols == []
    assert request("/").extensions == []


def test_a_request_prints_neither_query_nor_head() -> None:
    made = request(
        "/ws?token=SECRET",
        "authorization:SECRET",
        credential=Credential("SECRET", "header"),
        native={"QUERY_STRING": "SECRET"},
    )
    assert repr(made) == "<UpgradeRequest GET '/ws'>"
    absolute = request("http://h?token=SECRET/SECRET")
    assert "SECRET" not in repr(absolute)


def test_a_request_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        request().target = "/x"  # type: ignore[misc]


# --- Principal, Granted, Refusal -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ann", "ann"),
        (7, "7"),
        (0, "0"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("", ""),
    ],
)
def test_the_id_of_a_principal_is_text(given: Any, expected: str) -> None:
    principal = Principal(given)
    assert principal.id == expected
    assert principal.is_authenticated is (expected != "")


@pytest.mark.parametrize("given", [True, False, None, 1.0, b"ann", ["ann"], object()])
def test_an_id_of_another_type_is_a_type_error(given: Any) -> None:
    with pytest.raises(TypeError, match=r"^user id must be str, int or UUID, not "):
        Principal(given)


@pytest.mark.parametrize("given", ["a\nb", "\x00", "x" * 256, "\ud800"])
def test_an_id_that_is_no_name_is_a_value_error(given: str) -> None:
    with pytest.raises(ValueError, match=r"^user id must be 1 to 255 bytes of UTF-8"):
        Principal(given)


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        (Principal("7", name="Ann"), "Ann"),
        (Principal("7", {"name": "Claimed"}), "Claimed"),
        (Principal("7", {"name": "Claimed"}, name="Ann"), "Ann"),
        (Principal("7", {"name": 5}), "7"),
        (Principal("7", {"name": ""}), "7"),
        (Principal("7"), "7"),
        (Principal(""), ""),
    ],
)
def test_the_name_to_show(principal: Principal, expected: str) -> None:
    assert principal.display_name == expected


def test_claims_are_not_printed() -> None:
    assert "SECRET" not in repr(Principal("7", {"mail": "SECRET"}))


def test_principals_share_no_claims() -> None:
    assert Principal("a").claims is not Principal("b").claims


def test_a_credential_does_not_print_its_token() -> None:
    assert repr(Credential("SECRET", "header")) == "Credential(source='header')"


def test_defaults_of_the_small_ones() -> None:
    assert Granted("ann") == Granted("ann", ())
    assert Refusal(403, "c", "d") == Refusal(
        403, "c", "d", why="", retry_after=None, headers=(), body=None, as_close=False
    )


# --- EncodedMessage ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "payload", "is_text"),
    [
        ("caf\xe9", b"caf\xc3\xa9", True),
        ("", b"", True),
        (b"\xff", b"\xff", False),
        (bytearray(b"ab"), b"ab", False),
        (memoryview(b"abcd")[::2], b"ac", False),
    ],
)
def test_a_message_is_encoded_once(message: Any, payload: bytes, is_text: bool) -> None:  # noqa: FBT001 - a row
    encoded = EncodedMessage(message)
    assert encoded.payload == payload
    assert type(encoded.payload) is bytes
    assert encoded.is_text is is_text
    assert len(encoded) == len(payload)
    assert encoded.frames == {}


def test_a_message_does_not_change_with_the_senders_buffer() -> None:
    buffer = bytearray(b"ab")
    encoded = EncodedMessage(buffer)
    buffer[:] = b"xx"
    assert encoded.payload == b"ab"


@pytest.mark.parametrize(
    ("message", "kind"), [(5, "int"), (None, "NoneType"), ({"a": 1}, "dict"), (["a"], "list")]
)
def test_another_type_is_told_where_to_go(message: Any, kind: str) -> None:
    with pytest.raises(TypeError) as caught:
        EncodedMessage(message)
    assert str(caught.value) == f"a message is str or bytes, not {kind}; see send_json"


@pytest.mark.parametrize("message", ["\ud800", "a\udfffb", "\udc00\ud800"])
def test_a_lone_surrogate_is_the_senders_fault(message: str) -> None:
    with pytest.raises(ValueError):
        EncodedMessage(message)
