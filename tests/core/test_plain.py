from __future__ import annotations

import importlib
import math
import struct
import sys
from itertools import cycle
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.core.drive import limits
from tests.support import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame, mask
from ws_middleware.core import framing as framing_module
from ws_middleware.core import masking as masking_module
from ws_middleware.core.framing import Failed, Framing, PeerPinged, PeerPonged
from ws_middleware.core.masking import unmask_in_c, unmask_short
from ws_middleware.core.plain import find_extent, read_control, read_plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ws_middleware.core.framing import Frame

KEY = b"\x37\xfa\x21\x3d"


def read(data: bytes, at: int = 0, most: float = math.inf) -> tuple[str | bytes, int] | None:
    return read_plain(data, at, most, mask)


# --- where a frame ends --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opcode", "size", "head"),
    [
        pytest.param(TEXT, 0, 6, id="empty"),
        pytest.param(TEXT, 125, 6, id="the most in one byte"),
        pytest.param(BINARY, 126, 8, id="the least in two bytes"),
        pytest.param(BINARY, 0xFFFF, 8, id="the most in two bytes"),
        pytest.param(TEXT, 0x10000, 14, id="the least in eight bytes"),
        pytest.param(CONTINUATION, 2**63 - 1, 14, id="the most there is"),
        pytest.param(PING, 125, 6, id="a control frame"),
    ],
)
def test_where_a_frame_ends_is_known_when_its_head_is_there(
    opcode: int, size: int, head: int
) -> None:
    data = b"before" + frame(opcode, key=KEY, length=size)
    assert find_extent(data, 6) == (6 + head, 6 + head + size)
    assert find_extent(data + b"more", 6) == (6 + head, 6 + head + size)
    for short in range(6, 6 + head):
        assert find_extent(data[:short], 6) is None


@pytest.mark.parametrize(("size", "head"), [(0, 2), (125, 2), (126, 4), (0x10000, 10)])
def test_a_head_without_a_mask_is_shorter(size: int, head: int) -> None:
    data = frame(TEXT, key=None, length=size)
    assert len(data) == head
    assert find_extent(data, 0) == (head, head + size)
    assert find_extent(data[:-1], 0) is None


# --- what is plain -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 126, 1024, 1025, 0xFFFF, 0x10000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_whole_messages_are_read(opcode: int, size: int) -> None:
    payload = b"x" * size
    message = payload.decode() if opcode == TEXT else payload
    data = frame(opcode, payload, key=KEY)
    assert read(data) == (message, len(data))
    assert read(b"before" + data + b"\x81", 6) == (message, 6 + len(data))
    assert read(data, most=size) == (message, len(data))
    assert read(data[:-1]) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(frame(TEXT, b"x", key=None), id="without a mask"),
        pytest.param(frame(TEXT, b"x" * 200, key=None), id="longer, without a mask"),
        pytest.param(frame(TEXT, b"x", key=KEY, fin=False), id="a fragment"),
        pytest.param(frame(CONTINUATION, b"x", key=KEY), id="the last fragment"),
        pytest.param(frame(PING, b"x", key=KEY), id="a ping"),
        pytest.param(frame(PONG, b"x", key=KEY), id="a pong"),
        pytest.param(close_frame(1000), id="a close frame"),
        pytest.param(frame(0x3, b"x", key=KEY), id="an unknown opcode"),
        pytest.param(frame(TEXT, b"x", key=KEY, rsv=4), id="compressed"),
        pytest.param(frame(TEXT, b"\xff", key=KEY), id="no UTF-8"),
        pytest.param(frame(TEXT, b"\xed\xa0\x80", key=KEY), id="a surrogate"),
        pytest.param(frame(TEXT, b"x" * 11, key=KEY), id="too big"),
        pytest.param(
            b"\x81\xfe" + struct.pack("!H", 5) + KEY + mask(b"hello", KEY), id="two bytes of length"
        ),
        pytest.param(
            b"\x81\xff" + struct.pack("!Q", 5) + KEY + mask(b"hello", KEY),
            id="eight bytes of length",
        ),
        pytest.param(b"\x81\xff" + b"\xff" * 8 + KEY, id="more than there can be"),
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(data: bytes) -> None:
    assert read(data, most=10) is None


@pytest.mark.parametrize("size", [0, 1, 125])
@pytest.mark.parametrize(("opcode", "is_ping"), [(PING, True), (PONG, False)])
def test_pings_and_pongs_are_read(opcode: int, size: int, is_ping: bool) -> None:  # noqa: FBT001
    payload = b"x" * size
    data = frame(opcode, payload, key=KEY)
    assert read_control(data, 0, mask) == (is_ping, payload, len(data))
    assert read_control(b"before" + data + b"\x89", 6, mask) == (is_ping, payload, 6 + len(data))
    for short in range(1, len(data)):
        assert read_control(data[:short], 0, mask) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(PING, b"x", key=None), id="without a mask"),
        pytest.param(frame(PING, b"x" * 126, key=KEY), id="too long"),
        pytest.param(frame(PING, b"x", key=None) + b"more of it", id="without a mask, and more"),
        pytest.param(b"\x89\xfe\x00\x01" + KEY + b"x", id="two bytes of length"),
        pytest.param(b"\x89\xff" + bytes(7) + b"\x01" + KEY + b"x", id="eight bytes of length"),
        pytest.param(frame(PING, b"x", key=KEY, fin=False), id="a fragment"),
        pytest.param(frame(PONG, b"x", key=KEY, rsv=1), id="with a reserved bit"),
        pytest.param(close_frame(1000), id="a close frame"),
        pytest.param(frame(TEXT, b"x", key=KEY), id="a message"),
        pytest.param(frame(0xB, b"x", key=KEY), id="an unknown opcode"),
    ],
)
def test_every_other_frame_is_no_plain_control_frame(data: bytes) -> None:
    assert read_control(data, 0, mask) is None


@settings(derandomize=True, database=None)
@given(payload=st.binary(max_size=1100), key=st.binary(min_size=4, max_size=4))
@example(payload=b"x" * 5000, key=KEY)
def test_a_mask_is_taken_off(payload: bytes, key: bytes) -> None:
    assert unmask_short(payload, key) == mask(payload, key)
    assert framing_module._unmask_in_python(payload, key) == mask(payload, key)
    assert unmask_in_c is not None, "the tests are installed with it"
    assert unmask_in_c(payload, key) == mask(payload, key)


def test_the_c_function_is_used_where_it_is_there() -> None:
    assert framing_module._unmask is unmask_in_c
    with patch.dict(sys.modules, {"websockets.speedups": None}):
        without = importlib.reload(masking_module).unmask_in_c
    importlib.reload(masking_module)
    assert without is None


# --- both ways to read, one outcome --------------------------------------------------------------

KEYS = st.binary(min_size=4, max_size=4)
PAYLOADS = st.one_of(
    st.text(max_size=8).map(str.encode),
    st.binary(max_size=8),
    st.integers(110, 140).map(lambda size: b"x" * size),
)
#: Mostly plain, for the parser to be entered and left again and again.
FRAMES = st.one_of(
    st.builds(frame, st.sampled_from([TEXT, BINARY]), PAYLOADS, key=KEYS),
    st.builds(frame, st.sampled_from([TEXT, BINARY]), PAYLOADS, key=KEYS),
    st.builds(
        frame,
        st.sampled_from([TEXT, BINARY, CONTINUATION, CONTINUATION, PING, PONG]),
        PAYLOADS,
        key=KEYS,
        fin=st.booleans(),
        rsv=st.sampled_from([0] * 9 + [1]),
        length=st.sampled_from([None] * 9 + [0, 128, 70_000, 2**63]),
    ),
    st.just(frame(CLOSE, b"\x03\xe8", key=KEY)),
)
STREAMS = st.lists(FRAMES, max_size=12).map(b"".join)
SMALL = limits(message_size=130, fragments=3)


def pull(framing: Framing, pieces: Iterable[bytes]) -> list[Frame]:
    frames = []
    for piece in pieces:
        framing.receive_data(piece)
        while (each := framing.next_event()) is not None:
            # Where in its piece a byte is no UTF-8 depends on the cut, and is for the log only.
            frames.append(Failed(each.code, "") if isinstance(each, Failed) else each)
    return frames


def cut(data: bytes, sizes: list[int]) -> Iterable[bytes]:
    at = 0
    for size in cycle(sizes):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=400,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(data=STREAMS, sizes=st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_it_makes_no_difference_who_reads_a_frame(data: bytes, sizes: list[int]) -> None:
    with (
        patch.object(framing_module, "read_plain", lambda *_: None),
        patch.object(framing_module, "read_control", lambda *_: None),
    ):
        expected = pull(Framing(SMALL), [data])
    with patch.object(framing_module, "_unmask", framing_module._unmask_in_python):
        assert pull(Framing(SMALL), [data]) == expected
    assert pull(Framing(SMALL), [data]) == expected
    assert pull(Framing(SMALL), cut(data, sizes)) == expected


def test_plain_frames_do_not_come_to_the_parser() -> None:
    framing = Framing(limits())
    with patch.object(framing, "_feed", side_effect=AssertionError):
        data = frame(TEXT, b"one", key=KEY) + frame(BINARY, b"two" * 1000, key=KEY)
        assert pull(framing, [data]) == ["one", b"two" * 1000]


def test_pings_do_not_come_to_the_parser_not_even_inside_of_a_message() -> None:
    framing = Framing(limits())
    pull(framing, [frame(TEXT, b"be", key=KEY, fin=False)])
    with patch.object(framing, "_feed", side_effect=AssertionError):
        data = frame(PING, b"you?", key=KEY) + frame(PONG, key=KEY)
        assert pull(framing, [data]) == [PeerPinged(b"you?"), PeerPonged(b"")]
    assert pull(framing, [frame(CONTINUATION, b"gun", key=KEY)]) == ["begun"]


def test_what_follows_a_frame_that_was_cut_is_plain_again() -> None:
    framing = Framing(limits())
    data = frame(TEXT, b"one", key=KEY) + frame(BINARY, b"two", key=KEY)
    assert pull(framing, [data[:4], data[4:12]]) == ["one"]
    assert pull(framing, [data[12:]]) == [b"two"]
    with patch.object(framing, "_feed", side_effect=AssertionError):
        assert pull(framing, [frame(TEXT, b"three", key=KEY)]) == ["three"]


def test_what_has_been_read_is_not_kept() -> None:
    framing = Framing(limits())
    data = frame(BINARY, b"x" * 60_000, key=KEY)
    for pieces in ([data], [data[:1000], data[1000:]], [data, frame(PING, key=KEY)]):
        pull(framing, pieces)
        assert framing._data == b""


def test_nothing_is_read_inside_of_a_message() -> None:
    begun = frame(TEXT, b"be", key=KEY, fin=False)
    (failed,) = pull(Framing(limits()), [begun, frame(TEXT, b"late", key=KEY)])
    assert isinstance(failed, Failed)
    assert failed.code == 1002
