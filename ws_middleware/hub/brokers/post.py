"""Telling other processes in the calling thread, where no socket is served and no loop is ours.

A task queue's worker or a script waits for the answer, or hears within two seconds that there is
none; nothing is left in a queue that nobody empties.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from redis.exceptions import ResponseError

from ws_middleware.errors import BrokerUnavailable
from ws_middleware.hub.envelope import channel_of
from ws_middleware.hub.wire import write

from .addresses import Servers
from .connections import FAILURES, connect, limit

if TYPE_CHECKING:
    from redis.connection import Connection

    from ws_middleware.hub.envelope import Envelope
    from ws_middleware.hub.registry import Address

__all__ = ["Post"]

#: Seconds for a connection and the answer.
_PATIENCE: Final = 1.9
#: Connections that are kept for the next send: as many threads may send at once without new ones.
_KEPT: Final = 8


class Post:
    """Publishes over Redis. From any thread, and in children of a fork."""

    def __init__(self, url: str, prefix: str, secret: bytes | None) -> None:
        self._servers = Servers(url)
        self._prefix = prefix
        self._secret = secret
        self._kept: deque[Connection] = deque()

    def __repr__(self) -> str:
        return f"<Post {self._servers}>"

    def send(self, address: Address, envelope: Envelope) -> int | None:
        """Publish, and wait until it has been taken.

        Returns how many connections it went to, `None` where no one server knows.

        Raises:
            BrokerUnavailable: that is not certain; then it may have been.
        """
        return self.publish(channel_of(self._prefix, address), envelope.to(address))

    def publish(self, channel: str, envelope: Envelope) -> int | None:
        """Do the same on any channel."""
        data = write(envelope, channel=channel, now=time.time(), secret=self._secret)
        try:
            heard = self._tell(channel, data)
        except FAILURES as error:
            msg = f"Redis at {self._servers} did not take the message ({error})"
            raise BrokerUnavailable(msg) from error
        return None if self._servers.is_cluster else heard

    def _tell(self, channel: str, data: bytes) -> int:
        until = time.monotonic() + _PATIENCE
        kept = self._take()
        connection = kept or connect(self._servers, until)
        try:
            limit(connection, until)
            if kept is not None:
                _greet(connection)
            connection.send_command("PUBLISH", channel, data, check_health=False)  # type: ignore[no-untyped-call]
            heard = int(connection.read_response())
        except ResponseError:
            self._keep(connection)
            raise
        except BaseException:  # its answer may still come, and would be taken for the next one's
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        self._keep(connection)
        return heard

    def _take(self) -> Connection | None:
        """Return a connection that is kept, if one still lives."""
        while self._kept:
            try:
                connection = self._kept.pop()
            except IndexError:  # another thread was faster
                return None
            if connection.pid != os.getpid():  # of the parent, which goes on with it
                continue
            try:
                if not connection.can_read():
                    return connection
            except FAILURES:
                pass
            connection.disconnect()  # type: ignore[no-untyped-call]
        return None

    def _keep(self, connection: Connection) -> None:
        if len(self._kept) < _KEPT:
            self._kept.append(connection)
        else:
            connection.disconnect()  # type: ignore[no-untyped-call]


def _greet(connection: Connection) -> None:
    """Hear that the server answers, before it is given anything; about 60 us on one machine.

    What is sent to one that hangs lies in its kernel's buffer and is carried out when it goes on:
    by then the send has failed, and whoever tries again sends it twice.
    """
    connection.send_command("HELLO", check_health=False)  # type: ignore[no-untyped-call]
    with contextlib.suppress(ResponseError):  # older than Redis 6: an answer, too
        connection.read_response()
