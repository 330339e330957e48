from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.core.drive import CUTS, EVERY_WAY, bytewise, split_answer, whole
from tests.support import head
from ws_middleware.config import ServerLimits
from ws_middleware.core.handshake import HeadReader, accept_bytes, accept_key, refusal_bytes
from ws_middleware.types import Refusal, UpgradeRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.core.drive import Way

KIB = 1024
HEAD_SIZE = 16 * KIB
REQUEST_LINE = 8 * KIB
TRAILING = b"\x81\x85\x00\x00\x00\x00early"
WALL = 784111777.0  # the moment of the example in RFC 9110 section 5.6.7


def read(
    pieces: list[bytes], limits: ServerLimits | None = None
) -> tuple[UpgradeRequest | Refusal | None, HeadReader, int]:
    """Feed until there is a result; return it, the reader, and how many bytes it took."""
    reader = HeadReader(limits or ServerLimits())
    fed = 0
    for piece in pieces:
        fed += len(piece)
        result = reader.receive_data(piece)
        if result is not None:
            return result, reader, fed
    return None, reader, fed


def read_request(pieces: list[bytes], limits: ServerLimits | None = None) -> UpgradeRequest:
    result, _, _ = read(pieces, limits)
    assert isinstance(result, UpgradeRequest)
    return result


def read_refusal(pieces: list[bytes], limits: ServerLimits | None = None) -> tuple[int, str]:
    result, _, _ = read(pieces, limits)
    assert isinstance(result, Refusal)
    return result.status, result.code


def sized_head(size: int, *, end: bytes = b"\r\n") -> bytes:
    """Return a valid head of exactly `size` bytes."""
    start = b"GET / HTTP/1.1" + end + b"Host: a" + end + b"X-Pad: "
    data = start + b"p" * (size - len(start) - 2 * len(end)) + end * 2
    assert len(data) == size
    return data


def head_with_line(size: int, end: bytes = b"\r\n") -> bytes:
    """Return a head whose first line has `size` bytes, its end not counted."""
    target = b"/" + b"t" * (size - len(b"GET / HTTP/1.1"))
    line = b"GET " + target + b" HTTP/1.1"
    assert len(line) == size
    return line + end + b"Host: a" + end * 2


def head_with_fields(count: int) -> bytes:
    more = b"".join(b"X-%d: v\r\n" % i for i in range(count - 1))
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n"


# --- heads that are whole ------------------------------------------------------------------------


@EVERY_WAY
def test_a_head_becomes_a_request(way: Way) -> None:
    data = (
        b"GET /chat/7?a=1&b=%20 HTTP/1.1\r\nHost: example.com:81\r\nX-Two: 1\r\n"
        b"ORIGIN:http://example.com\r\nx-tWO: \t 2 \t\r\nX-Latin: caf\xe9\r\nX-Empty:\r\n\r\n"
    )
    result, reader, _ = read(way.pieces(data, TRAILING))
    assert result == UpgradeRequest(
        method="GET",
        target="/chat/7?a=1&b=%20",
        http_version="1.1",
        head=b"host:example.com:81\nx-two:1\norigin:http://example.com\nx-two:2\n"
        b"x-latin:caf\xe9\nx-empty:",
    )
    assert reader.trailing == (TRAILING if way.cut is whole and way.has_more else b"")
    assert isinstance(result, UpgradeRequest)
    assert result.headers.get_all("X-Two") == ["1", "2"]
    assert result.headers["X-Latin"] == "caf\xe9"
    assert result.headers["X-Empty"] == ""


@EVERY_WAY
@pytest.mark.parametrize(
    ("data", "method", "target", "version"),
    [
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", "GET", "/", "1.0", id="HTTP/1.0 without Host"),
        pytest.param(b"GET / HTTP/2.0\r\n\r\n", "GET", "/", "2.0", id="HTTP/2.0 in words"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\n", "PRI", "*", "2.0", id="the HTTP/2 preface"),
        pytest.param(b"POST /a HTTP/1.1\r\nHost: a\r\n\r\n", "POST", "/a", "1.1", id="a POST"),
        pytest.param(
            b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT", "a:1", "1.1", id="a CONNECT"
        ),
        pytest.param(
            b"GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET",
            "http://a/b?c",
            "1.1",
            id="absolute form",
        ),
    ],
)
def test_what_kind_of_request_it_is_is_not_asked_here(
    way: Way, data: bytes, method: str, target: str, version: str
) -> None:
    request = read_request(way.pieces(data, TRAILING))
    assert (request.method, request.target, request.http_version) == (method, target, version)


@EVERY_WAY
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\nHost: a\nX: b\n\n", id="bare LF"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\n", id="mixed line ends"),
        pytest.param(b"GET / HTTP/1.1\nHost: a\r\nX: b\n\r\n", id="mixed the other way"),
    ],
)
def test_bare_line_feeds_end_lines_too(way: Way, data: bytes) -> None:
    result, reader, _ = read(way.pieces(data, TRAILING))
    assert isinstance(result, UpgradeRequest)
    assert result.head == b"host:a\nx:b"
    assert reader.trailing == (TRAILING if way.has_more else b"")


@EVERY_WAY
def test_a_folded_line_is_one_value(way: Way) -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX-Fold: one\r\n two\r\n\t three\r\n\r\n"
    request = read_request(way.pieces(data, TRAILING))
    assert request.head == b"host:a\nx-fold:one two three"


@pytest.mark.parametrize("size", [1, 100, 4096, 65536])
def test_what_follows_the_head_is_kept(size: int) -> None:
    data = head()
    trailing = bytes(i % 251 for i in range(size))
    reader = HeadReader(ServerLimits())
    assert reader.receive_data(data[:-1]) is None
    assert isinstance(reader.receive_data(data[-1:] + trailing), UpgradeRequest)
    assert reader.trailing == trailing


def test_what_follows_does_not_count_as_head() -> None:
    result, reader, _ = read([sized_head(HEAD_SIZE) + bytes(HEAD_SIZE)])
    assert isinstance(result, UpgradeRequest)
    assert reader.trailing == bytes(HEAD_SIZE)


def test_the_head_starts_with_its_first_byte() -> None:
    reader = HeadReader(ServerLimits())
    assert not reader.started
    assert reader.receive_data(b"") is None
    assert not reader.started
    assert reader.receive_data(b"G") is None
    assert reader.started


# --- limits --------------------------------------------------------------------------------------


@CUTS
def test_a_head_of_exactly_the_limit(cut: Callable[[bytes], list[bytes]]) -> None:
    request = read_request(cut(sized_head(HEAD_SIZE)))
    assert len(request.headers["x-pad"]) > HEAD_SIZE - 100


@CUTS
def test_a_head_one_byte_over_the_limit(cut: Callable[[bytes], list[bytes]]) -> None:
    assert read_refusal(cut(sized_head(HEAD_SIZE + 1))) == (431, "head_too_large")


@CUTS
def test_a_head_of_bare_line_feeds_has_the_same_limit(cut: Callable[[bytes], list[bytes]]) -> None:
    assert read_request(cut(sized_head(HEAD_SIZE, end=b"\n"))).target == "/"
    assert read_refusal(cut(sized_head(HEAD_SIZE + 1, end=b"\n"))) == (431, "head_too_large")


def test_an_endless_head_is_refused_at_the_first_byte_over_the_limit() -> None:
    endless = sized_head(4 * HEAD_SIZE)
    result, _, fed = read(bytewise(endless))
    assert isinstance(result, Refusal)
    assert (result.status, fed) == (431, HEAD_SIZE + 1)


@pytest.mark.parametrize("size", [64 * KIB, 64 * KIB + 1, 1024 * KIB])
def test_a_large_head_in_one_read(size: int) -> None:
    # A complete head has no bound in h11, so this is where ours must hold.
    assert read_refusal([sized_head(size)]) == (431, "head_too_large")


@CUTS
def test_a_smaller_limit_of_the_app(cut: Callable[[bytes], list[bytes]]) -> None:
    limits = ServerLimits(head_size=200)
    assert read_request(cut(sized_head(200)), limits).target == "/"
    assert read_refusal(cut(sized_head(201)), limits) == (431, "head_too_large")


@CUTS
def test_a_larger_limit_of_the_app(cut: Callable[[bytes], list[bytes]]) -> None:
    limits = ServerLimits(head_size=40_000)
    assert read_request(cut(sized_head(40_000)), limits).target == "/"
    assert read_refusal(cut(sized_head(40_001)), limits) == (431, "head_too_large")


@CUTS
@pytest.mark.parametrize(
    ("size", "end"),
    [
        pytest.param(REQUEST_LINE - 1, b"\r\n", id="CRLF, the CR counts"),
        pytest.param(REQUEST_LINE, b"\n", id="bare LF"),
    ],
)
def test_the_longest_request_line(
    cut: Callable[[bytes], list[bytes]], size: int, end: bytes
) -> None:
    assert len(read_request(cut(head_with_line(size, end))).target) > REQUEST_LINE - 20
    too_long = cut(head_with_line(size + 1, end))
    assert read_refusal(too_long) == (414, "target_too_long")


def test_an_endless_request_line_is_refused_at_the_first_byte_over_the_limit() -> None:
    result, _, fed = read(bytewise(b"GET /" + b"t" * 2 * REQUEST_LINE))
    assert isinstance(result, Refusal)
    assert (result.status, fed) == (414, REQUEST_LINE + 1)


@pytest.mark.parametrize("size", [64 * KIB, 1024 * KIB])
def test_a_large_request_line_in_one_read(size: int) -> None:
    assert read_refusal([head_with_line(size)]) == (414, "target_too_long")


def test_only_the_first_line_has_the_limit_of_a_line() -> None:
    assert read_request([sized_head(HEAD_SIZE)]).target == "/"


@CUTS
def test_the_most_fields(cut: Callable[[bytes], list[bytes]]) -> None:
    assert len(read_request(cut(head_with_fields(100))).headers.pairs()) == 100
    assert read_refusal(cut(head_with_fields(101))) == (431, "too_many_fields")


def test_fields_of_one_name_count_each() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: v\r\n" * 100 + b"\r\n"
    assert read_refusal([data]) == (431, "too_many_fields")


def test_fewer_fields_if_the_app_says_so() -> None:
    limits = ServerLimits(head_fields=3)
    assert read_request([head_with_fields(3)], limits).target == "/"
    assert read_refusal([head_with_fields(4)], limits) == (431, "too_many_fields")


# --- what is no head -----------------------------------------------------------------------------


@EVERY_WAY
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", id="an empty line first"),
        pytest.param(b"\n", id="only a line feed"),
        pytest.param(b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", id="a blank first"),
        pytest.param(b"GET\r\n\r\n", id="no target"),
        pytest.param(b"GET /\r\nHost: a\r\n\r\n", id="HTTP/0.9"),
        pytest.param(b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", id="two blanks"),
        pytest.param(b"GET / a HTTP/1.1\r\nHost: a\r\n\r\n", id="a blank in the target"),
        pytest.param(b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", id="a target that is not ASCII"),
        pytest.param(b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", id="NUL in the target"),
        pytest.param(b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", id="DEL in the target"),
        pytest.param(b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", id="a method that is no token"),
        pytest.param(b"GET / HTTP/1\r\nHost: a\r\n\r\n", id="half a version"),
        pytest.param(b"GET / http/1.1\r\nHost: a\r\n\r\n", id="a version in lower case"),
        pytest.param(b"GET / HTTP/1.11\r\nHost: a\r\n\r\n", id="a version too long"),
        pytest.param(b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", id="a blank behind the version"),
        pytest.param(b"GET / HTTP/1.1\rHost: a\r\n\r\n", id="a bare CR as line end"),
        pytest.param(b"GET / HTTP/1.1\r\nX: y\r\n\r\n", id="no Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="two Hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", id="the same Host twice"),
        pytest.param(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", id="a blank before the colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", id="a field without a name"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", id="a line without colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX\xe9: y\r\n\r\n", id="a name not ASCII"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", id="NUL in a value"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb: c\r\n\r\n", id="a bare CR in a value"),
        pytest.param(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", id="a fold of nothing"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", id="a negative length"
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            id="two lengths",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", id="a coding"
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
            id="two codings",
        ),
        pytest.param(b"\x80\x80\x80\x80\r\n\r\n", id="bytes that are no text"),
    ],
)
def test_what_is_not_http_is_400(way: Way, data: bytes) -> None:
    result, _, _ = read(way.pieces(data, b"\r\n\r\n"))
    assert isinstance(result, Refusal)
    assert (result.status, result.code) == (400, "head_malformed")
    assert result.detail == "this is not an HTTP/1.1 request"
    assert result.why


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"\x00", id="NUL"),
        pytest.param(b"\x16", id="a TLS record"),
        pytest.param(b" ", id="a blank"),
        pytest.param(b"\r", id="a line end"),
    ],
)
def test_a_first_byte_that_begins_no_request_is_refused_at_once(first: bytes) -> None:
    assert read_refusal([first]) == (400, "head_malformed")


@EVERY_WAY
def test_https_on_a_plain_port_is_named_in_the_log_and_only_there(way: Way) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)
    result, _, _ = read(way.pieces(hello, bytes(100)))
    assert isinstance(result, Refusal)
    assert (result.status, result.code) == (400, "head_malformed")
    assert result.why.startswith("TLS on a plain port")
    assert b"TLS" not in refusal_bytes(result, WALL)


@EVERY_WAY
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n", id="no empty line"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r", id="half an empty line"),
        pytest.param(b"nonsense", id="not even a request line"),
    ],
)
def test_half_a_head_is_waited_for(way: Way, data: bytes) -> None:
    result, reader, _ = read(way.pieces(data, b"X"))
    assert result is None
    assert reader.trailing == b""


# --- the 101 -------------------------------------------------------------------------------------


def request_with_key(key: bytes = b"dGhlIHNhbXBsZSBub25jZQ==") -> UpgradeRequest:
    return UpgradeRequest("GET", "/", "1.1", b"host:a\nsec-websocket-key:" + key)


def test_accept_key_of_the_rfc() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_accept_bytes_of_the_rfc() -> None:
    assert accept_bytes(request_with_key(), subprotocol="chat", headers=()) == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n"
        b"\r\n"
    )


def test_a_key_of_any_bytes_gets_an_accept_key() -> None:
    answer = split_answer(
        accept_bytes(request_with_key(b"\xff" * 1000), subprotocol=None, headers=())
    )
    assert answer.status_line == "HTTP/1.1 101 Switching Protocols"
    assert len(answer.all("Sec-WebSocket-Accept")) == 1


def test_headers_of_the_authenticator_go_on_the_101() -> None:
    headers = [("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("X-Latin", "caf\xe9")]
    data = accept_bytes(request_with_key(), subprotocol=None, headers=headers)
    assert split_answer(data).headers[3:] == headers
    assert b"X-Latin: caf\xe9\r\n" in data


def test_the_authenticator_cannot_change_the_handshake() -> None:
    evil = [
        ("upgrade", "h2c"),
        ("Connection", "close"),
        ("SEC-WEBSOCKET-ACCEPT", "x"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("Sec-WebSocket-Protocol", "other"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
    ]
    plain = accept_bytes(request_with_key(), subprotocol="chat", headers=())
    assert accept_bytes(request_with_key(), subprotocol="chat", headers=evil) == plain


NOT_ALLOWED = pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("X-Bad", "a\r\nSet-Cookie: b", id="CRLF in a value"),
        pytest.param("X-Bad", "a\nb", id="LF in a value"),
        pytest.param("X-Bad", "a\rb", id="CR in a value"),
        pytest.param("X-Bad", "a\r\n", id="CRLF at the end of a value"),
        pytest.param("X-Bad", "a\x00b", id="NUL in a value"),
        pytest.param("X-Bad", " a", id="a value that begins with a blank"),
        pytest.param("X-Bad", "\u20ac", id="a value that is not latin-1"),
        pytest.param("X-Bad\r\nSet-Cookie", "a", id="CRLF in a name"),
        pytest.param("X-Bad\n", "a", id="LF at the end of a name"),
        pytest.param("Connection ", "close", id="a blank behind a forbidden name"),
        pytest.param("X Bad", "a", id="a blank in a name"),
        pytest.param("X:Bad", "a", id="a colon in a name"),
        pytest.param("", "a", id="no name"),
        pytest.param("\xe9", "a", id="a name that is not ASCII"),
        pytest.param("\u20ac", "a", id="a name that is not latin-1"),
    ],
)


@NOT_ALLOWED
def test_no_header_splits_a_101(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="HTTP does not allow"):
        accept_bytes(request_with_key(), subprotocol=None, headers=[(name, value)])


def test_a_header_that_is_not_allowed_is_named_without_its_value() -> None:
    headers = [("Set-Cookie", "session=secret\r\n")]
    with pytest.raises(ValueError, match="'Set-Cookie'") as caught:
        accept_bytes(request_with_key(), subprotocol=None, headers=headers)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@NOT_ALLOWED
def test_no_header_splits_a_refusal(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="HTTP does not allow"):
        refusal_bytes(Refusal(403, "c", "d", headers=((name, value),)), WALL)


@pytest.mark.parametrize("subprotocol", ["a\r\nX: y", "a\nb", "\x00", "\u20ac"])
def test_no_subprotocol_splits_a_101(subprotocol: str) -> None:
    with pytest.raises(ValueError, match="HTTP does not allow"):
        accept_bytes(request_with_key(), subprotocol=subprotocol, headers=())


# --- refusals ------------------------------------------------------------------------------------


def test_refusal_bytes() -> None:
    refusal = Refusal(403, "origin_refused", "this page may not", why="evil.example is not listed")
    answer = split_answer(refusal_bytes(refusal, WALL))
    assert answer.status_line == "HTTP/1.1 403 Forbidden"
    assert sorted(answer.headers) == [
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
        ("Content-Length", str(len(answer.rest))),
        ("Content-Type", "application/problem+json"),
        ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ]
    assert json.loads(answer.rest) == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "this page may not",
        "code": "origin_refused",
    }


@pytest.mark.parametrize(
    "status", [400, 401, 404, 405, 408, 414, 426, 429, 431, 499, 500, 503, 599]
)
def test_every_refusal_is_a_whole_answer(status: int) -> None:
    answer = split_answer(refusal_bytes(Refusal(status, "c", "d"), WALL))
    version, number, phrase = answer.status_line.split(" ", 2)
    assert (version, number) == ("HTTP/1.1", str(status))
    assert phrase.strip() == phrase != ""
    assert answer.all("Content-Length") == [str(len(answer.rest))]
    assert answer.all("Connection") == ["close"]
    assert answer.all("Transfer-Encoding") == []
    assert json.loads(answer.rest)["status"] == status


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<p>log in</p>", id="html"),
        pytest.param(b"\r\n\r\n\x00\xff", id="any bytes"),
    ],
)
def test_a_body_of_its_own_goes_out_as_it_is(body: bytes) -> None:
    refusal = Refusal(401, "c", "d", headers=(("Content-Type", "text/html"),), body=body)
    answer = split_answer(refusal_bytes(refusal, WALL))
    assert answer.rest == body
    assert answer.all("Content-Length") == [str(len(body))]
    assert answer.all("Content-Type") == ["text/html"]
    assert answer.all("Connection") == ["close"]


def test_retry_after_goes_out() -> None:
    answer = split_answer(refusal_bytes(Refusal(429, "c", "d", retry_after=30), WALL))
    assert answer.all("Retry-After") == ["30"]


def test_the_framing_of_a_refusal_cannot_be_changed() -> None:
    evil = (
        ("connection", "keep-alive"),
        ("Content-Length", "0"),
        ("TRANSFER-ENCODING", "chunked"),
        ("date", "yesterday"),
    )
    plain = refusal_bytes(Refusal(403, "c", "d"), WALL)
    assert refusal_bytes(Refusal(403, "c", "d", headers=evil), WALL) == plain


def test_why_is_never_sent() -> None:
    refusal = Refusal(403, "c", "d", why="the-reason", headers=(("X-A", "b"),))
    assert b"the-reason" not in refusal_bytes(refusal, WALL)
