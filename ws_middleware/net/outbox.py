"""Whole messages that wait for a peer whose transport takes no more, counted.

What becomes of one too many is the route's `slow` policy: the socket is closed, the oldest are
dropped, or only the newest ever waits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ws_middleware.config import Limits, Slow
    from ws_middleware.types import EncodedMessage

    Message = str | bytes | EncodedMessage

__all__ = ["Outbox"]


class Outbox:
    """One link's. Messages wait by reference: many links can wait for the same bytes.

    Raises, where one is put in:
        ValueError: a text holds a lone surrogate.
    """

    __slots__ = ("_limits", "_messages", "_slow", "bytes", "dropped")

    def __init__(self, limits: Limits, slow: Slow = "close") -> None:
        self._limits = limits
        self._slow = slow
        #: Each with its bytes.
        self._messages: deque[tuple[Message, int]] = deque()
        self.bytes = 0
        #: Messages that were dropped for newer ones.
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def may_drop(self) -> bool:
        """Whether messages are dropped rather than the socket closed."""
        return self._slow != "close"

    def put(self, message: Message, elsewhere: int) -> bool:
        """Add one, with `elsewhere` bytes waiting further on; False if the socket is to be closed.

        Where messages may be dropped, older ones make room; one that would not fit alone is dropped
        itself.
        """
        size = _size_of(message)
        if self._slow == "latest_only":
            self._drop(len(self._messages))
        while not self._fits(size, elsewhere):
            if not self.may_drop:
                return False
            if not self._messages:
                self.dropped += 1
                return True
            self._drop(1)
        self._messages.append((message, size))
        self.bytes += size
        return True

    def _fits(self, size: int, elsewhere: int) -> bool:
        return (
            len(self._messages) < self._limits.outbound_messages
            and self.bytes + elsewhere + size <= self._limits.outbound_bytes
        )

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self.take()
        self.dropped += count

    def take(self) -> Message:
        """Return the oldest; there must be one."""
        message, size = self._messages.popleft()
        self.bytes -= size
        return message

    def clear(self) -> None:
        """Forget all of it."""
        self._messages.clear()
        self.bytes = 0


def _size_of(message: Message) -> int:
    if isinstance(message, str) and not message.isascii():
        return len(message.encode())
    return len(message)
