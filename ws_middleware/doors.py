"""Doors, the servers behind them, and who keeps a setting there: the words of `door_table`.

Where the bytes are a server's, some settings are its own to keep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

__all__ = ["Cell", "Door", "Row", "Server", "Who"]


class Door(Enum):
    """What a connection comes through. The values are for people."""

    OWN_PORT = "own port"
    WSGI = "WSGI"
    UVICORN_OURS = "uvicorn with our class"
    UVICORN = "uvicorn"
    HYPERCORN = "hypercorn"
    DAPHNE = "daphne"
    GRANIAN = "granian"
    GUNICORN = "gunicorn asgi"
    OTHER = "another ASGI server"


@dataclass(frozen=True)
class Server:
    """What is known of a server behind a door. `setting` reads one of its own; `None`: unknown."""

    door: Door
    name: str
    setting: Callable[[str], Any] = lambda _: None


class Who(Enum):
    """Whose it is to keep a setting."""

    OURS = "ours"
    #: By an option of its own, or, where it has none, as it was made.
    SERVERS = "the server's own"
    NOBODYS = "no"
    #: What it is about does not happen there.
    NEEDLESS = "-"


Holds = Callable[[Any, Any], bool]


@dataclass(frozen=True)
class Cell:
    """Who keeps one setting behind one door, and how it is told there."""

    who: Who
    #: The server's own, as it is written.
    option: str = ""
    #: What to know, for docs/settings.md.
    note: str = ""
    #: What a warning says besides, and in the place of the row's `why`.
    remedy: str = ""
    why: str = ""
    #: A value of ours as the option has it; "" if there is no such translation.
    write: Callable[[Any], str] = lambda _: ""
    #: Whether a value holds in effect, beside a bound of the server's own.
    holds: Holds | None = None
    #: The server's name for that bound.
    setting: str = ""
    #: The bound, where it cannot be read.
    bound: Any = None

    def keeps(self, value: object, server: Server) -> bool:
        """Whether a value of ours holds here, whoever sees to it."""
        if self.holds is None:
            return self.who in {Who.OURS, Who.NEEDLESS}
        bound = server.setting(self.setting) if self.setting else None
        return self.holds(value, self.bound if bound is None else bound)


@dataclass(frozen=True)
class Row:
    """One setting: `why` a server keeps it, of its own accord or not at all; and its cells."""

    why: str
    cells: dict[Door, Cell]
    #: What is different for guards.
    guard: str = ""
    #: Of several values, where a server has but one, the largest counts; else the smallest.
    is_largest: bool = False

    def pick(self, values: Iterable[Any]) -> Any:  # noqa: ANN401 - of any setting
        """Return the value that counts."""
        return (max if self.is_largest else min)(values, key=_size)


def _size(value: object) -> float:
    """Return how large a value is; `None` is no limit, and a word has no size."""
    return math.inf if value is None else value if isinstance(value, (int, float)) else 0
