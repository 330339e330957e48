"""Whole messages that wait for a peer whose transport takes no more, counted."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ws_middleware.types import EncodedMessage

if TYPE_CHECKING:
    from ws_middleware.config import Limits

__all__ = ["Outbox"]


class Outbox:
    """One link's. Messages wait by reference: many links can wait for the same bytes."""

    __slots__ = ("_limits", "_messages", "bytes")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._messages: deque[EncodedMessage] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: str | bytes | EncodedMessage, elsewhere: int) -> bool:
        """Add one; False if it is over the limits, with `elsewhere` bytes waiting further on."""
        encoded = message if isinstance(message, EncodedMessage) else EncodedMessage(message)
        waiting = self.bytes + elsewhere + len(encoded)
        full = len(self._messages) >= self._limits.outbound_messages
        if full or waiting > self._limits.outbound_bytes:
            return False
        self._messages.append(encoded)
        self.bytes += len(encoded)
        return True

    def take(self) -> EncodedMessage:
        """Return the oldest; there must be one."""
        message = self._messages.popleft()
        self.bytes -= len(message)
        return message

    def clear(self) -> None:
        """Forget all of it."""
        self._messages.clear()
        self.bytes = 0
