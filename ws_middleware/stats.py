"""How this process is: numbers for people and machines, and whether it is ready for traffic."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from .hub.registry import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .fronts import Fronts
    from .hub.envelope import Ask
    from .hub.hub import Hub
    from .hub.registry import Member
    from .reach import Reach
    from .websocket import WebSocket

__all__ = ["Everywhere", "Readiness", "Report", "Stats"]

#: Statistics of one process, ready for JSON; docs/runbook.md lists the keys.
Stats = dict[str, Any]

#: Sockets that one process tells of, when it is asked who is there.
MOST_TOLD: Final = 200


@dataclass(frozen=True)
class Everywhere:
    """The statistics of all processes."""

    #: One for each, this one first.
    processes: tuple[Stats, ...]
    #: How many did not answer within 2 seconds; `None` where that is not known (Redis Cluster).
    missing: int | None


@dataclass(frozen=True)
class Readiness:
    """Whether new traffic should come to a process; true or false where a `bool` is asked for."""

    #: Why not, in words that docs/runbook.md lists; empty if it should.
    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.reasons


class Report:
    """What can be told of one process. From any thread."""

    def __init__(self, hub: Hub, fronts: Fronts, reach: Reach) -> None:
        self._hub = hub
        self._fronts = fronts
        self._reach = reach
        self._since = time.monotonic()

    def respond(self, ask: Ask) -> object:
        """Return what this process answers to another one."""
        if ask.question == "stats":
            return self.stats()
        address = ask.address or Address("everyone")
        if ask.question == "count":
            return self._hub.count(address)
        return self.who(address)

    # --- readiness ---------------------------------------------------------------------------

    def reasons(self) -> list[str]:
        """Return why no new traffic should come here, as words; none if it should.

        Where a broker is set this begins to connect to it: who is asked is about to serve.
        """
        return list(self._reasons())

    def _reasons(self) -> Iterator[str]:
        fronts = list(self._fronts)
        shut = {each.shut_with for each in fronts} - {None}
        yield from sorted(refusal.code for refusal in shut if refusal is not None)
        if any(front.is_closing for front in fronts):
            yield "draining"
        if self.is_stuck:
            yield "loop_blocked"
        bus = self._reach.connect()
        if bus is not None and not bus.is_ready:
            yield "broker_away"

    @property
    def is_stuck(self) -> bool:
        """Whether an event loop of ours does not turn."""
        return any(sidecar.is_blocked for sidecar in self._sidecars())

    # --- numbers -----------------------------------------------------------------------------

    def identity(self) -> Stats:
        """Return which process this is."""
        return {"node": self._hub.node, "pid": os.getpid(), "host": socket.gethostname()}

    def stats(self) -> Stats:
        """Return the statistics of this process."""
        counts, members = self._hub.counts, list(self._members())
        reasons = self.reasons()
        return {
            **self.identity(),
            "uptime": round(time.monotonic() - self._since, 1),
            "ready": not reasons,
            "reasons": reasons,
            "sockets": len(members),
            "users": len({each.user_id for each in members} - {""}),
            "rooms": len({room for each in members for room in each.rooms}),
            "routes": self._by_route(members),
            "undecided": sum(engine.gate.counts[0] for engine in self._engines()),
            "closed": counts.of("closed"),
            "refused": counts.of("refused"),
            "messages": self._messages(members),
            "broker": self._broker(),
            "threads": self._threads(),
            "loop_blocked": sum(sidecar.blocked for sidecar in self._sidecars()),
        }

    def _members(self) -> Iterator[WebSocket]:
        return self._hub.local(Address("everyone"))  # type: ignore[return-value]

    def _engines(self) -> Iterator[Any]:
        return (front.engine for front in self._fronts if front.engine is not None)

    def _sidecars(self) -> Iterator[Any]:
        return (front.sidecar for front in self._fronts if front.sidecar is not None)

    def _by_route(self, members: list[WebSocket]) -> dict[str, dict[str, int]]:
        opened = self._hub.counts.of("opened")
        routes = {name: {"sockets": 0, "opened": number} for name, number in opened.items()}
        for each in members:
            row = routes.setdefault(each.route_name, {"sockets": 0, "opened": 0})
            row["sockets"] += 1
        return routes

    def _messages(self, members: list[WebSocket]) -> dict[str, int]:
        """Return the messages of closed sockets and of open ones."""
        total = {"in": 0, "out": 0, "dropped": 0} | self._hub.counts.of("messages")
        for each in members:
            for direction, number in each.link.messages.items():
                total[direction] += number
        return total

    def _broker(self) -> dict[str, Any] | None:
        bus = self._hub.bus
        return None if bus is None else {"ready": bus.is_ready, "counts": dict(bus.counts)}

    def _threads(self) -> dict[str, dict[str, int]]:
        total: dict[str, dict[str, int]] = {}
        for engine in self._engines():
            for name, group in engine.threads.items():
                row = total.setdefault(name, {"busy": 0, "waiting": 0, "size": 0})
                row["busy"] += group.busy
                row["waiting"] += group.waiting
                row["size"] += group.size
        return total

    # --- who ---------------------------------------------------------------------------------

    def who(self, address: Address) -> Stats:
        """Return the sockets of this process at `address`, at most 200 of them."""
        members = islice(self._hub.local(address), MOST_TOLD)
        return {
            **self.identity(),
            "sockets": [_describe(each) for each in members],
            "count": self._hub.count(address),
        }


def _describe(member: Member) -> dict[str, Any]:
    websocket: WebSocket = member  # type: ignore[assignment]
    client = websocket.request.client
    return {
        "id": websocket.id,
        "route": websocket.route_name,
        "user": websocket.user_id,
        "rooms": sorted(websocket.rooms),
        "peer": None if client is None else client[0],
        **websocket.link.messages,
    }
