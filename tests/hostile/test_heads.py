"""Requests that are none: an answer, an end, and never a second answer."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import TEXT, frame, head

from .attack import KIB, MIB, answer_of

if TYPE_CHECKING:
    from .conftest import Attack


def test_a_peer_that_hangs_up_before_its_head_is_no_error(attack: Attack) -> None:
    target = attack()

    for text in (b"", b"G", head("/echo")[:-1]):
        with target.peer() as peer:
            peer.send(text)
        with target.peer() as peer:
            peer.send(text)
            peer.reset()
        with target.peer() as peer:
            peer.send(text)
            peer.end()
            assert peer.is_gone()

    target.wait_idle(1.0)


ENDLESS_FIELDS = b"GET /echo HTTP/1.1\r\n" + b"X-Field: value\r\n" * (MIB // 16)
ENDLESS_FIELD = b"GET /echo HTTP/1.1\r\nX-Field: " + b"v" * MIB
#: What the record layer of a TLS client begins with.
CLIENT_HELLO = bytes.fromhex("16030100f5010000f10303") + bytes(range(240))


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(ENDLESS_FIELDS, 431, id="1 MiB of fields without an end"),
        pytest.param(ENDLESS_FIELD, 431, id="a field of 1 MiB without an end"),
        pytest.param(b"GET /" + b"x" * MIB, 414, id="a target of 1 MiB without an end"),
        pytest.param(head("/echo", X_Field="v" * 64 * KIB), 431, id="64 KiB in one segment"),
        pytest.param(head("/echo", X_Field=["v"] * 200), 431, id="200 fields"),
        pytest.param(head("/" + "x" * 9000), 414, id="a request line of 9 KB"),
        pytest.param(b"\x00\xff\xfe" * 100 + b"\r\n\r\n", 400, id="garbage"),
        pytest.param(CLIENT_HELLO, 400, id="TLS"),
        pytest.param(frame(TEXT, b"no handshake") * 10 + b"\r\n\r\n", 400, id="frames at once"),
        pytest.param(b"GET /echo HTTP/1.1\r\nUpgr\x00de: x\r\n\r\n", 400, id="a NUL in a name"),
        pytest.param(b"GET /echo\r\n\r\n", 400, id="HTTP/0.9"),
        pytest.param(head("/nowhere"), 404, id="no such path"),
        pytest.param(head("/echo", Sec_WebSocket_Version="8"), 426, id="version 8"),
        pytest.param(head("/echo", Sec_WebSocket_Key="short"), 400, id="a bad key"),
        pytest.param(head("/echo", Upgrade=None), 426, id="plain HTTP"),
        pytest.param(head("/echo", Origin="http://evil.example"), 403, id="a foreign page"),
    ],
)
def test_a_bad_request_gets_one_answer_and_an_end(
    attack: Attack, request_bytes: bytes, status: int
) -> None:
    target = attack()

    with target.memory() as memory, target.peer() as peer:
        peer.send_anyway(request_bytes)
        assert answer_of(peer) == status

    assert memory.growth < MIB


def test_tls_on_the_plain_port_is_named_in_the_log(attack: Attack) -> None:
    target = attack()
    time.sleep(0.3)  # the log of refusals has a budget of ten a second

    with target.peer() as peer:
        peer.send(CLIENT_HELLO)
        assert answer_of(peer) == 400

    assert "TLS on a plain port" in target.log


@pytest.mark.parametrize(
    "first",
    [
        head("/nowhere"),
        head("/echo", Sec_WebSocket_Version="8"),
        head("/echo", Content_Length="5"),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"\r\n\x00\r\n\r\n",
    ],
)
@pytest.mark.parametrize("apart", [False, True], ids=["one segment", "two"])
def test_a_pipelined_request_after_a_refusal_is_never_answered(
    attack: Attack, loop: str, first: bytes, *, apart: bool
) -> None:
    target = attack(loop=loop)

    with target.peer() as peer:
        peer.send(first if apart else first + head("/echo"))
        if apart:
            time.sleep(0.05)
            peer.send_anyway(head("/echo"))
        assert 400 <= answer_of(peer) < 500


def test_random_bytes_get_4xx_or_408_and_never_a_traceback(attack: Attack) -> None:
    target = attack()

    for _ in range(100):
        with target.peer() as peer:
            peer.send(os.urandom(300) + b"\r\n\r\n\n\n")
            assert answer_of(peer) in {400, 414, 431}
