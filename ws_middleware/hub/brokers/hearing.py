"""Listening in the calling thread, where no socket is served and no loop is ours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from ws_middleware.errors import BrokerUnavailable

from .connections import FAILURES, connect

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from redis.connection import Connection

    from .addresses import Servers

__all__ = ["Heard", "Hearing"]

#: Seconds until Redis has confirmed what is listened to.
_PATIENCE: Final = 2.0


class Heard(NamedTuple):
    """What was published."""

    channel: str
    data: bytes


class Hearing:
    """One connection that is subscribed to channels, or to glob patterns of channels.

    Raises:
        BrokerUnavailable: it could not be had, or was lost; from each method.
    """

    def __init__(self, servers: Servers, names: Sequence[str], *, patterns: bool = False) -> None:
        self._servers = servers
        command = "PSUBSCRIBE" if patterns else "SUBSCRIBE"
        end = time.monotonic() + _PATIENCE
        try:
            self._connection: Connection = connect(servers, end)
            self._connection.send_command(command, *names, check_health=False)  # type: ignore[no-untyped-call]
        except FAILURES as error:
            raise self._lost(error) from error
        for _ in names:
            if self._read(end) is None:
                raise self._lost(TimeoutError(f"no answer in {_PATIENCE:g} s"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._connection.disconnect()  # type: ignore[no-untyped-call]

    def _lost(self, error: Exception) -> BrokerUnavailable:
        return BrokerUnavailable(f"Redis at {self._servers} cannot be listened to ({error})")

    def next(self, until: float) -> Heard | None:
        """Return the next message; `None` if none comes before `until`, on the monotonic clock."""
        while (answer := self._read(until)) is not None:
            kind, *rest = answer
            if kind in {b"message", b"pmessage"}:
                return Heard(rest[-2].decode(errors="replace"), rest[-1])
        return None

    def _read(self, until: float) -> Any:  # noqa: ANN401 - Redis' own lists
        left = max(until - time.monotonic(), 0.0)
        try:
            if not self._connection.can_read(timeout=left):
                return None
            return self._connection.read_response()
        except FAILURES as error:
            raise self._lost(error) from error
