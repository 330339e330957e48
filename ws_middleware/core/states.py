"""The life of one connection as a table. Rule: `Session` moves only by it, and nothing else moves.

CLOSING covers everything between "no more messages" and "the connection may go": a close frame
sent or answered, or a refusal written. With `Wants.EOF` nothing is parsed any more, but it is still
read and thrown away for a while: to close a socket with unread bytes sends a RST, and the peer
would lose the close frame that tells it why.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

__all__ = ["TABLE", "Did", "SessionStateError", "State", "Wants"]


class State(Enum):
    """Where a connection is in its life."""

    HEAD = auto()
    DECIDING = auto()
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


class Wants(Enum):
    """What the session wants of its transport."""

    #: Read, and give what comes.
    READ = auto()
    #: Don't read for now.
    HOLD = auto()
    #: Write what there is, end our half, and go on reading.
    EOF = auto()
    #: Let the connection go, now.
    ABORT = auto()


class Did(Enum):
    """What happened: the columns of the table."""

    COMPLETE_HEAD = auto()
    ACCEPT = auto()
    REFUSE = auto()
    SEND_CLOSE = auto()
    RECEIVE_CLOSE = auto()
    FAIL = auto()
    LOSE = auto()


TABLE: Final[dict[tuple[State, Did], tuple[State, Wants]]] = {
    (State.HEAD, Did.COMPLETE_HEAD): (State.DECIDING, Wants.READ),
    (State.HEAD, Did.REFUSE): (State.CLOSING, Wants.EOF),
    (State.HEAD, Did.LOSE): (State.CLOSED, Wants.ABORT),
    (State.DECIDING, Did.ACCEPT): (State.OPEN, Wants.READ),
    (State.DECIDING, Did.REFUSE): (State.CLOSING, Wants.EOF),
    (State.DECIDING, Did.LOSE): (State.CLOSED, Wants.ABORT),
    (State.OPEN, Did.SEND_CLOSE): (State.CLOSING, Wants.READ),
    (State.OPEN, Did.RECEIVE_CLOSE): (State.CLOSING, Wants.EOF),
    (State.OPEN, Did.FAIL): (State.CLOSING, Wants.EOF),
    (State.OPEN, Did.LOSE): (State.CLOSED, Wants.ABORT),
    (State.CLOSING, Did.RECEIVE_CLOSE): (State.CLOSING, Wants.EOF),
    (State.CLOSING, Did.FAIL): (State.CLOSING, Wants.EOF),
    (State.CLOSING, Did.LOSE): (State.CLOSED, Wants.ABORT),
}


class SessionStateError(RuntimeError):
    """A command came in a state that has no place for it: a fault of the caller."""
