"""Publishing in the calling thread: for processes that serve no socket and have no loop of ours.

A task queue's worker or a script waits for the answer, or hears within two seconds that there is
none; nothing is left in a queue that nobody empties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from ws_middleware.errors import BrokerUnavailable

from .addresses import Servers

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["Post"]

#: Seconds for a connection, and for an answer: two seconds in all.
_PATIENCE: Final = 0.9


class Post:
    """Publishes over Redis. From any thread, and in children of a fork: redis-py sees to both."""

    def __init__(self, url: str) -> None:
        self._servers = Servers(url)
        self._client: Redis | None = None

    def __repr__(self) -> str:
        return f"<Post {self._servers}>"

    def publish(self, channel: str, data: bytes) -> None:
        """Publish, and wait until it has been taken.

        Raises:
            BrokerUnavailable: that is not certain; then it may have been.
        """
        client = self._client
        try:
            if client is None:
                client = self._client = self._servers.client(_PATIENCE)
            client.publish(channel, data)
        except (RedisError, OSError) as error:
            self._client = None  # the next may find another server
            msg = f"Redis at {self._servers} did not take the message ({error})"
            raise BrokerUnavailable(msg) from error
