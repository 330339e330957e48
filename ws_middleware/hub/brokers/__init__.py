"""What carries messages between processes: the few methods that a broker needs, and those we have.

A broker moves bytes on named channels, at most once and in the order of each publisher. It knows
nothing of sockets, rooms or envelopes. All of it happens on one event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ws_middleware.receipt import Receipt

__all__ = ["Broker", "Subscriber"]


class Subscriber(Protocol):
    """Who is told what comes. Called on the broker's loop; none of these waits or raises."""

    def received(self, channel: str, data: bytes) -> None:
        """Take what was published on a channel that is subscribed to."""

    def connected(self) -> None:
        """Hear that all channels are subscribed to, from now on."""

    def lost(self, error: Exception) -> None:
        """Hear that nothing is received any more, until `connected` is called again."""


class Broker(Protocol):
    """What to write to have another broker. Every call returns at once, but for `close`.

    A server that is away is no exception: a broker tries again by itself, and says so to its
    subscriber. After `connected` everything that is published anywhere on a subscribed channel is
    received, once, until `lost`; what is published between the two is not received later.
    """

    def open(self, subscriber: Subscriber) -> None:
        """Begin, on the running loop."""

    def subscribe(self, channel: str) -> None:
        """Receive what is published on `channel`, soon. Doing it twice is nothing."""

    def unsubscribe(self, channel: str) -> None:
        """Receive no more of it. Unknown ones are nothing."""

    def publish(self, channel: str, data: bytes) -> Receipt[int | None]:
        """Publish after all that was published before; the receipt says when it has been taken.

        Its value is how many subscribers it went to, or `None` where the broker cannot tell. It
        fails with `BrokerUnavailable` where that is not certain; then it may have been.
        """

    def rebuild(self) -> None:
        """Drop what is received on and begin it anew: it has gone deaf."""

    async def close(self) -> None:
        """End within a second; what waits is tried, and then fails."""
