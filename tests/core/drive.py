"""What the tests of the core share: ways to cut bytes, a policy, sessions in each state.

Time is an argument everywhere; sessions begin at `T0`.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from tests.support import Frame, head
from ws_middleware.config import (
    DEFAULT_LIMITS,
    EffectivePolicy,
    Heartbeat,
    Limits,
    ServerLimits,
)
from ws_middleware.core.session import Session
from ws_middleware.gate.auth.anonymous import Anonymous
from ws_middleware.types import UpgradeRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws_middleware.core.events import Event

__all__ = [
    "CUTS",
    "EVERY_WAY",
    "HEARTBEAT",
    "NONCE",
    "T0",
    "WALL",
    "Answer",
    "Way",
    "bytewise",
    "deciding",
    "frames_of",
    "limits",
    "new_session",
    "opened",
    "policy",
    "pull_all",
    "split_answer",
    "whole",
]

T0: Final = 1000.0
WALL: Final = 1_700_000_000.0
NONCE: Final = b"nonce"
HEARTBEAT: Final = Heartbeat(interval=30.0, timeout=20.0)


# --- bytes in ------------------------------------------------------------------------------------


def whole(data: bytes) -> list[bytes]:
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def _slices(size: int) -> Callable[[bytes], list[bytes]]:
    def cut(data: bytes) -> list[bytes]:
        return [data[i : i + size] for i in range(0, len(data), size)]

    return cut


class Way(NamedTuple):
    """How a parser is fed."""

    cut: Callable[[bytes], list[bytes]]
    has_more: bool

    def pieces(self, data: bytes, trailing: bytes) -> list[bytes]:
        return self.cut(data + trailing if self.has_more else data)


#: Every parser case is fed like this. What trails is each test's own.
EVERY_WAY = pytest.mark.parametrize(
    "way",
    [
        pytest.param(Way(whole, has_more=False), id="whole"),
        pytest.param(Way(bytewise, has_more=False), id="byte by byte"),
        pytest.param(Way(whole, has_more=True), id="with trailing bytes"),
    ],
)

#: For exact limits, which no cut may move.
CUTS = pytest.mark.parametrize(
    "cut",
    [
        pytest.param(whole, id="whole"),
        pytest.param(bytewise, id="byte by byte"),
        pytest.param(_slices(4096), id="slices of 4096"),
        pytest.param(_slices(4095), id="slices of 4095"),
        pytest.param(_slices(4097), id="slices of 4097"),
        pytest.param(_slices(1000), id="slices of 1000"),
    ],
)


# --- bytes out -----------------------------------------------------------------------------------


def frames_of(data: bytes) -> list[Frame]:
    """Read a server's frames, by RFC 6455 section 5.2; all must be whole and unmasked."""
    frames = []
    while data:
        first, second = data[0], data[1]
        assert not second & 0x80, "a server's frame must not be masked"
        assert not first & 0x70, "no extension was negotiated"
        start, size = 2, second & 0x7F
        if size == 126:
            start, (size,) = 4, struct.unpack("!H", data[2:4])
        elif size == 127:
            start, (size,) = 10, struct.unpack("!Q", data[2:10])
        payload = data[start : start + size]
        assert len(payload) == size, "a frame is written whole"
        frames.append(Frame(bool(first & 0x80), first & 0x0F, payload))
        data = data[start + size :]
    return frames


class Answer(NamedTuple):
    """A response head, and what comes behind it."""

    status_line: str
    headers: list[tuple[str, str]]
    rest: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


def split_answer(data: bytes) -> Answer:
    top, separator, rest = data.partition(b"\r\n\r\n")
    assert separator, "the head has an end"
    status_line, *lines = top.decode("latin-1").split("\r\n")
    headers = []
    for line in lines:
        name, colon, value = line.partition(": ")
        assert colon
        headers.append((name, value))
    return Answer(status_line, headers, rest)


# --- sessions ------------------------------------------------------------------------------------


def limits(
    *,
    message_size: int | None = DEFAULT_LIMITS.message_size,
    fragments: int | None = DEFAULT_LIMITS.fragments,
    close_timeout: float = 3.0,
) -> Limits:
    return replace(
        DEFAULT_LIMITS,
        message_size=message_size,
        fragments=fragments,
        close_timeout=close_timeout,
    )


def policy(heartbeat: Heartbeat | None = None, of: Limits | None = None) -> EffectivePolicy:
    return EffectivePolicy(
        auth=Anonymous(),
        authorize=None,
        origins="same-origin",
        heartbeat=heartbeat,
        limits=of or limits(),
        refuse_with="http",
    )


def new_session(*, jitter: float = 0.0) -> Session:
    return Session(
        ServerLimits(),
        now=T0,
        ping_payload=NONCE,
        wall=WALL,
        jitter=jitter,
        client=("192.0.2.7", 4711),
        scheme="https",
    )


def deciding(early: bytes = b"", *, subprotocols: str | None = None) -> Session:
    """Return a session whose verdict is still out, and whose request has been pulled."""
    session = new_session()
    session.receive_data(head(Sec_WebSocket_Protocol=subprotocols) + early, T0)
    assert isinstance(session.next_event(T0), UpgradeRequest)
    return session


def opened(
    heartbeat: Heartbeat | None = None, of: Limits | None = None, early: bytes = b""
) -> Session:
    """Return an open session whose 101 has been written."""
    session = deciding(early)
    session.accept(policy(heartbeat, of), subprotocol=None, now=T0)
    assert split_answer(session.data_to_send()).rest == b""
    return session


def pull_all(session: Session, now: float = T0, *, handled: bool = True) -> list[Event]:
    events: list[Event] = []
    while (event := session.next_event(now, handled=handled)) is not None:
        events.append(event)
    return events
