"""Pings and pongs of one connection that are not written yet, bounded (RFC 6455 section 5.5.3)."""

from __future__ import annotations

import struct
from typing import Final

from .encoding import encode_ping, encode_pong

__all__ = ["Pings"]

#: Pings that may be unanswered and still be timed; a peer that answers none is soon dead.
_UNANSWERED: Final = 16


class Pings:
    """Ours that wait to be sent or answered, and answers to theirs.

    `nonce` makes our payloads unpredictable, so that an answer proves that the ping was read.
    """

    __slots__ = ("_count", "_nonce", "_pongs", "_sent", "_unsent", "are_unsent")

    def __init__(self, nonce: bytes) -> None:
        self._nonce = nonce
        self._count = 0
        self._unsent: bytes | None = None
        self._sent: dict[bytes, float] = {}
        self._pongs: list[bytes] = []
        #: Whether there is a ping, or a pong, to be sent.
        self.are_unsent = False

    def ping(self, now: float) -> bytes:
        """Make a ping and return its payload; while one waits unsent, that one's."""
        if self._unsent is None:
            self._count += 1
            self._unsent = self._nonce + struct.pack("!I", self._count & 0xFFFFFFFF)
            if len(self._sent) >= _UNANSWERED:
                del self._sent[next(iter(self._sent))]
            self._sent[self._unsent] = now
            self.are_unsent = True
        return self._unsent

    def ponged(self, payload: bytes, now: float) -> list[tuple[bytes, float]]:
        """Return what `payload` answers, oldest first: pings of ours, with the seconds since then.

        A peer may answer only the newest of several pings (RFC 6455 section 5.5.3), so its pong
        answers those before it as well. One that answers none of ours is nothing.
        """
        answered: list[tuple[bytes, float]] = []
        if payload in self._sent:
            while not answered or answered[-1][0] != payload:
                oldest = next(iter(self._sent))
                answered.append((oldest, now - self._sent.pop(oldest)))
        return answered

    def pinged(self, payload: bytes) -> None:
        """The peer wants an answer."""
        self._pongs.append(payload)
        self.are_unsent = True

    def keep_newest(self) -> None:
        """Answer, of the pings that could not be answered so far, only the newest."""
        del self._pongs[:-1]

    def take_pongs(self) -> list[bytes]:
        """Return the frames of our answers and forget them."""
        frames = [encode_pong(payload) for payload in self._pongs]
        self._pongs.clear()
        self.are_unsent = self._unsent is not None
        return frames

    def take_ping(self) -> list[bytes]:
        """Return the frame of the ping that waits, if there is one, and forget it."""
        frames = [] if self._unsent is None else [encode_ping(self._unsent)]
        self._unsent = None
        self.are_unsent = bool(self._pongs)
        return frames

    def drop(self) -> None:
        """Send none of it: a close frame is on its way, or nothing is."""
        self._unsent = None
        self._pongs.clear()
        self.are_unsent = False
