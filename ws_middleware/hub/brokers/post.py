"""Telling other processes in the calling thread, where no socket is served and no loop is ours.

A task queue's worker or a script waits for the answer, or hears within two seconds that there is
none; nothing is left in a queue that nobody empties.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from ws_middleware.errors import BrokerUnavailable
from ws_middleware.hub.envelope import channel_of, write

from .addresses import Servers

if TYPE_CHECKING:
    from redis import Redis

    from ws_middleware.hub.envelope import Envelope
    from ws_middleware.hub.registry import Address

__all__ = ["Post"]

#: Seconds for a connection, and for an answer: two seconds in all.
_PATIENCE: Final = 0.9


class Post:
    """Publishes over Redis. From any thread, and in children of a fork: redis-py sees to both."""

    def __init__(self, url: str, prefix: str, secret: bytes | None) -> None:
        self._servers = Servers(url)
        self._prefix = prefix
        self._secret = secret
        self._client: Redis | None = None

    def __repr__(self) -> str:
        return f"<Post {self._servers}>"

    def send(self, address: Address, envelope: Envelope) -> None:
        """Publish, and wait until it has been taken.

        Raises:
            BrokerUnavailable: that is not certain; then it may have been.
        """
        channel = channel_of(self._prefix, address)
        named = envelope.to(address)
        data = write(named, channel=channel, now=time.time(), secret=self._secret)
        client = self._client
        try:
            if client is None:
                client = self._client = self._servers.client(_PATIENCE)
            client.publish(channel, data)
        except (RedisError, OSError) as error:
            self._client = None  # the next may find another server
            msg = f"Redis at {self._servers} did not take the message ({error})"
            raise BrokerUnavailable(msg) from error
