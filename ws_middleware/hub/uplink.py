"""On which loop of a process its bus lives, and who tells it what the sockets want to hear.

The first loop that offers a home has it. When that loop ends the next one gets a bus of its own:
what others sent in between is a gap, and said to be one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ws_middleware.native import Lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from .bus import Bus
    from .registry import Registry

__all__ = ["Branch", "Uplink"]


class Branch(Protocol):
    """One event loop that serves sockets, as far as a bus looks at it."""

    registry: Registry

    def run(self, action: Callable[[], object]) -> bool:
        """Run `action` on the loop: now if this is its thread, else soon. False if it has ended."""

    def later(self, delay: float, action: Callable[[], object]) -> object:
        """Run `action` after `delay` seconds; on the loop."""


class Uplink:
    """The bus of a process, if it has one. From any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._branches: tuple[Branch, ...] = ()
        self._homes: dict[Branch, Callable[[], Bus]] = {}
        self._home: Branch | None = None
        self._has_moved = False
        self.bus: Bus | None = None

    def attach(self, branch: Branch) -> None:
        """Let the bus hear what the sockets of a loop want to hear."""
        with self._lock:
            self._branches = (*self._branches, branch)
            bus = self.bus
        self._introduce(branch, bus)

    def detach(self, branch: Branch) -> None:
        """A loop has ended, and with it all that its sockets wanted to hear."""
        with self._lock:
            self._branches = tuple(each for each in self._branches if each is not branch)
            bus = self.bus
        known = branch.registry.on_change
        branch.registry.on_change = None
        if bus is not None and known == bus.note:
            for address in branch.registry.addresses:
                bus.note(address, present=False)

    def _introduce(self, branch: Branch, bus: Bus | None) -> None:
        """Tell a bus where a loop's sockets are, now and from now on."""

        def act() -> None:
            if bus is not self.bus:  # moved on meanwhile; that one is told by itself
                return
            branch.registry.on_change = None if bus is None else bus.note
            if bus is not None:
                for address in branch.registry.addresses:
                    bus.note(address, present=True)

        branch.run(act)

    # --- where it lives ----------------------------------------------------------------------

    def offer(self, branch: Branch, make: Callable[[], Bus]) -> None:
        """Offer a loop as its home, now or when the others have ended."""
        with self._lock:
            self._homes[branch] = make
            found = self._settle() if self.bus is None else None
        self._move_in(found)

    def withdraw(self, branch: Branch) -> Bus | None:
        """A loop ends; return the bus that lived there, which is to be closed by its own loop."""
        with self._lock:
            self._homes.pop(branch, None)
            if self._home is not branch:
                return None
            left, self.bus, self._home = self.bus, None, None
            found = self._settle()
        self._move_in(found)
        return left

    def _settle(self) -> Bus | None:
        """Make a bus for the first home there is; under the lock."""
        for branch, make in self._homes.items():
            self._home, self.bus = branch, make()
            if self._has_moved:
                self.bus.begin_with_gap()
            self._has_moved = True
            return self.bus
        return None

    def _move_in(self, bus: Bus | None) -> None:
        home = self._home
        if bus is None or home is None:
            return
        # In another turn: a loop that has not begun yet is a home, too.
        home.run(lambda: home.later(0, bus.open))
        for branch in self._branches:
            self._introduce(branch, bus)
