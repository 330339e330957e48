"""HTTP answers with sockets in the app are those without, byte for byte."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.serving import SERVERS, Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

END = "Connection: close\r\n\r\n"


def get(
    path: str, *fields: str, method: str = "GET", version: str = "1.1", end: str = END
) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: shop.example", *fields]
    return ("\r\n".join(lines) + "\r\n" + end).encode("latin-1")


def post(path: str, body: bytes, *fields: str, end: str = END) -> bytes:
    return get(path, f"Content-Length: {len(body)}", *fields, method="POST", end=end) + body


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in (*chunks, b""))


KEPT = "\r\n"
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="

REQUESTS = {
    "plain": get("/health"),
    "http-1.0": get("/health", version="1.0", end=KEPT),
    "http-1.0-keep-alive": get("/health", version="1.0", end="Connection: keep-alive\r\n\r\n")
    + get("/environ", version="1.0"),
    "head": get("/stream", method="HEAD"),
    "head-of-a-file": get("/file", method="HEAD"),
    "options": get("/echo", method="OPTIONS"),
    "automatic-options": get("/health", method="OPTIONS"),
    "wrong-method": get("/health", method="DELETE"),
    "not-found": get("/nowhere?query=1"),
    "double-slash": get("//health"),
    "stream": get("/stream"),
    "stream-was-closed": get("/closed"),
    "stream-http-1.0": get("/stream", version="1.0", end=KEPT),
    "stream-fails": get("/stream/fails"),
    "large": get("/large"),
    "empty": get("/empty"),
    "file": get("/file"),
    "file-range": get("/file", "Range: bytes=10-99"),
    "file-not-modified": get("/file", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"),
    "etag-not-modified": get("/memory", 'If-None-Match: "e1"'),
    "memory": get("/memory"),
    "redirect": get("/moved"),
    "cookies": get("/cookies", "Cookie: a=1; b=2", "Cookie: c=3"),
    "environ": get("/environ?a=%C3%BC&b=+", "X-A: 1", "X-A: 2", "X_B: 3", "Accept:"),
    **{f"abort-{status}": get(f"/abort/{status}") for status in (400, 403, 418, 429, 503)},
    "exception": get("/fails"),
    "post": post("/echo", b"hello"),
    "post-large": post("/echo", b"x" * 300_000),
    "post-stream": post("/upload", b"0123456789" * 50_000),
    "post-unread": post("/unread", b"x" * 50_000),
    "chunked": get("/echo", "Transfer-Encoding: chunked", method="POST")
    + chunked(b"hello ", b"world" * 1000),
    "expect": post("/echo", b"hello", "Expect: 100-continue"),
    "write": get("/plain/write"),
    "started-again": get("/plain/again"),
    "mounted": get("/plain/"),
    "bad-request-line": b"NONSENSE\r\n\r\n",
    "other-upgrade": get("/health", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    "a-key-without-an-upgrade": get("/health", KEY),
}

#: Upgrade requests that are none of ours, and one more request, for a client that would wait.
UPGRADES = {
    "page": get("/health", *UPGRADE, KEY, "Origin: https://evil.example", end=KEPT),
    "nowhere": get("/nowhere", *UPGRADE, KEY, end=KEPT),
    "mount": get("/plain/write", *UPGRADE, KEY, end=KEPT),
    "failure": get("/plain/again", *UPGRADE, KEY, end=KEPT),
    "stream": get("/plain/", *UPGRADE, end=KEPT),
}
PIPELINED = {
    "pages": get("/health", end=KEPT) + get("/environ", end=KEPT) + get("/stream"),
    "bodies": post("/echo", b"one", end=KEPT)
    + post("/upload", b"two" * 5000, end=KEPT)
    + get("/health"),
    **{f"upgrade-of-{name}": request + get("/environ") for name, request in UPGRADES.items()},
}


@pytest.fixture(scope="module", params=list(SERVERS))
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    folder = tmp_path_factory.mktemp("pages")
    with (
        serving(request.param, "pages", folder, PYTHONHASHSEED="0") as bare,
        serving(request.param, "pages", folder, PYTHONHASHSEED="0", SOCKETS="1") as wrapped,
    ):
        yield bare, wrapped


def ask(server: Server, request: bytes) -> bytes:
    """Return the answer, to the last byte; what belongs to the clock is taken out."""
    answer = b""
    with server.peer() as peer:
        peer.send(request)
        # A server that has not read a whole body may reset the connection behind its answer.
        with contextlib.suppress(ConnectionResetError):
            while data := peer.socket.recv(65536):
                answer += data
    answer = answer.replace(f":{server.port}".encode(), b":PORT")
    return re.sub(rb"(?m)^Date: .*\r$", b"Date: now\r", answer)


@pytest.mark.parametrize("name", REQUESTS)
def test_an_answer_is_the_same_byte_for_byte(servers: tuple[Server, Server], name: str) -> None:
    if (servers[0].name, name) == ("werkzeug", "post-unread"):
        pytest.skip("it waits for the client to hang up, with sockets and without")
    bare, wrapped = (ask(server, REQUESTS[name]) for server in servers)
    assert bare.startswith((b"HTTP/1.", b"<")), bare[:200]
    assert wrapped == bare


@pytest.mark.parametrize("name", PIPELINED)
def test_answers_to_pipelined_requests_are_the_same(
    servers: tuple[Server, Server], name: str
) -> None:
    if servers[0].name == "werkzeug":
        pytest.skip("it reads one request of a connection, and what is left may reset its answer")
    bare, wrapped = (ask(server, PIPELINED[name]) for server in servers)
    assert bare.startswith(b"HTTP/1.1 ")
    assert wrapped == bare


@pytest.mark.parametrize("name", UPGRADES)
def test_an_upgrade_that_is_none_of_ours_is_the_apps(
    servers: tuple[Server, Server], name: str
) -> None:
    answers = []
    for server in servers:
        with server.peer() as peer:
            peer.send(UPGRADES[name])
            answers.append(re.sub(rb"Date: .*", b"", peer.read_head()))
    assert answers[0] == answers[1]


def test_the_answers_are_those_that_the_list_is_about(servers: tuple[Server, Server]) -> None:
    _, wrapped = servers
    statuses = {
        name: [int(each) for each in re.findall(rb"^HTTP/1\.[01] (\d+)", answer, re.MULTILINE)]
        for name in ("not-found", "exception", "file-range", "file-not-modified", "write")
        if (answer := ask(wrapped, REQUESTS[name]))
    }
    assert statuses == {
        "not-found": [404],
        "exception": [500],
        "file-range": [206],
        "file-not-modified": [304],
        "write": [200],
    }
    assert b'"stream"' in ask(wrapped, REQUESTS["stream-was-closed"])


def test_a_client_may_wait_for_the_word_to_go_on(servers: tuple[Server, Server]) -> None:
    answers = []
    for server in servers:
        with server.peer() as peer:
            peer.send(get("/echo", "Content-Length: 5", "Expect: 100-continue", method="POST"))
            first = peer.read_head()
            peer.send(b"hello")
            answers.append((first, re.sub(rb"Date: .*", b"", peer.read_rest())))
    bare, wrapped = answers
    assert bare[0].split()[1] == b"100"
    assert wrapped == bare


def test_a_connection_is_kept_from_answer_to_answer(servers: tuple[Server, Server]) -> None:
    """One at a time, as a browser asks; whether it is kept is the server's choice."""
    counts = []
    for server in servers:
        count = 0
        with server.peer() as peer:
            kept = True
            while kept and count < 3:
                peer.send(get("/health", end=KEPT))
                answer = peer.read_head()
                assert (answer.split()[1], peer.read_bytes(2)) == (b"200", b"ok")
                kept = b"Connection: close" not in answer
                count += 1
        counts.append(count)
    assert counts[0] == counts[1] >= 1
