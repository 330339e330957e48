"""Whether the ASGI server that we run in has other worker processes, for ASGI does not say.

Every server that has several keeps the number in an object of its own, and that object is on the
stack of the process: what it runs the loop from, we are called from. It is looked at once, and only
read; where nothing is found, nothing is claimed.
"""

from __future__ import annotations

import multiprocessing
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["has_siblings"]

#: Packages of servers that start their workers by `multiprocessing`: in another process their
#: number is a wish, such as WEB_CONCURRENCY, that nobody has fulfilled.
_BY_MULTIPROCESSING: Final = frozenset({"uvicorn", "hypercorn", "granian"})
#: That one forks by itself.
_BY_FORK: Final = "gunicorn"

#: Where these objects have the number, or an object that has it.
_HOLDERS: Final = ("config", "cfg")
_NUMBERS: Final = ("workers", "num_workers")


def has_siblings() -> bool:
    """Whether a server on the stack of the caller has started more workers than one."""
    return max(_numbers(sys._getframe()), default=1) > 1  # noqa: SLF001 - there is no other way


def _numbers(frame: FrameType | None) -> Iterator[int]:
    """Yield every number of workers that a server's object on the stack says."""
    is_child = multiprocessing.parent_process() is not None
    servers = {_BY_FORK, *(_BY_MULTIPROCESSING if is_child else ())}
    while frame is not None:
        if _package(frame.f_globals.get("__name__")) in servers:
            for found in list(frame.f_locals.values()):
                if _package(type(found).__module__) in servers:
                    yield from _numbers_of(found)
        frame = frame.f_back


def _numbers_of(found: object) -> Iterator[int]:
    for holder in (found, *(getattr(found, name, None) for name in _HOLDERS)):
        for name in _NUMBERS:
            number = getattr(holder, name, None)
            if isinstance(number, int):
                yield number


def _package(module: object) -> str:
    return module.partition(".")[0] if isinstance(module, str) else ""
