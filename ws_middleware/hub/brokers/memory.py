"""A broker without a server: everything that shares a `Bus` hears each other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ws_middleware.errors import BrokerUnavailable
from ws_middleware.receipt import Receipt

if TYPE_CHECKING:
    from . import Subscriber

__all__ = ["Bus", "MemoryBroker"]


class Bus:
    """What memory brokers have in common; all of them on one loop."""

    def __init__(self) -> None:
        self.brokers: list[MemoryBroker] = []


class MemoryBroker:
    """The simplest thing that is a broker: see `Broker` for what each method does."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._subscriber: Subscriber | None = None
        self._channels: set[str] = set()

    def open(self, subscriber: Subscriber) -> None:
        """Begin."""
        self._subscriber = subscriber
        self._bus.brokers.append(self)
        self._soon_connected()

    def _soon_connected(self) -> None:
        assert self._subscriber is not None
        asyncio.get_running_loop().call_soon(self._subscriber.connected)

    def subscribe(self, channel: str) -> None:
        """Receive what is published on `channel`."""
        self._channels.add(channel)

    def unsubscribe(self, channel: str) -> None:
        """Receive no more of it."""
        self._channels.discard(channel)

    def publish(self, channel: str, data: bytes) -> Receipt[int | None]:
        """Hand it to all that have subscribed, in another turn of the loop."""
        if self not in self._bus.brokers:
            return Receipt.failed(BrokerUnavailable("the broker is closed"))
        loop = asyncio.get_running_loop()
        for broker in self._bus.brokers:
            loop.call_soon(broker._receive, channel, data)  # noqa: SLF001 - its own kind
        return Receipt.ready(sum(channel in each._channels for each in self._bus.brokers))  # noqa: SLF001

    def _receive(self, channel: str, data: bytes) -> None:
        if channel in self._channels and self._subscriber is not None:
            self._subscriber.received(channel, data)

    def rebuild(self) -> None:
        """Say so; there is nothing to rebuild."""
        assert self._subscriber is not None
        self._subscriber.lost(BrokerUnavailable("rebuilt"))
        self._soon_connected()

    async def close(self) -> None:
        """End."""
        self._subscriber = None
        if self in self._bus.brokers:
            self._bus.brokers.remove(self)
