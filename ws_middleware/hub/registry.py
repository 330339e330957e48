"""Who is connected on one event loop, by everything that can be sent to.

Touched by that loop's thread only; other threads may take `members`, which CPython hands out as
one atomic copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ws_middleware.types import Link

__all__ = ["Address", "Kind", "Member", "Registry"]


#: What can be sent to: "gap" is of this process alone, see `Member.closes_for_gap`.
Kind = Literal["room", "user", "everyone", "socket", "gap"]


class Address(NamedTuple):
    """A set of sockets: a room, a user's, everyone's, or one; of one route or (`None`) of all."""

    kind: Kind
    name: str = ""
    route: str | None = None


class Member(Protocol):
    """What the hub sees of a websocket."""

    @property
    def id(self) -> str:
        """Unique over all processes."""

    @property
    def link(self) -> Link:
        """Where its messages go."""

    @property
    def route_name(self) -> str:
        """The name of its route."""

    @property
    def user_id(self) -> str:
        """Empty for the anonymous."""

    @property
    def closes_for_gap(self) -> bool:
        """Whether it does not go on where messages of other processes may have been missed."""


class Watcher(Protocol):
    """Who wants to know which addresses anybody is at."""

    def __call__(self, address: Address, *, present: bool) -> None:
        """Hear that an address has its first member, or has none any more."""


class Registry:
    """An index from addresses to members, and back."""

    def __init__(self) -> None:
        self._members: dict[Address, dict[Member, None]] = {}
        self._addresses: dict[Member, set[Address]] = {}
        #: Told of each address that gets its first member here, or has lost its last.
        self.on_change: Watcher | None = None

    def __len__(self) -> int:
        return len(self._addresses)

    def __contains__(self, member: Member) -> bool:
        return member in self._addresses

    def add(self, member: Member) -> None:
        """Add an open socket."""
        if member in self._addresses:
            return
        self._addresses[member] = set()
        self._index(member, Address("socket", member.id))
        self._index_both(member, Address("everyone"))
        if member.user_id:
            self._index_both(member, Address("user", member.user_id))
        if member.closes_for_gap:
            self._index(member, Address("gap"))

    def remove(self, member: Member) -> None:
        """Remove a socket and everything it was in. Unknown ones are nothing."""
        for address in self._addresses.pop(member, ()):
            self._unindex(member, address)

    def join(self, member: Member, room: str) -> None:
        """Put a socket into a room; one that has left meanwhile joins nothing."""
        if member in self._addresses:
            self._index_both(member, Address("room", room))

    def leave(self, member: Member, room: str) -> None:
        """Take a socket out of a room."""
        for address in _both(member, Address("room", room)):
            if address in self._addresses.get(member, ()):
                self._addresses[member].discard(address)
                self._unindex(member, address)

    def members(self, address: Address) -> tuple[Member, ...]:
        """Return who is at `address`, in the order they came."""
        return tuple(self._members.get(address, ()))

    def count(self, address: Address) -> int:
        """Return how many are at `address`."""
        return len(self._members.get(address, ()))

    @property
    def addresses(self) -> Iterable[Address]:
        """Every address somebody is at."""
        return self._members.keys()

    def _index_both(self, member: Member, address: Address) -> None:
        for each in _both(member, address):
            self._index(member, each)

    def _index(self, member: Member, address: Address) -> None:
        if address in self._addresses[member]:
            return
        there = self._members.setdefault(address, {})
        there[member] = None
        self._addresses[member].add(address)
        if len(there) == 1 and self.on_change is not None:
            self.on_change(address, present=True)

    def _unindex(self, member: Member, address: Address) -> None:
        there = self._members[address]
        del there[member]
        if not there:
            del self._members[address]
            if self.on_change is not None:
                self.on_change(address, present=False)


def _both(member: Member, address: Address) -> tuple[Address, Address]:
    """Return the address on the member's route and the one that spans all routes."""
    return address._replace(route=member.route_name), address._replace(route=None)
