"""What the servers that we run in have on the stack of the process: their objects, to be read.

What a server runs the loop from, or has taken a request with, we are called from. It is looked at
once, and only read; where nothing is found, nothing is claimed.
"""

from __future__ import annotations

import sys
from traceback import walk_stack
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["Found", "find_objects"]

#: Where these objects have the server's settings, or an object that has them.
_HOLDERS: Final = ("config", "cfg")


class Found(NamedTuple):
    """An object of a server's."""

    package: str
    value: object


def find_objects(packages: Collection[str]) -> Iterator[Found]:
    """Yield the objects of servers' on the stack of the caller, the innermost first.

    An object is followed by what it calls its configuration.
    """
    for frame, _ in walk_stack(sys._getframe()):  # noqa: SLF001 - it takes no other for the caller's
        package = _package(frame.f_globals.get("__name__"))
        if package in packages:
            for each in list(frame.f_locals.values()):
                if _package(type(each).__module__) in packages:
                    yield Found(package, each)
                    yield from (Found(package, held) for held in _held(each))


def _held(found: object) -> Iterator[object]:
    for name in _HOLDERS:
        held = getattr(found, name, None)
        if held is not None:
            yield held


def _package(module: object) -> str:
    return module.partition(".")[0] if isinstance(module, str) else ""
