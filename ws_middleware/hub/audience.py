"""A set of sockets to send to. Cheap to make, safe to keep, callable from any thread."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

from ws_middleware.codec import dump_json
from ws_middleware.codes import check_close
from ws_middleware.names import Name, as_name
from ws_middleware.types import EncodedMessage

from .registry import Address

if TYPE_CHECKING:
    from ws_middleware.receipt import Receipt

    from .hub import Sent
    from .registry import Kind, Member

__all__ = ["Audience", "Audiences", "Excluded", "RouteAudiences"]

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

    def count_everywhere(self, address: Address) -> Receipt[int]:
        """Return how many of all processes are at `address`."""

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

    def count_everywhere(self) -> Receipt[int]:
        """Return how many sockets it has in all processes; the receipt has it within 2 seconds.

        It fails with `BrokerUnavailable` where a process cannot be asked or does not answer: then
        nobody knows the number. Over a Redis Cluster, which cannot tell how many have heard the
        question, it is the number of those who have answered in 2 seconds.

        Raises:
            BrokerRequired: there are other processes, and no broker between them.
        """
        return self._hub.count_everywhere(self._address)

    def local(self) -> Iterator[MemberT]:
        """Yield its websockets of this process, as they were when asked."""
        return cast("Iterator[MemberT]", self._hub.local(self._address))

    def __repr__(self) -> str:
        return f"<Audience {':'.join(part for part in self._address if part)}>"


class RouteAudiences(Generic[MemberT]):
    """What can be sent to: of one route, where `_route_name` names it, else of all."""

    _hub: Sender
    _route_name: str | None = None

    def room(self, name: Name) -> Audience[MemberT]:
        """Return the sockets, of this route or of all, that are in a room.

        Raises:
            TypeError, ValueError: it is no name for a room.
        """
        return self._audience("room", as_name(name, "room"))

    def user(self, id: Name) -> Audience[MemberT]:  # noqa: A002 - what it is
        """Return the sockets, of this route or of all, that belong to a user: every tab.

        Raises:
            TypeError, ValueError: it is no id of a user.
        """
        return self._audience("user", as_name(id, "user id"))

    @property
    def everyone(self) -> Audience[MemberT]:
        """All sockets, of this route or of all."""
        return self._audience("everyone", "")

    def _audience(self, kind: Kind, name: str) -> Audience[MemberT]:
        return Audience(self._hub, Address(kind, name, self._route_name))


class Audiences(RouteAudiences[MemberT]):
    """What can be sent to over all routes."""

    def socket(self, id: str) -> Audience[MemberT]:  # noqa: A002 - what it is
        """Return the one socket with this id, if it is there.

        Raises:
            TypeError, ValueError: it is no id of a socket.
        """
        return self._audience("socket", as_name(id, "socket id"))


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
