from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.core.drive import EVERY_WAY, bytewise, limits
from tests.support import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame
from ws_middleware.core.encoding import encode, encode_close, encode_ping, encode_pong
from ws_middleware.core.framing import Failed, Framing, PeerClosed, PeerPinged, PeerPonged
from ws_middleware.types import EncodedMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.core.drive import Way
    from ws_middleware.config import Limits
    from ws_middleware.core.framing import Frame

KEY = b"\x37\xfa\x21\x3d"
#: The first byte of a further frame: it must change nothing.
MORE = b"\x81"
#: A whole message behind an error or a close frame: nobody may see it.
LATE = frame(TEXT, b"late")


def pull(framing: Framing) -> list[Frame]:
    frames = []
    while (each := framing.next_event()) is not None:
        frames.append(each)
    return frames


def read(pieces: list[bytes], of: Limits | None = None) -> list[Frame]:
    framing = Framing(of or limits())
    frames = []
    for piece in pieces:
        framing.receive_data(piece)
        frames += pull(framing)
    return frames


def read_failure(pieces: list[bytes], of: Limits | None = None) -> Failed:
    (failed,) = read(pieces, of)
    assert isinstance(failed, Failed)
    return failed


def bytes_until_failure(data: bytes, of: Limits | None = None) -> int:
    framing = Framing(of or limits())
    for i in range(len(data)):
        framing.receive_data(data[i : i + 1])
        if isinstance(framing.next_event(), Failed):
            return i + 1
    pytest.fail("nothing was refused")


def header(opcode: int, length: int) -> bytes:
    """Return the 14 bytes of a frame header that declares `length`, mask key and all."""
    data = frame(opcode, length=length)
    assert len(data) == 14
    return data


# --- whole messages ------------------------------------------------------------------------------


@EVERY_WAY
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", ["Hello"], id="RFC 5.7"),
        pytest.param(frame(TEXT), [""], id="an empty text"),
        pytest.param(frame(BINARY), [b""], id="an empty binary"),
        pytest.param(frame(BINARY, bytes(range(256)), key=KEY), [bytes(range(256))], id="binary"),
        pytest.param(frame(TEXT, "κόσμε 😀\0".encode(), key=KEY), ["κόσμε 😀\0"], id="Unicode"),
        pytest.param(frame(TEXT, b"\r\n\r\n\n\r"), ["\r\n\r\n\n\r"], id="line ends as they are"),
        pytest.param(frame(TEXT, b"a" * 125, key=KEY), ["a" * 125], id="125 bytes"),
        pytest.param(frame(TEXT, b"a" * 126, key=KEY), ["a" * 126], id="126 bytes"),
        pytest.param(frame(TEXT, b"a" * 65535), ["a" * 65535], id="65535 bytes"),
        pytest.param(frame(BINARY, b"a" * 65536), [b"a" * 65536], id="65536 bytes"),
        pytest.param(
            frame(TEXT, b"a") + frame(BINARY, b"b") + frame(TEXT, b"c"),
            ["a", b"b", "c"],
            id="several in order",
        ),
    ],
)
def test_a_message_in_one_frame(way: Way, data: bytes, expected: list[Frame]) -> None:
    assert read(way.pieces(data, MORE)) == expected


@EVERY_WAY
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(
            frame(TEXT, b"Hel", fin=False) + frame(CONTINUATION, b"lo"), ["Hello"], id="RFC 5.7"
        ),
        pytest.param(
            frame(BINARY, b"\x00", fin=False, key=KEY)
            + frame(CONTINUATION, b"\xff" * 200, fin=False, key=KEY)
            + frame(CONTINUATION, b"\x01", key=KEY),
            [b"\x00" + b"\xff" * 200 + b"\x01"],
            id="binary",
        ),
        pytest.param(
            frame(TEXT, b"a\r", fin=False) + frame(CONTINUATION, b"\nb\r\n"),
            ["a\r\nb\r\n"],
            id="line ends as they are",
        ),
        pytest.param(
            frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION),
            [""],
            id="a text of empty fragments",
        ),
        pytest.param(
            frame(BINARY, fin=False) + frame(CONTINUATION),
            [b""],
            id="a binary of empty fragments",
        ),
        pytest.param(
            frame(TEXT, b"a", fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION),
            ["a"],
            id="an empty end",
        ),
        pytest.param(
            b"".join(
                frame(TEXT if i == 0 else CONTINUATION, byte, fin=i == 3)
                for i, byte in enumerate(bytewise("😀".encode()))
            ),
            ["😀"],
            id="a character over four fragments",
        ),
        pytest.param(
            frame(TEXT, b"a", fin=False)
            + frame(CONTINUATION, b"b")
            + frame(BINARY, b"c", fin=False)
            + frame(CONTINUATION, b"d")
            + frame(TEXT, b"e"),
            ["ab", b"cd", "e"],
            id="several in order",
        ),
    ],
)
def test_a_message_in_fragments(way: Way, data: bytes, expected: list[Frame]) -> None:
    assert read(way.pieces(data, MORE)) == expected


@EVERY_WAY
@pytest.mark.parametrize(
    ("opcode", "message"), [pytest.param(TEXT, "abc", id="text"), pytest.param(BINARY, b"abc")]
)
def test_control_frames_between_fragments(way: Way, opcode: int, message: str | bytes) -> None:
    data = (
        frame(opcode, b"a", fin=False)
        + frame(PING, b"1", key=KEY)
        + frame(PONG)
        + frame(CONTINUATION, b"b", fin=False)
        + frame(PING, b"\xff" * 125)
        + frame(CONTINUATION, b"c")
    )
    assert read(way.pieces(data, MORE)) == [
        PeerPinged(b"1"),
        PeerPonged(b""),
        PeerPinged(b"\xff" * 125),
        message,
    ]


@EVERY_WAY
def test_a_close_frame_between_fragments(way: Way) -> None:
    data = frame(TEXT, b"a", fin=False) + close_frame(1001, b"bye")
    assert read(way.pieces(data, LATE)) == [PeerClosed(1001, "bye")]


def test_early_bytes_come_first() -> None:
    framing = Framing(limits(), frame(TEXT, b"early") + frame(TEXT, b"cut")[:3])
    framing.receive_data(frame(TEXT, b"cut")[3:])
    assert pull(framing) == ["early", "cut"]


def test_nothing_is_parsed_before_it_is_asked_for() -> None:
    framing = Framing(limits())
    framing.receive_data(frame(TEXT, b"a") + frame(PING, b"b") + frame(3))
    assert framing.next_event() == "a"
    framing.receive_data(LATE)
    assert framing.next_event() == PeerPinged(b"b")
    assert framing.next_event() == Failed(1002, "protocol_error: Invalid opcode 0x3")
    assert framing.next_event() is None


# --- limits --------------------------------------------------------------------------------------


@EVERY_WAY
@pytest.mark.parametrize("length", [101, 126, 65536, 2**31, 2**32, 2**62, 2**63 - 1])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_large_message_is_refused_at_its_header(way: Way, opcode: int, length: int) -> None:
    data = frame(opcode, length=length)
    failed = read_failure(way.pieces(data, bytes(100)), limits(message_size=100))
    assert failed == Failed(1009, f"message_too_big: {length} bytes declared, message_size is 100")


def test_a_message_of_exabytes_costs_fourteen_bytes() -> None:
    assert read_failure([header(BINARY, 2**62)]).code == 1009
    # The length is there with the tenth byte, before the mask key.
    assert bytes_until_failure(header(BINARY, 2**62)) == 10


@EVERY_WAY
@pytest.mark.parametrize(
    ("build", "unit"),
    [
        pytest.param(lambda n: frame(BINARY, b"x" * n, key=KEY), 1, id="one frame"),
        pytest.param(
            lambda n: frame(BINARY, b"x" * (n - 1), fin=False) + frame(CONTINUATION, b"x"),
            1,
            id="two frames",
        ),
        pytest.param(
            lambda n: (
                frame(BINARY, fin=False)
                + frame(CONTINUATION, b"x", fin=False) * (n - 1)
                + frame(CONTINUATION, b"x")
            ),
            1,
            id="a frame for each byte",
        ),
        pytest.param(
            lambda n: (
                frame(BINARY, b"x" * (n - 1), fin=False)
                + frame(PING, b"p" * 125)
                + frame(CONTINUATION, b"x")
            ),
            1,
            id="a ping between does not count",
        ),
        pytest.param(
            lambda n: frame(TEXT, "😀".encode() * n), 4, id="characters of four bytes, one frame"
        ),
        pytest.param(
            lambda n: (
                frame(TEXT, "😀".encode() * (n - 1) + b"\xf0\x9f", fin=False)
                + frame(CONTINUATION, b"\x98\x80")
            ),
            4,
            id="characters of four bytes, cut in the middle",
        ),
    ],
)
def test_the_largest_message(way: Way, build: Callable[[int], bytes], unit: int) -> None:
    of = limits(message_size=400)
    (*_, message) = read(way.pieces(build(400 // unit), MORE), of)
    assert isinstance(message, (str, bytes))
    assert len(message) == 400 // unit
    (*_, failed) = read(way.pieces(build(400 // unit + 1), LATE), of)
    assert isinstance(failed, Failed)
    assert failed.code == 1009


@EVERY_WAY
def test_the_size_is_counted_anew_for_each_message(way: Way) -> None:
    data = frame(BINARY, b"x" * 50, fin=False) + frame(CONTINUATION, b"x" * 50)
    assert read(way.pieces(data * 5, MORE), limits(message_size=100)) == [b"x" * 100] * 5


@EVERY_WAY
def test_the_rest_of_a_message_is_refused_at_the_header_that_exceeds(way: Way) -> None:
    data = frame(BINARY, b"x" * 60, fin=False) + frame(CONTINUATION, length=41)
    failed = read_failure(way.pieces(data, bytes(10)), limits(message_size=100))
    assert failed == Failed(1009, "message_too_big: 101 bytes declared, message_size is 100")


def test_no_limit_of_size_if_it_is_none() -> None:
    data = frame(BINARY, bytes(3 * 1024**2))
    assert read([data], limits(message_size=None)) == [bytes(3 * 1024**2)]
    assert read([header(BINARY, 2**62)], limits(message_size=None)) == []


@EVERY_WAY
@pytest.mark.parametrize(
    "payload", [pytest.param(b"", id="empty"), pytest.param(b"x", id="not empty")]
)
def test_the_most_fragments(way: Way, payload: bytes) -> None:
    def message(count: int) -> bytes:
        middle = frame(CONTINUATION, payload, fin=False) * (count - 2)
        return frame(TEXT, payload, fin=False) + middle + frame(CONTINUATION, payload)

    text = payload.decode()
    assert read(way.pieces(message(1024) * 2, MORE)) == [text * 1024] * 2
    failed = read_failure(way.pieces(message(1025), LATE))
    assert failed == Failed(1009, "too_many_fragments: fragments is 1024")


def test_fragments_are_refused_before_the_message_ends() -> None:
    data = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 5000
    assert bytes_until_failure(data) == 1024 * 6 + 2


def test_control_frames_are_no_fragments() -> None:
    data = frame(TEXT, b"a", fin=False) + frame(PING) * 50 + frame(CONTINUATION, b"b")
    assert read([data], limits(fragments=2)) == [PeerPinged(b"")] * 50 + ["ab"]


def test_no_limit_of_fragments_if_it_is_none() -> None:
    data = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 3000 + frame(CONTINUATION)
    assert read([data], limits(fragments=None)) == [""]


# --- UTF-8 ---------------------------------------------------------------------------------------


BAD_UTF8 = pytest.mark.parametrize(
    ("payload", "seen_after"),
    [
        pytest.param(b"ok\xff", 3, id="no byte of UTF-8"),
        pytest.param(b"\x80", 1, id="a continuation byte first"),
        pytest.param(b"\xc0\xaf", 1, id="overlong in two bytes"),
        pytest.param(b"\xe0\x80\xaf", 2, id="overlong in three bytes"),
        pytest.param(b"\xed\xa0\x80", 3, id="a surrogate, which CPython sees whole"),
        pytest.param(b"\xf4\x90\x80\x80", 2, id="over U+10FFFF"),
        pytest.param(b"\xf5", 1, id="a lead byte too high"),
        pytest.param(b"\xe2\x28\xa1", 2, id="a broken sequence"),
    ],
)


@EVERY_WAY
@BAD_UTF8
def test_bad_utf8_is_1007(way: Way, payload: bytes, seen_after: int) -> None:
    assert read_failure(way.pieces(frame(TEXT, payload, key=KEY), LATE)).code == 1007


@BAD_UTF8
def test_bad_utf8_is_refused_at_its_byte_not_at_the_end(payload: bytes, seen_after: int) -> None:
    data = frame(TEXT, b"good" + payload + b"rest", length=1000)
    assert bytes_until_failure(data) == 8 + 4 + seen_after
    assert read_failure([data[: 8 + 4 + seen_after]]).code == 1007


@BAD_UTF8
def test_bad_utf8_is_refused_in_a_later_fragment(payload: bytes, seen_after: int) -> None:
    data = frame(TEXT, b"good", fin=False) + frame(CONTINUATION, payload, length=1000)
    assert bytes_until_failure(data) == 10 + 8 + seen_after


@EVERY_WAY
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(TEXT, b"\xce"), id="at the end of a frame"),
        pytest.param(
            frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONTINUATION, b"\x98"),
            id="at the end of the last fragment",
        ),
        pytest.param(
            frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONTINUATION),
            id="before an empty last fragment",
        ),
    ],
)
def test_a_text_that_ends_inside_a_character_is_1007(way: Way, data: bytes) -> None:
    assert read_failure(way.pieces(data, LATE)).code == 1007


def test_binary_may_be_anything() -> None:
    assert read([frame(BINARY, b"\xff\xfe\x80")]) == [b"\xff\xfe\x80"]


# --- broken frames -------------------------------------------------------------------------------


@EVERY_WAY
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(TEXT, b"a", rsv=4), id="RSV1, no extension was negotiated"),
        pytest.param(frame(TEXT, b"a", rsv=2), id="RSV2"),
        pytest.param(frame(BINARY, b"a", rsv=1), id="RSV3"),
        pytest.param(frame(PING, b"a", rsv=4), id="RSV1 on a ping"),
        pytest.param(frame(CLOSE, rsv=1), id="RSV3 on a close"),
        *[
            pytest.param(frame(opcode, b"a"), id=f"reserved opcode {opcode:#x}")
            for opcode in (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)
        ],
        pytest.param(frame(TEXT, b"a", key=None), id="a text without mask"),
        pytest.param(frame(PING, key=None), id="a ping without mask"),
        pytest.param(frame(CLOSE, b"\x03\xe8", key=None), id="a close without mask"),
        pytest.param(frame(TEXT, b"a" * 200, key=None), id="a longer text without mask"),
        pytest.param(frame(PING, fin=False), id="a ping in fragments"),
        pytest.param(frame(PONG, fin=False), id="a pong in fragments"),
        pytest.param(frame(CLOSE, b"\x03\xe8", fin=False), id="a close in fragments"),
        pytest.param(frame(PING, b"a" * 126), id="a ping of 126 bytes"),
        pytest.param(frame(PONG, b"a" * 126), id="a pong of 126 bytes"),
        pytest.param(frame(CLOSE, b"\x03\xe8" + b"a" * 124), id="a close of 126 bytes"),
        pytest.param(frame(PING, length=65536), id="a ping that declares 65536 bytes"),
        pytest.param(frame(CONTINUATION, b"a"), id="a continuation of nothing"),
        pytest.param(frame(CONTINUATION, b"a", fin=False), id="a continuation of nothing, open"),
        pytest.param(b"\x82\xfe\x00\x7d" + bytes(4 + 125), id="125 in two bytes"),
        pytest.param(b"\x82\xfe\x00\x00" + bytes(4), id="0 in two bytes"),
        pytest.param(
            b"\x82\xff" + struct.pack("!Q", 65535) + bytes(4 + 10), id="65535 in eight bytes"
        ),
        pytest.param(b"\x82\xff" + struct.pack("!Q", 1) + bytes(4 + 1), id="1 in eight bytes"),
        pytest.param(b"\x82\xff" + struct.pack("!Q", 2**63) + bytes(4), id="2^63"),
        pytest.param(b"\x82\xff" + b"\xff" * 8 + bytes(4), id="2^64 - 1"),
    ],
)
def test_a_broken_frame_is_1002(way: Way, data: bytes) -> None:
    failed = read_failure(way.pieces(data, LATE))
    assert failed.code == 1002
    assert failed.why.startswith("protocol_error: ")


@EVERY_WAY
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_new_message_inside_a_message_is_1002(way: Way, opcode: int) -> None:
    data = frame(opcode, b"a", fin=False) + frame(TEXT, b"b")
    assert read_failure(way.pieces(data, LATE)).code == 1002


@EVERY_WAY
@pytest.mark.parametrize(
    "end",
    [
        pytest.param(frame(0x3), id="a broken frame"),
        pytest.param(frame(TEXT, b"\xff"), id="bad UTF-8"),
        pytest.param(header(TEXT, 2**40), id="a message too big"),
        pytest.param(close_frame(999), id="a bad close frame"),
        pytest.param(close_frame(1000), id="a close frame"),
    ],
)
def test_nothing_comes_after_the_end(way: Way, end: bytes) -> None:
    framing = Framing(limits())
    events = []
    for piece in way.pieces(frame(TEXT, b"before") + end, LATE):
        framing.receive_data(piece)
        events += pull(framing)
    assert len(events) == 2
    assert events[0] == "before"
    assert isinstance(events[1], (Failed, PeerClosed))
    for piece in (LATE, frame(PING), close_frame(1000), frame(0x3), b"\xff" * 1000):
        framing.receive_data(piece)
        assert framing.next_event() is None


def test_nothing_comes_after_a_stop() -> None:
    framing = Framing(limits())
    framing.receive_data(frame(TEXT, b"a", fin=False) + LATE)
    framing.stop()
    framing.receive_data(LATE)
    assert framing.next_event() is None


# --- close frames that come ----------------------------------------------------------------------


@EVERY_WAY
@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999]
)
def test_close_codes_that_may_come(way: Way, code: int) -> None:
    data = close_frame(code, "tschüß".encode())
    assert read(way.pieces(data, LATE)) == [PeerClosed(code, "tschüß")]


@EVERY_WAY
@pytest.mark.parametrize(
    "code",
    [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 10_000, 65535],
)
def test_close_codes_that_may_not_come(way: Way, code: int) -> None:
    assert read_failure(way.pieces(close_frame(code), LATE)).code == 1002


def test_close_codes_around_every_border() -> None:
    codes = [*range(990, 1030), *range(2995, 3005), *range(3995, 4005), *range(4995, 5005)]
    accepted = {code for code in codes if read([close_frame(code)]) == [PeerClosed(code, "")]}
    assert accepted == {
        *range(1000, 1004),
        *range(1007, 1015),
        *range(3000, 3005),
        *range(3995, 4005),
        *range(4995, 5000),
    }


@EVERY_WAY
def test_a_close_frame_without_code_is_1005(way: Way) -> None:
    assert read(way.pieces(close_frame(None), LATE)) == [PeerClosed(1005, "")]


@EVERY_WAY
@pytest.mark.parametrize(
    ("payload", "code"),
    [
        pytest.param(b"\x03", 1002, id="half a code"),
        pytest.param(b"\x03\xe8\xff", 1007, id="a reason that is no UTF-8"),
        pytest.param(b"\x03\xe8ok\xf0\x9f", 1007, id="a reason cut in a character"),
        pytest.param(b"\x03\xf6\xff", 1007, id="the same with 1014"),
        pytest.param(b"\x03\xec\xff", 1002, id="a bad code comes first"),
    ],
)
def test_a_close_frame_that_is_none(way: Way, payload: bytes, code: int) -> None:
    assert read_failure(way.pieces(frame(CLOSE, payload, key=KEY), LATE)).code == code


def test_the_longest_reason_that_may_come() -> None:
    assert read([close_frame(1000, b"r" * 123)]) == [PeerClosed(1000, "r" * 123)]


def test_1014_in_a_message_is_no_close_code() -> None:
    data = frame(BINARY, b"\x03\xf6", key=KEY) + frame(PING, b"\x03\xf6") + close_frame(1013)
    assert read([data]) == [b"\x03\xf6", PeerPinged(b"\x03\xf6"), PeerClosed(1013, "")]


# --- outgoing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "header_bytes"),
    [
        pytest.param(0, b"\x00", id="0"),
        pytest.param(1, b"\x01", id="1"),
        pytest.param(125, b"\x7d", id="125"),
        pytest.param(126, b"\x7e\x00\x7e", id="126"),
        pytest.param(65535, b"\x7e\xff\xff", id="65535"),
        pytest.param(65536, b"\x7f\x00\x00\x00\x00\x00\x01\x00\x00", id="65536"),
        pytest.param(2**20, b"\x7f\x00\x00\x00\x00\x00\x10\x00\x00", id="1 MiB"),
    ],
)
def test_frames_of_every_size(size: int, header_bytes: bytes) -> None:
    assert encode("x" * size) == b"\x81" + header_bytes + b"x" * size
    assert encode(b"x" * size) == b"\x82" + header_bytes + b"x" * size


def test_the_size_of_a_text_is_that_of_its_bytes() -> None:
    assert encode("😀" * 32) == b"\x81\x7e\x00\x80" + "😀".encode() * 32


@pytest.mark.parametrize("message", ["", "a", "κόσμε 😀", b"", b"\xff\x00", "x" * 70_000])
def test_an_encoded_message_has_the_same_frame(message: str | bytes) -> None:
    assert encode(EncodedMessage(message)) == encode(message)


@pytest.mark.parametrize("data", [bytearray(b"ab"), memoryview(b"ab")])
def test_an_encoded_message_of_other_bytes_is_binary(data: bytearray | memoryview) -> None:
    assert encode(EncodedMessage(data)) == b"\x82\x02ab"


@pytest.mark.parametrize("message", ["text", b"binary"])
def test_an_encoded_message_is_framed_once(message: str | bytes) -> None:
    encoded = EncodedMessage(message)
    assert encode(encoded) is encode(encoded)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_a_lone_surrogate_is_the_senders_fault(text: str) -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        encode(text)
    with pytest.raises(ValueError, match="surrogates not allowed"):
        EncodedMessage(text)


def test_ping_and_pong() -> None:
    assert encode_ping(b"") == b"\x89\x00"
    assert encode_pong(b"p") == b"\x8a\x01p"
    assert encode_ping(b"p" * 125) == b"\x89\x7d" + b"p" * 125
    assert encode_pong(b"p" * 125) == b"\x8a\x7d" + b"p" * 125


def test_a_control_frame_carries_at_most_125_bytes() -> None:
    with pytest.raises(ValueError, match="at most 125 bytes, not 126"):
        encode_ping(b"p" * 126)
    with pytest.raises(ValueError, match="at most 125 bytes, not 126"):
        encode_pong(b"p" * 126)


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        pytest.param(None, "", b"\x88\x00", id="no code"),
        pytest.param(1000, "", b"\x88\x02\x03\xe8", id="a code"),
        pytest.param(1001, "bye", b"\x88\x05\x03\xe9bye", id="a code and a reason"),
        pytest.param(1014, "", b"\x88\x02\x03\xf6", id="bad gateway"),
        pytest.param(4999, "é", b"\x88\x04\x13\x87\xc3\xa9", id="a code of the app"),
        pytest.param(1000, "r" * 123, b"\x88\x7d\x03\xe8" + b"r" * 123, id="the longest reason"),
    ],
)
def test_close_frames_that_go(code: int | None, reason: str, expected: bytes) -> None:
    assert encode_close(code, reason) == expected


def test_close_codes_that_may_go() -> None:
    sent = set()
    for code in range(-1, 65538):
        try:
            encode_close(code)
        except ValueError:
            continue
        sent.add(code)
    assert sent == {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param(0, "", id="0"),
        pytest.param(True, "", id="a bool"),
        pytest.param(999, "", id="999"),
        pytest.param(1004, "", id="reserved"),
        pytest.param(1005, "", id="no code is said by no code"),
        pytest.param(1006, "", id="no frame is said by no frame"),
        pytest.param(1015, "", id="TLS"),
        pytest.param(1016, "", id="not registered"),
        pytest.param(2999, "", id="not registered either"),
        pytest.param(5000, "", id="too high"),
        pytest.param(65536, "", id="no code at all"),
    ],
)
def test_close_codes_that_may_not_go(code: int, reason: str) -> None:
    with pytest.raises(ValueError, match=r"close code .* cannot be sent"):
        encode_close(code, reason)


@pytest.mark.parametrize(
    ("reason", "size"),
    [
        pytest.param("r" * 124, 124, id="ASCII"),
        pytest.param("😀" * 31, 124, id="31 characters of four bytes"),
        pytest.param("r" * 1000, 1000, id="much too long"),
    ],
)
def test_reasons_that_may_not_go(reason: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"at most 123 bytes of UTF-8, not {size}"):
        encode_close(1000, reason)


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 4999])
def test_every_code_that_may_come_can_be_echoed(code: int) -> None:
    assert read([close_frame(code)]) == [PeerClosed(code, "")]
    assert encode_close(code) == b"\x88\x02" + struct.pack("!H", code)
