"""What one process tells the others: what to do, and on which channel it is said.

How it is written is in `wire`. Sans-IO, and without a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from ws_middleware.types import EncodedMessage

if TYPE_CHECKING:
    from .registry import Address

__all__ = [
    "Action",
    "Answer",
    "Ask",
    "Beat",
    "Close",
    "Envelope",
    "Question",
    "channel_of",
    "every_node_channel",
    "node_channel",
    "node_of",
]

#: What stays readable in a channel's name; a colon divides its parts.
_SAFE: Final = "/*@+=,;!$&'()"

#: What one process may ask all others: how many sockets, which ones, or how it is.
Question = Literal["count", "who", "stats"]


@dataclass(frozen=True)
class Close:
    """Close the sockets, spread over `over` seconds."""

    code: int
    reason: str
    over: float = 0.0


@dataclass(frozen=True)
class Beat:
    """A sign of life that a process sends to itself."""

    number: int


@dataclass(frozen=True)
class Ask:
    """A question to every process; each answers on the channel of the node that asks."""

    #: What the answers will have, too; unique for the node.
    id: str
    question: Question
    #: Whose sockets are meant, where sockets are.
    address: Address | None = None


@dataclass(frozen=True)
class Answer:
    """What one process answers; `value` is any JSON."""

    id: str
    value: Any


Action = EncodedMessage | Close | Beat | Ask | Answer


@dataclass(frozen=True)
class Envelope:
    """One thing to do at the address that the channel stands for."""

    #: A message to deliver, what to close with, a question, an answer, or nothing but life.
    action: Action
    #: Ids of sockets to leave out.
    exclude: frozenset[str] = frozenset()
    #: Who sent it, empty for an outsider; a node drops its own.
    node: str = ""
    #: The one socket that is meant, on a node's channel.
    socket: str = ""

    def to(self, address: Address, node: str = "") -> Envelope:
        """Return it as `node` sends it to `address`: what the channel does not say is in it."""
        return replace(self, node=node, socket=address.name if address.kind == "socket" else "")


# --- channels ------------------------------------------------------------------------------------


def channel_of(prefix: str, address: Address) -> str:
    """Return the channel of an address: `prefix:room:ROUTE:NAME`, ROUTE empty for all routes.

    A socket is reached on the channel of its node.
    """
    if address.kind == "socket":
        return node_channel(prefix, node_of(address.name))
    parts = [prefix, address.kind, quote(address.route or "", safe=_SAFE)]
    if address.name:
        parts.append(quote(address.name, safe=_SAFE))
    return ":".join(parts)


def node_channel(prefix: str, node: str) -> str:
    """Return the channel that one process listens to for itself."""
    return f"{prefix}:node:{quote(node, safe=_SAFE)}"


def every_node_channel(prefix: str) -> str:
    """Return the channel that every process listens to, for questions."""
    return f"{prefix}:nodes"


def node_of(socket_id: str) -> str:
    """Return the node that a socket's id begins with."""
    return socket_id.partition("-")[0]
