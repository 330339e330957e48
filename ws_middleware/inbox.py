"""Messages of one socket that its handler has not taken, counted."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import Limits

__all__ = ["Inbox"]


class Inbox:
    """Messages received and not yet taken, bounded. Touched by the link's loop only."""

    __slots__ = (
        "_bytes",
        "_most",
        "_most_bytes",
        "discarding",
        "in_hand",
        "is_full",
        "messages",
        "on_message",
    )

    def __init__(self, limits: Limits) -> None:
        self._most = limits.inbound_messages
        self._most_bytes = limits.inbound_bytes
        self.messages: deque[str | bytes] = deque()
        self._bytes = 0
        #: Whether reading has to wait.
        self.is_full = False
        self.discarding = False
        #: Whether the handler has taken a message and has not come back for more.
        self.in_hand = False
        #: Called when a message has come or none will.
        self.on_message: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def is_handled(self) -> bool:
        """Whether everything that came has been dealt with."""
        return not self.messages and not self.in_hand

    def put(self, message: str | bytes) -> bool:
        """Add one, unless all are thrown away; return whether it was added."""
        if self.discarding:
            return False
        self.messages.append(message)
        self._bytes += len(message)
        if len(self.messages) >= self._most or self._bytes >= self._most_bytes:
            self.is_full = True
        if self.on_message is not None:
            self.on_message()
        return True

    def take(self) -> str | bytes:
        """Return the oldest; there must be one."""
        message = self.messages.popleft()
        self._bytes -= len(message)
        if self.is_full:
            self.is_full = len(self.messages) >= self._most or self._bytes >= self._most_bytes
        self.in_hand = True
        return message

    def clear(self) -> None:
        """Forget all of it."""
        self.messages.clear()
        self._bytes = 0
        self.is_full = False
