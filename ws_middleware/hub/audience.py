"""A set of sockets to send to. Cheap to make, safe to keep, callable from any thread."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

from ws_middleware.codec import dump_json
from ws_middleware.codes import check_close
from ws_middleware.types import EncodedMessage

if TYPE_CHECKING:
    from ws_middleware.receipt import Receipt

    from .hub import Sent
    from .registry import Address, Member

__all__ = ["Audience", "Excluded"]

MemberT = TypeVar("MemberT")

#: Who not to send to: a socket, the id of one, or several of these.
Excluded = object


class Sender(Protocol):
    """The part of the hub that an audience uses."""

    def send(
        self, address: Address, message: EncodedMessage, exclude: frozenset[str]
    ) -> Receipt[Sent]:
        """Send to all at `address` but `exclude`."""

    def close(self, address: Address, code: int, reason: str, over: float) -> Receipt[Sent]:
        """Close all at `address`."""

    def count(self, address: Address) -> int:
        """Return how many of this process are at `address`."""

    def local(self, address: Address) -> Iterator[Member]:
        """Yield those of this process at `address`."""


class Audience(Generic[MemberT]):
    """Some sockets: a room, a user's tabs, everyone.

    Every call acts at once and never waits for a client. The receipt of a send or a close tells how
    many sockets of this process it went to (`Sent.local`); nobody has to wait for it.
    """

    __slots__ = ("_address", "_hub")

    def __init__(self, hub: Sender, address: Address) -> None:
        self._hub = hub
        self._address = address

    def send(self, message: str | bytes, *, exclude: Excluded = None) -> Receipt[Sent]:
        """Send a text (`str`) or binary (`bytes`) message; it is encoded once for all.

        Args:
            message: what to send.
            exclude: a websocket, the id of one, or a collection of these, to leave out.

        Raises:
            TypeError: the message or `exclude` is of another type.
            ValueError: a text holds a lone surrogate.
            MessageTooBig: it is over the `Limits.outbound_bytes` of the route.
        """
        return self._hub.send(self._address, EncodedMessage(message), _ids(exclude))

    def send_json(self, value: object, *, exclude: Excluded = None) -> Receipt[Sent]:
        """Send `value` as JSON text.

        Raises:
            TypeError: it holds what JSON has no form for.
            ValueError: it holds a NaN or an infinity.
        """
        return self.send(dump_json(value), exclude=exclude)

    def close(self, code: int = 1000, reason: str = "", *, over: float = 0.0) -> Receipt[Sent]:
        """Close every socket, spread over `over` seconds so that they don't come back at once.

        Raises:
            ValueError: `code` or `reason` may not be sent (RFC 6455 section 7.4).
        """
        check_close(code, reason)
        return self._hub.close(self._address, code, reason, over)

    def count(self) -> int:
        """Return how many sockets of this process it has."""
        return self._hub.count(self._address)

    def local(self) -> Iterator[MemberT]:
        """Yield its websockets of this process, as they were when asked."""
        return cast("Iterator[MemberT]", self._hub.local(self._address))

    def __repr__(self) -> str:
        return f"<Audience {':'.join(part for part in self._address if part)}>"


def _ids(exclude: object) -> frozenset[str]:
    if exclude is None:
        return frozenset()
    if isinstance(exclude, str):
        return frozenset((exclude,))
    if isinstance(exclude, Collection):
        return frozenset().union(*(_ids(each) for each in exclude))
    found = getattr(exclude, "id", None)
    if not isinstance(found, str):
        msg = f"exclude takes a websocket, its id, or several of these, not {exclude!r}"
        raise TypeError(msg)
    return frozenset((found,))
