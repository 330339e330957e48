"""What a link does for its websocket and for the hub, whoever owns the bytes of its connection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from ws_middleware.errors import ConnectionClosed
from ws_middleware.receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws_middleware.types import EncodedMessage
    from ws_middleware.websocket import WebSocket

    from .runtime import Runtime

__all__ = ["HubLink"]


class Out(Protocol):
    """What waits for a peer."""

    @property
    def dropped(self) -> int:
        """How many messages were dropped for newer ones."""

    @property
    def may_drop(self) -> bool:
        """Whether one message too many costs messages, and not the socket. From any thread."""

    @property
    def waiting(self) -> tuple[int, int]:
        """How many bytes and how many messages wait."""

    def drop(self) -> None:
        """Forget the messages that wait."""

    def drop_one(self) -> None:
        """Count a message that did not even get here."""

    def drained(self) -> Receipt[None] | None:
        """Return a receipt for when little waits; `None` if that is so."""


class HubLink(ABC):
    """The base of the links (`types.Connection`). On its runtime's loop, unless said otherwise."""

    #: The sending side.
    out: Out

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        #: Whether the calling thread is the loop's. From any thread.
        self.is_current = runtime.is_current
        #: What the engine has under way for it, to be dropped when the connection is lost.
        self.on_lost: Callable[[], None] | None = None
        #: Messages, for the log.
        self.taken = 0
        self.sent = 0
        self._websocket: WebSocket | None = None
        self._gone: list[Receipt[None]] = []

    # --- what each does in its own way -------------------------------------------------------

    @property
    @abstractmethod
    def is_gone(self) -> bool:
        """Whether the connection is lost."""

    @abstractmethod
    def close(self, code: int, reason: str, why: str | None = None) -> None:
        """Start the closing handshake, after all that was sent before. `why` is for the log."""

    @abstractmethod
    def _take(self, message: str | bytes | EncodedMessage) -> bool:
        """Queue a message; False if the socket has ended, or ends because this is too much."""

    # --- sending -----------------------------------------------------------------------------

    def run(self, action: Callable[[], None]) -> bool:
        """Run `action` on the loop; False if it has ended. From any thread."""
        return self.runtime.run(action)

    def send(self, message: str | bytes | EncodedMessage) -> Receipt[None] | None:
        """Queue a message; a receipt if the peer, or the turn, has enough for now."""
        if not self._take(message):
            return Receipt.failed(self._ended())
        return self.out.drained()

    def deliver(self, message: EncodedMessage) -> None:
        """Queue a message from the hub, where nobody waits."""
        self._take(message)

    def _ended(self) -> ConnectionClosed:
        websocket = self._websocket
        if websocket is not None and websocket.close_code is not None:
            return ConnectionClosed(websocket.close_code, websocket.close_reason)
        return ConnectionClosed(1006)

    # --- a peer that does not keep up --------------------------------------------------------

    @property
    def messages(self) -> dict[str, int]:
        """How many messages there have been, by direction. From any thread."""
        return {"in": self.taken, "out": self.sent, "dropped": self.dropped}

    @property
    def dropped(self) -> int:
        """Messages that a slow peer missed, by its route's policy."""
        return self.out.dropped

    @property
    def may_drop(self) -> bool:
        """Whether a peer that does not keep up misses messages, and is not closed."""
        return self.out.may_drop

    def too_slow(self) -> None:
        """The peer does not keep up: one message is dropped; or all that waits, and it is told."""
        if self.out.may_drop:
            self.out.drop_one()
            return
        size, count = self.out.waiting
        self.out.drop()
        why = f"slow_consumer: {size} bytes in {count} messages waiting"
        self.close(1013, "slow_consumer", why=why)

    # --- rooms, and the end ------------------------------------------------------------------

    def join(self, room: str) -> None:
        """Put the socket into a room."""
        if self._websocket is not None:
            self.runtime.registry.join(self._websocket, room)

    def leave(self, room: str) -> None:
        """Take it out."""
        if self._websocket is not None:
            self.runtime.registry.leave(self._websocket, room)

    def when_gone(self, receipt: Receipt[None]) -> None:
        """Resolve `receipt` when the connection is gone."""
        if self.is_gone:
            receipt.resolve(None)
        else:
            self._gone.append(receipt)

    def _tell_gone(self) -> None:
        """Give back what the engine holds for it, and tell who waits that it is gone."""
        if self.on_lost is not None:
            self.on_lost()
        gone, self._gone = self._gone, []
        for receipt in gone:
            receipt.resolve(None)
